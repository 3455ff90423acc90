"""Dense SIFT with VLFeat's geometry (`vl_dsift`, flat window), for whole batches of images."""

import math
import numbers
from functools import lru_cache
from itertools import accumulate

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from .. import _native
from .._arrays import constant, empty_beside, load_kernels, namespace, on_device, threads_for
from .._images import as_pixels, fit_images, for_batches, positive_int, read_images, transform_images

_N_DIMS = 128  # 4 x 4 bins of 8 directions


class DenseSIFT(TransformerMixin, BaseEstimator):
    """SIFT descriptors on a regular grid, at one or several scales.

    A descriptor is 4 x 4 bins of `bin_size` pixels, each a histogram of 8 gradient directions, weighted by
    gradient magnitude and shared bilinearly between neighbouring bins and directions. It is scaled to length
    1, clipped at 0.2 and scaled again. The numbers are those of VLFeat's ``vl_dsift`` with ``useFlatWindow``
    (a Gaussian window of 2 bins about the descriptor's centre, one weight per bin), but for VLFeat's coarse
    arctangent.

    Colour images are read as gray, ``0.299 R + 0.587 G + 0.114 B``.

    Parameters
    ----------
    step : int, default=4
        Pixels from one descriptor to the next, down and across.
    bin_size : int or tuple of int, default=4
        Pixels per bin. Several sizes give the descriptors of the first size, then those of the second, and so
        on.
    contrast_threshold : float, default=0.005
        Descriptors of less contrast become zeros (0 keeps all). Contrast is the sum of the descriptor before
        it is normalised, divided by its ``(3 * bin_size + 1) ** 2`` pixels: about the mean gradient per pixel
        of an image in [0, 1]. That is VLFeat's ``norm``, and the default is that of its ``vl_phow``.
    root : bool, default=False
        RootSIFT: the square root of the descriptor scaled to sum 1. Euclidean distance then is Hellinger
        distance.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows. None reads a flat
        row as an image of one row.
    n_jobs : int, default=None
        Number of threads; None means 1 unless in a :obj:`joblib.parallel_config` context, -1 means all cores.

    Attributes
    ----------
    image_shape_ : tuple of int
        ``(height, width, channels)`` of the images seen in ``fit``; height and width are None if they differ.
    n_features_in_ : int
        Numbers per image seen in ``fit``, if all images have one size.

    See Also
    --------
    dense_sift : The same as a plain function.
    KeypointSIFT : SIFT where a detector finds something, rather than everywhere.

    Notes
    -----
    The output has three dimensions, so there are no feature names and no ``set_output``: a bag of words or an
    encoder is what follows in a pipeline.

    References
    ----------
    D. G. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004.

    A. Vedaldi and B. Fulkerson, "VLFeat: An open and portable library of computer vision algorithms", 2008.

    R. Arandjelovic and A. Zisserman, "Three things everyone should know to improve object retrieval", CVPR
    2012 (RootSIFT).

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import DenseSIFT
    >>> images = np.random.default_rng(0).integers(0, 256, (10, 32, 32), dtype=np.uint8)
    >>> DenseSIFT(bin_size=(4, 6)).fit_transform(images).shape
    (10, 41, 128)
    """

    def __init__(self, step=4, bin_size=4, contrast_threshold=0.005, root=False, *, image_shape=None, n_jobs=None):
        self.step = step
        self.bin_size = bin_size
        self.contrast_threshold = contrast_threshold
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
        self : DenseSIFT

        Raises
        ------
        ValueError
            If a parameter is out of range, or X holds NaN or an image too small for one descriptor.
        """
        images, geometry = fit_images(self, X, ragged=True, device=True), self._geometry()
        if isinstance(images, list):
            images = [image[None] for image in images]
        else:
            images = [images[start : start + 256] for start in range(0, len(images), 256)]
        for part in images:
            geometry.check(part.shape[1:])
            as_pixels(part)
        return self

    def transform(self, X):
        """Describe images.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images with as many channels as those seen in ``fit``.

        Returns
        -------
        descriptors : ndarray of shape (n, n_descriptors, 128), float32
            Descriptors from top left to bottom right (see `positions`); in a descriptor the 4 x 4 bins from
            top left to bottom right, in a bin the directions 0, 45, ... 315 degrees, from right over down.
            Numbers lie in [0, 1]. For a list of images of different sizes, a list of arrays (n_descriptors,
            128).
        """
        return _describe(transform_images(self, X, ragged=True, device=True), self._geometry(), self.n_jobs)

    def positions(self, image_shape):
        """Return where the descriptors of an image lie.

        Parameters
        ----------
        image_shape : tuple of int
            ``(height, width)`` or ``(height, width, channels)`` of the image.

        Returns
        -------
        positions : ndarray of shape (n_descriptors, 2), float32
            Centres ``(y, x)`` in pixels, in the order of the descriptors; ``(0, 0)`` is the centre of the
            first pixel.
        """
        return self._geometry().positions(image_shape)

    def describe(self, images):
        """Return descriptors and positions image by image; needs no ``fit``.

        Parameters
        ----------
        images : array or list of images
            As in ``transform``, but few enough for all their descriptors to fit into memory.

        Returns
        -------
        described : list of (ndarray of shape (n_descriptors, 128), ndarray of shape (n_descriptors, 2)),
        float32
            Descriptors and ``(y, x)`` positions of each image. For images of one size the descriptors are
            slices of one array, and the positions are one array.
        """
        images, geometry = read_images(images, self.image_shape, ragged=True, device=True), self._geometry()
        if not isinstance(images, list):
            descriptors, positions = self.describe_alike(images)
            return list(zip(descriptors, [positions] * len(images), strict=True))
        positions = [geometry.positions(image.shape) for image in images]
        return list(zip(_describe(images, geometry, self.n_jobs), positions, strict=True))

    def describe_alike(self, images):
        """Return descriptors and positions of images of one size; needs no ``fit``.

        Parameters
        ----------
        images : array
            As in ``describe``.

        Returns
        -------
        descriptors : array of shape (n, n_descriptors, 128), float32
        positions : ndarray of shape (n_descriptors, 2), float32
            The same in all images.
        """
        images, geometry = read_images(images, self.image_shape, device=True), self._geometry()
        return _describe(images, geometry, self.n_jobs), geometry.positions(images.shape[1:])

    def _geometry(self):
        return _Geometry(self.step, self.bin_size, self.contrast_threshold, self.root)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def dense_sift(images, step=4, bin_size=4, contrast_threshold=0.005, root=False, *, image_shape=None, n_jobs=None):
    """Return the dense SIFT descriptors of a batch of images.

    Parameters
    ----------
    images : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
        uint8, or float in [0, 1]; the same picture gives the same descriptors in either.
    step, bin_size, contrast_threshold, root, image_shape, n_jobs
        As in :class:`DenseSIFT`.

    Returns
    -------
    descriptors : ndarray of shape (n, n_descriptors, 128), float32
        ``((height - 1 - 3 * bin_size) // step + 1) * ((width - 1 - 3 * bin_size) // step + 1)`` descriptors
        per image and bin size. For a list of images of different sizes, a list of arrays (n_descriptors,
        128).

    Raises
    ------
    ValueError
        If an image is smaller than a descriptor (``3 * bin_size + 1`` pixels) or holds NaN, or a parameter is
        out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import dense_sift
    >>> dense_sift(np.zeros((2, 24, 24), np.uint8)).shape
    (2, 9, 128)
    """
    geometry = _Geometry(step, bin_size, contrast_threshold, root)
    return _describe(read_images(images, image_shape, ragged=True, device=True), geometry, n_jobs)


class _Geometry:
    """The checked parameters, and what follows from them and an image's size."""

    def __init__(self, step, bin_size, contrast_threshold, root):
        self.step = positive_int(step, "step")
        self.bin_sizes = _bin_sizes(bin_size)
        if not isinstance(contrast_threshold, numbers.Real) or not 0 <= contrast_threshold < np.inf:
            raise ValueError(f"contrast_threshold={contrast_threshold!r}; expected a number from 0 on.")
        self.contrast_threshold = float(contrast_threshold)
        self.root = bool(root)

    def grid(self, image_shape, bin_size):
        """Return the rows and columns of descriptors in an image."""
        return tuple((k - 1 - 3 * bin_size) // self.step + 1 for k in image_shape[:2])

    def edges(self, image_shape):
        """Return where the descriptors of each bin size begin, and where the last ones end."""
        counts = [math.prod(self.grid(image_shape, bin_size)) for bin_size in self.bin_sizes]
        return [0, *accumulate(counts)]

    def positions(self, image_shape):
        self.check(image_shape)
        grids = []
        for bin_size in self.bin_sizes:
            index = np.indices(self.grid(image_shape, bin_size), np.float32).reshape(2, -1).T
            grids.append(index * self.step + np.float32(1.5 * bin_size))
        return np.concatenate(grids)

    def check(self, image_shape):
        height, width = image_shape[:2]
        need = 3 * max(self.bin_sizes) + 1
        if min(height, width) < need:
            raise ValueError(
                f"An image is {height} x {width} pixels, and a descriptor of 4 x 4 bins of "
                f"{max(self.bin_sizes)} pixels needs at least {need} x {need}. Choose a smaller bin_size, "
                "enlarge the images with Resize(size). (A single image is a batch of one: image[None]; flat rows need "
                "image_shape.)"
            )


def _bin_sizes(bin_size):
    if not isinstance(bin_size, (tuple, list, np.ndarray)):
        return (positive_int(bin_size, "bin_size"),)
    if len(bin_size) == 0:
        raise ValueError(f"bin_size={bin_size!r}; expected a positive int, or some of them.")
    return tuple(positive_int(size, "bin_size") for size in bin_size)


def _describe(images, geometry, n_jobs):
    several = isinstance(images, list)
    shapes = {image.shape for image in (images if several else images[:1])}
    workspace = max(_workspace(shape, geometry) for shape in shapes)
    if several:
        out = [_empty(image, image.shape, geometry) for image in images]
        fill = _fill_each
    else:
        out = _empty(images, images.shape[1:], geometry, len(images))
        fill = _fill
    batch_size = 256 if several else 64
    return for_batches(
        lambda *parts: fill(*parts, geometry), images, out, n_jobs=n_jobs, batch_size=batch_size, workspace=workspace
    )


def _empty(images, image_shape, geometry, *n_images):
    geometry.check(image_shape)
    return empty_beside(images, (*n_images, geometry.edges(image_shape)[-1], _N_DIMS))


def _fill_each(images, outs, geometry):
    for image, out in zip(images, outs, strict=True):
        _fill(image[None], out[None], geometry)


def _fill(images, out, geometry):
    pixels, edges = as_pixels(images), geometry.edges(images.shape[1:])
    for i, bin_size in enumerate(geometry.bin_sizes):
        if on_device(pixels):
            _launch_kernel(pixels, geometry, bin_size, edges[i], out)
            continue
        part = out[:, edges[i] : edges[i + 1]]
        _native.kernels.dense_sift(pixels, geometry.step, bin_size, geometry.contrast_threshold, geometry.root, part)


# --- On a GPU ---------------------------------------------------------------------------------------------------------


_ROOM = 12 << 10  # bytes of shared memory for bins, for pixels, for stretches: so that many tiles are at work at once
_LARGEST_BIN = 700  # of three rows of pixels, the tile of one descriptor just fits


class _Tiles:
    """How the kernel cuts images into tiles; dense_sift.cu has the words."""

    def __init__(self, size, step, bin_size, grid):
        self.size, self.step, self.bin_size, self.grid = size, step, bin_size, grid
        self.spacing, self.rows, self.cols = math.gcd(step, bin_size), *grid
        while self.rows * self.cols > 1 and max(32 * math.prod(self._nodes()), 6 * self._gray_pitch()) > _ROOM:
            if self.rows >= self.cols:
                self.rows = -(-self.rows // 2)
            else:
                self.cols = -(-self.cols // 2)
        if self.rows * self.cols == 1:
            self.spacing = bin_size  # there are no bins between
        down, self.across = (n + 2 * self.reach - 1 for n in self._nodes())  # stretches
        self.pitch, n_rows = self._gray_pitch(), down * self.spacing
        self.band = max(1, min(_ROOM // (64 * self.across + 128), _ROOM // (4 * self.pitch) - 2, n_rows))
        if self.band > self.spacing:
            self.band -= self.band % self.spacing
        self.fetched = n_rows if 4 * self.pitch * (min(size[0], n_rows) + 2) <= _ROOM else self.band
        self.gray_size = -(-self.pitch * (min(size[0], self.fetched) + 2) // 2) * 2
        n = self.across * self.band
        self.apart = n + (8 - n) % 16  # so that odd directions lie in other banks than even ones

    @property
    def reach(self):
        """Size of a bin in units of the spacing."""
        return self.bin_size // self.spacing

    def _nodes(self):
        return [(n - 1) * (self.step // self.spacing) + 3 * self.reach + 1 for n in self._both()]

    def _gray_pitch(self):
        return min(self.size[1], (self._nodes()[1] + 2 * self.reach - 1) * self.spacing) + 2

    def _both(self):
        return self.rows, self.cols

    def names(self):
        """Return what the kernel is compiled for."""
        return {"SPACING": self.spacing, "REACH": self.reach}

    def launch(self, n_images):
        """Return the thread blocks, what the kernel has to know, and the threads and shared memory of a block."""
        tiles = [-(-n // k) for n, k in zip(self.grid, self._both(), strict=True)]
        numbers = *self.size, self.step, *self.grid, *self._both(), *tiles
        shared = 32 * math.prod(self._nodes()) + 4 * self.gray_size + 64 * self.apart
        threads = threads_for(max(8 * self._nodes()[1], 64))
        numbers = *numbers, self.fetched, self.band, self.pitch, self.apart, self.gray_size
        return n_images * math.prod(tiles), numbers, {"threads": threads, "shared": shared}


def _workspace(image_shape, geometry):
    """Return about how many bytes of a GPU's memory an image needs."""
    geometry.check(image_shape)
    return 4 * (math.prod(image_shape) + _N_DIMS * geometry.edges(image_shape)[-1])


def _launch_kernel(pixels, geometry, bin_size, first, out):
    if bin_size > _LARGEST_BIN:
        raise ValueError(f"bin_size={bin_size}; on a GPU at most {_LARGEST_BIN} is possible. Resize(size) helps.")
    n, *shape, channels = pixels.shape
    tiles = _Tiles(tuple(shape), geometry.step, bin_size, geometry.grid(shape, bin_size))
    n_blocks, numbers, how = tiles.launch(n)
    # Contrast is per pixel, for an image in [0, 1]; the votes are 2 * 255 times as large.
    least = geometry.contrast_threshold * 510 * (3 * bin_size + 1) ** 2
    rest = constant(namespace(pixels), _window, bin_size), float(least), geometry.root, first, out.shape[1]
    kernels = load_kernels("features/dense_sift.cu", Pixel=pixels.dtype, **tiles.names(), CHANNELS=channels)
    kernels.launch("dense_sift", n_blocks, pixels, *numbers, *rest, out, **how)


@lru_cache
def _window(bin_size):
    """Return the means, over each of the 4 bins, of a Gaussian of 2 bins about the descriptor's centre."""
    x = np.arange(1 - bin_size, bin_size) + bin_size * (np.arange(4)[:, None] - 1.5)
    return np.exp(-0.5 * (x / (2 * bin_size)) ** 2).mean(1).astype(np.float32)
