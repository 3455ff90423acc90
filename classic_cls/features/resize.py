"""Brings images of any size to one size."""

from functools import lru_cache

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import gen_batches

from .._arrays import empty_beside, namespace, on_device
from .._images import as_pixels, fit_images, for_batches, largest, pair, read_images, transform_images


class Resize(TransformerMixin, BaseEstimator):
    """Resize images to one size, stretching them where their shape differs.

    Pixels are averaged where an image shrinks and interpolated linearly where it grows (OpenCV's ``INTER_AREA`` and
    ``INTER_LINEAR``).

    Parameters
    ----------
    size : int or (int, int), default=(64, 64)
        Height and width of the result, in pixels.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.
    n_jobs : int, default=None
        Number of threads.

    Attributes
    ----------
    image_shape_ : tuple
        ``(height, width, channels)`` of the images seen in ``fit``; height and width None where they differed.

    See Also
    --------
    resize : The same as a plain function.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import Resize
    >>> pictures = [np.zeros((40, 30, 3), np.uint8), np.zeros((20, 50, 3), np.uint8)]
    >>> Resize(32).fit_transform(pictures).shape
    (2, 32, 32, 3)
    """

    def __init__(self, size=(64, 64), *, image_shape=None, n_jobs=None):
        self.size = size
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Check the parameters and remember whether the images are gray or colour.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images, uint8 or float.
        y : ignored

        Returns
        -------
        self : Resize
        """
        pair(self.size, "size")
        images = fit_images(self, X, ragged=True, device=True)
        for part in images if isinstance(images, list) else [images[some] for some in gen_batches(len(images), 256)]:
            as_pixels(part)
        return self

    def transform(self, X):
        """Resize images.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images with as many channels as those seen in ``fit``.

        Returns
        -------
        images : ndarray of shape (n, *size) for gray or (n, *size, 3) for RGB, float32
            uint8 input is divided by 255, so that the result is the same for uint8 x and x / 255.
        """
        return _resize_all(transform_images(self, X, ragged=True, device=True), pair(self.size, "size"), self.n_jobs)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def resize(images, size=(64, 64), *, image_shape=None, n_jobs=None):
    """Return images resized to one size.

    Parameters
    ----------
    images : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
        uint8, or float in [0, 1].
    size, image_shape, n_jobs
        As in :class:`Resize`.

    Returns
    -------
    images : ndarray of shape (n, *size) or (n, *size, 3), float32

    Raises
    ------
    ValueError
        If `size` is not one or two positive ints, or the images hold NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import resize
    >>> resize(np.full((1, 4, 4), 255, np.uint8), 2)[0]
    array([[1., 1.],
           [1., 1.]], dtype=float32)
    """
    return _resize_all(read_images(images, image_shape, ragged=True, device=True), pair(size, "size"), n_jobs)


def _resize_all(images, size, n_jobs):
    def resize_some(part, out):
        if isinstance(part, list) or not on_device(part):
            for image, resized in zip(part, out, strict=True):
                _multiply(image, size, resized) if on_device(image) else _resize_one(image, resized)
        else:
            _multiply(part, size, out)

    out = empty_beside(images, (len(images), *size, images[0].shape[2]))
    height, width, channels = largest(images).shape
    workspace = 4 * channels * (2 * height * width + size[0] * (width + size[1]))
    for_batches(resize_some, images, out, n_jobs=n_jobs, workspace=workspace)
    return out[..., 0] if out.shape[3] == 1 else out


def _resize_one(image, out):
    pixels = as_pixels(image)
    if pixels.dtype == np.uint8:
        pixels = pixels / np.float32(255)
    stretch(pixels, out)


def stretch(pixels, out):
    """Write one image (height, width[, channels]), uint8 or float32, into `out` of another size; uint8 is rounded."""
    import cv2

    height, width = out.shape[:2]
    shrunk = min(pixels.shape[0], height), min(pixels.shape[1], width)
    if shrunk != pixels.shape[:2]:
        pixels = cv2.resize(pixels, shrunk[::-1], interpolation=cv2.INTER_AREA)
    if shrunk == (height, width):
        out[...] = pixels.reshape(out.shape)
    else:
        cv2.resize(pixels, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)


# --- On a GPU ---------------------------------------------------------------------------------------------------------


def _multiply(images, size, out):
    """Resize images (..., height, width, channels) by a product with weights for the rows and one for the columns."""
    pixels, xp = as_pixels(images), namespace(images)
    if pixels.dtype == np.uint8:
        pixels = pixels.astype(np.float32) / np.float32(255)
    *batch, height, width, channels = pixels.shape
    down, across = (xp.asarray(_weights(*sizes)) for sizes in ((height, size[0]), (width, size[1])))
    rows = xp.empty((*batch, size[0], width * channels), np.float32)
    xp.matmul(down, pixels.reshape(*batch, height, width * channels), out=rows)
    xp.matmul(across, rows.reshape(*batch, size[0], width, channels), out=out)


@lru_cache
def _weights(n, size):
    """Return what each of `n` pixels counts in each of `size`, (size, n) float32: OpenCV's weights of one side."""
    if size <= n:  # the overlap of the intervals, as a share of the larger
        edges = np.arange(size + 1) * n / size
        ends = edges[1:, None].clip(np.arange(n), np.arange(1, n + 1))
        starts = edges[:-1, None].clip(np.arange(n), np.arange(1, n + 1))
        return ((ends - starts) * size / n).astype(np.float32)
    centers = ((np.arange(size) + 0.5) * n / size - 0.5).clip(0, n - 1)
    return (1 - np.abs(centers[:, None] - np.arange(n))).clip(0).astype(np.float32)
