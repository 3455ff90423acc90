"""SIFT at detected keypoints: OpenCV's detector and descriptor, for whole batches of images."""

import numbers

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, TransformerMixin

from .._images import as_pixels, fit_images, read_images, transform_images


class KeypointSIFT(TransformerMixin, BaseEstimator):
    """SIFT descriptors where OpenCV's detector finds blobs, as many as there are.

    Every keypoint has its own size and direction, so the descriptors follow when the picture is scaled or
    turned. Colour images are read as gray, ``0.299 R + 0.587 G + 0.114 B``; the detector works on 8 bits.

    Parameters
    ----------
    n_features : int, default=0
        Keep the strongest keypoints, about that many (OpenCV keeps all equals of the last one); 0 keeps all.
    contrast_threshold : float, default=0.04
        Blobs of less contrast are dropped; larger means fewer keypoints.
    edge_threshold : float, default=10
        Blobs more elongated than that are dropped as edges; larger means more keypoints.
    sigma : float, default=1.6
        Gaussian blur of the first octave, in pixels.
    root : bool, default=False
        RootSIFT: the square root of the descriptor scaled to sum 1. Euclidean distance then is Hellinger
        distance.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows. None reads a flat
        row as an image of one row.
    n_jobs : int, default=None
        Number of threads; None means 1 unless in a :obj:`joblib.parallel_config` context, -1 means all cores.
        OpenCV may use threads of its own besides (:func:`cv2.setNumThreads`).

    Attributes
    ----------
    image_shape_ : tuple of int
        ``(height, width, channels)`` of the images seen in ``fit``; height and width are None if they differ.
    n_features_in_ : int
        Numbers per image seen in ``fit``, if all images have one size.

    See Also
    --------
    keypoint_sift : The same as a plain function.
    DenseSIFT : SIFT on a regular grid.

    References
    ----------
    D. G. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004.

    R. Arandjelovic and A. Zisserman, "Three things everyone should know to improve object retrieval", CVPR
    2012 (RootSIFT).

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import KeypointSIFT
    >>> y, x = np.mgrid[:64, :64]
    >>> blob = np.exp(-((y - 20) ** 2 + (x - 40) ** 2) / 50)
    >>> [(descriptors, positions)] = KeypointSIFT().describe(blob[None])
    >>> positions[0].round()
    array([20., 40.], dtype=float32)
    """

    def __init__(
        self,
        n_features=0,
        contrast_threshold=0.04,
        edge_threshold=10,
        sigma=1.6,
        root=False,
        *,
        image_shape=None,
        n_jobs=None,
    ):
        self.n_features = n_features
        self.contrast_threshold = contrast_threshold
        self.edge_threshold = edge_threshold
        self.sigma = sigma
        self.root = root
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Check the parameters and remember the images' shape.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images, uint8 or float in [0, 1].
        y : ignored

        Returns
        -------
        self : KeypointSIFT

        Raises
        ------
        ValueError
            If a parameter is out of range, or X holds NaN or floats outside [0, 1].
        """
        images = fit_images(self, X, ragged=True)
        self._finder()
        for image in images:
            as_pixels(image, unit_range=True)
        return self

    def transform(self, X):
        """Find and describe keypoints.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images with as many channels as those seen in ``fit``.

        Returns
        -------
        descriptors : list of ndarray of shape (n_keypoints, 128), float32
            One array per image, of unit rows; an image without keypoints has an array of no rows.
        """
        described = _describe(transform_images(self, X, ragged=True), self._finder(), self.n_jobs)
        return [descriptors for descriptors, _ in described]

    def describe(self, images):
        """Return descriptors and positions image by image; needs no ``fit``.

        Parameters
        ----------
        images : array or list of images
            As in ``transform``.

        Returns
        -------
        described : list of (ndarray of shape (n_keypoints, 128), ndarray of shape (n_keypoints, 2)), float32
            Descriptors and ``(y, x)`` positions of each image, in pixels; ``(0, 0)`` is the centre of the
            first pixel.
        """
        images = read_images(images, self.image_shape, ragged=True, who="KeypointSIFT")
        return _describe(images, self._finder(), self.n_jobs)

    def _finder(self):
        return _Finder(self.n_features, self.contrast_threshold, self.edge_threshold, self.sigma, self.root)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def keypoint_sift(
    images,
    n_features=0,
    contrast_threshold=0.04,
    edge_threshold=10,
    sigma=1.6,
    root=False,
    *,
    image_shape=None,
    n_jobs=None,
):
    """Return the SIFT descriptors at the keypoints of a batch of images.

    Parameters
    ----------
    images : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
        uint8, or float in [0, 1]; the same picture gives the same descriptors in either.
    n_features, contrast_threshold, edge_threshold, sigma, root, image_shape, n_jobs
        As in :class:`KeypointSIFT`.

    Returns
    -------
    descriptors : list of ndarray of shape (n_keypoints, 128), float32
        One array per image, of unit rows; an image without keypoints has an array of no rows.

    Raises
    ------
    ValueError
        If the images hold NaN or floats outside [0, 1], or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import keypoint_sift
    >>> [descriptors.shape for descriptors in keypoint_sift(np.zeros((2, 24, 24), np.uint8))]
    [(0, 128), (0, 128)]
    """
    finder = _Finder(n_features, contrast_threshold, edge_threshold, sigma, root)
    described = _describe(read_images(images, image_shape, ragged=True), finder, n_jobs)
    return [descriptors for descriptors, _ in described]


class _Finder:
    """The checked parameters, and what they find in an image."""

    def __init__(self, n_features, contrast_threshold, edge_threshold, sigma, root):
        if not isinstance(n_features, numbers.Integral) or n_features < 0:
            raise ValueError(f"n_features={n_features!r}; expected a positive int, or 0 for all.")
        if not isinstance(contrast_threshold, numbers.Real) or not 0 <= contrast_threshold < np.inf:
            raise ValueError(f"contrast_threshold={contrast_threshold!r}; expected a number from 0 on.")
        self.parameters = {
            "nfeatures": int(n_features),
            "contrastThreshold": float(contrast_threshold),
            "edgeThreshold": _positive(edge_threshold, "edge_threshold"),
            "sigma": _positive(sigma, "sigma"),
        }
        self.root = bool(root)

    def __call__(self, image):
        import cv2

        keypoints, descriptors = cv2.SIFT_create(**self.parameters).detectAndCompute(_as_bytes(image), None)
        if not keypoints:
            return np.empty((0, 128), np.float32), np.empty((0, 2), np.float32)
        positions = np.float32([keypoint.pt[::-1] for keypoint in keypoints])
        return _normalised(descriptors, self.root), positions


def _positive(value, name):
    if not isinstance(value, numbers.Real) or not 0 < value < np.inf:
        raise ValueError(f"{name}={value!r}; expected a positive number.")
    return float(value)


def _as_bytes(image):
    """Return an image as gray, uint8: ``0.299 R + 0.587 G + 0.114 B`` in floats, the same from uint8 and float."""
    pixels = as_pixels(image, unit_range=True)
    if pixels.dtype == np.uint8 and pixels.shape[2] == 1:
        return pixels[..., 0]
    levels = pixels * np.float32(1 if pixels.dtype == np.uint8 else 255)
    weights = (0.299, 0.587, 0.114) if pixels.shape[2] == 3 else (1,)
    gray = sum(levels[..., c] * np.float32(weight) for c, weight in enumerate(weights))
    return np.rint(gray).astype(np.uint8)


def _normalised(descriptors, root):
    """Return unit rows; rows of zeros stay as they are."""
    power = descriptors if root else descriptors**2
    total = power.sum(axis=1, keepdims=True)
    total[total == 0] = 1
    return np.sqrt(descriptors / total) if root else descriptors / np.sqrt(total)


def _describe(images, finder, n_jobs):
    return Parallel(n_jobs=n_jobs, require="sharedmem")(delayed(finder)(image) for image in images)
