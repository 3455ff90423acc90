"""Histograms of oriented gradients (HOG), with scikit-image's parameters and numbers, for whole batches."""

import math
from functools import lru_cache

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .. import _native
from .._arrays import constant, empty_beside, load_kernels, namespace, on_device
from .._images import (
    as_pixels,
    check_floats,
    fit_images,
    for_batches,
    one_of,
    pair,
    positive_int,
    read_images,
    transform_images,
)
from ._hog_tiles import tiles_for

_BLOCK_NORMS = ("L1", "L1-sqrt", "L2", "L2-Hys")


class HOG(TransformerMixin, BaseEstimator):
    """Histograms of oriented gradients.

    Every cell of `pixels_per_cell` pixels gets a histogram of gradient directions, weighted by gradient magnitude;
    every block of `cells_per_block` cells is normalised. On colour images each pixel votes with its strongest channel.
    The numbers are those of :func:`skimage.feature.hog` on images in [0, 1].

    Parameters
    ----------
    orientations : int, default=9
        Number of bins over 0 to 180 degrees.
    pixels_per_cell : int or (int, int), default=(8, 8)
        Rows and columns of a cell, in pixels. Pixels that fill no whole cell at the bottom and right are not counted.
    cells_per_block : int or (int, int), default=(3, 3)
        Rows and columns of a block, in cells. Blocks overlap: one starts at every cell.
    block_norm : {"L1", "L1-sqrt", "L2", "L2-Hys"}, default="L2-Hys"
        How a block is normalised. "L2-Hys" is L2, clipped at 0.2, and L2 again.
    transform_sqrt : bool, default=False
        Take the square root of every pixel first (gamma compression); pixels must not be negative.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows. None reads a flat row as an
        image of one row.
    n_jobs : int, default=None
        Number of threads; None means 1 unless in a :obj:`joblib.parallel_config` context, -1 means all cores.

    Attributes
    ----------
    image_shape_ : tuple of int
        ``(height, width, channels)`` of the images seen in ``fit``.
    n_features_in_ : int
        Numbers per image seen in ``fit``.

    See Also
    --------
    hog : The same as a plain function.

    References
    ----------
    N. Dalal and B. Triggs, "Histograms of oriented gradients for human detection", CVPR 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import HOG
    >>> images = np.random.default_rng(0).integers(0, 256, (10, 32, 32), dtype=np.uint8)
    >>> HOG(cells_per_block=(2, 2)).fit_transform(images).shape
    (10, 324)
    """

    def __init__(
        self,
        orientations=9,
        pixels_per_cell=(8, 8),
        cells_per_block=(3, 3),
        block_norm="L2-Hys",
        transform_sqrt=False,
        *,
        image_shape=None,
        n_jobs=None,
    ):
        self.orientations = orientations
        self.pixels_per_cell = pixels_per_cell
        self.cells_per_block = cells_per_block
        self.block_norm = block_norm
        self.transform_sqrt = transform_sqrt
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Check the parameters and remember the images' shape.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels)
            Images, uint8 or float in [0, 1].
        y : ignored

        Returns
        -------
        self : HOG

        Raises
        ------
        ValueError
            If a parameter is out of range, or X holds NaN or is too small for one block.
        """
        images = fit_images(self, X, device=True)
        self._geometry().check(images.shape)
        for start in range(0, len(images), 256):
            _pixels(images[start : start + 256], self.transform_sqrt)
        return self

    def transform(self, X):
        """Describe images.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels)
            Images of the shape seen in ``fit``.

        Returns
        -------
        features : ndarray of shape (n, n_features), float32
            Blocks from top left to bottom right; in a block the cells, in a cell the orientations.
        """
        return _describe(transform_images(self, X, device=True), self._geometry(), self.n_jobs)

    def get_feature_names_out(self, input_features=None):
        """Return names such as ``hog_r0_c1_b2_o3``: row and column of the block, cell in the block, orientation."""
        check_is_fitted(self)
        geometry = self._geometry()
        rows, cols = geometry.blocks(self.image_shape_[:2])
        cells = geometry.block[0] * geometry.block[1]
        index = np.ndindex(rows, cols, cells, geometry.orientations)
        return np.array([f"hog_r{r}_c{c}_b{b}_o{o}" for r, c, b, o in index], dtype=object)

    def _geometry(self):
        return _Geometry(
            self.orientations, self.pixels_per_cell, self.cells_per_block, self.block_norm, self.transform_sqrt
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def hog(
    images,
    orientations=9,
    pixels_per_cell=(8, 8),
    cells_per_block=(3, 3),
    block_norm="L2-Hys",
    transform_sqrt=False,
    *,
    image_shape=None,
    n_jobs=None,
):
    """Return the histograms of oriented gradients of a batch of images.

    Parameters
    ----------
    images : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels)
        uint8, or float in [0, 1]; the same picture gives the same features in either.
    orientations, pixels_per_cell, cells_per_block, block_norm, transform_sqrt, image_shape, n_jobs
        As in :class:`HOG`.

    Returns
    -------
    features : ndarray of shape (n, n_features), float32
        ``n_features = blocks_down * blocks_across * cells_per_block[0] * cells_per_block[1] * orientations``.

    Raises
    ------
    ValueError
        If the images are smaller than a block, hold NaN, or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import hog
    >>> hog(np.zeros((2, 24, 24), np.uint8)).shape
    (2, 81)
    """
    geometry = _Geometry(orientations, pixels_per_cell, cells_per_block, block_norm, transform_sqrt)
    return _describe(read_images(images, image_shape, device=True), geometry, n_jobs)


class _Geometry:
    """The checked parameters, and what follows from them and an image's size."""

    def __init__(self, orientations, pixels_per_cell, cells_per_block, block_norm, transform_sqrt):
        self.orientations = positive_int(orientations, "orientations")
        self.cell = pair(pixels_per_cell, "pixels_per_cell")
        self.block = pair(cells_per_block, "cells_per_block")
        self.block_norm = one_of(block_norm, "block_norm", _BLOCK_NORMS)
        self.transform_sqrt = bool(transform_sqrt)

    def blocks(self, size):
        """Return the rows and columns of blocks in an image of `size` (height, width)."""
        return tuple(k // cell - block + 1 for k, cell, block in zip(size, self.cell, self.block, strict=True))

    def n_features(self, size):
        rows, cols = self.blocks(size)
        return rows * cols * self.block[0] * self.block[1] * self.orientations

    def check(self, shape):
        height, width = shape[1:3]
        if min(self.blocks((height, width))) < 1:
            need = tuple(cell * block for cell, block in zip(self.cell, self.block, strict=True))
            raise ValueError(
                f"The images are {height} x {width} pixels, and one block of {self.block} cells of {self.cell} pixels "
                f"needs at least {need[0]} x {need[1]}. Choose smaller cells or blocks, enlarge the images with "
                "Resize(size). (A single image is a batch of one: image[None]; flat rows need image_shape.)"
            )


def _describe(images, geometry, n_jobs):
    geometry.check(images.shape)

    def describe(part, out):
        run = _run_on_device if on_device(part) else _native.kernels.hog
        run(
            _pixels(part, geometry.transform_sqrt, unchecked=on_device(part)),
            geometry.orientations,
            geometry.cell,
            geometry.block,
            geometry.block_norm,
            geometry.transform_sqrt,
            out,
        )

    size = images.shape[1:3]
    out = empty_beside(images, (len(images), geometry.n_features(size)))
    workspace = 8 * (images[0].size + geometry.n_features(size))  # pixels as float64, blocks of very many cells
    return for_batches(describe, images, out, n_jobs=n_jobs, workspace=workspace)


def _pixels(images, transform_sqrt, *, unchecked=False):
    float_type = np.float64 if images.dtype == np.float64 else np.float32
    pixels = as_pixels(images, float_type=float_type, unchecked=unchecked)
    if transform_sqrt and pixels.dtype != np.uint8 and pixels.min() < 0:
        raise ValueError(
            f"transform_sqrt=True takes square roots, but the smallest pixel is {float(pixels.min()):.6g}."
        )
    return pixels


# --- On a GPU ---------------------------------------------------------------------------------------------------------


_MOST_ORIENTATIONS = 200  # hog.cu says why


def _run_on_device(images, orientations, cell, block, block_norm, transform_sqrt, out):
    """Describe images whose floats nobody has looked at: the kernel does, at those that it reads float32."""
    if orientations > _MOST_ORIENTATIONS:
        raise ValueError(f"orientations={orientations}; on a GPU at most {_MOST_ORIENTATIONS} are possible.")
    shape, alignment = images.shape[1:], math.gcd(images.data.ptr, 16)
    tiles = tiles_for(shape, images.itemsize, alignment, orientations, cell, block)
    rows, cols = tiles.looked_at if images.dtype == np.float32 else (0, 0)
    if images.dtype.kind == "f":
        check_floats(images[:, rows:])
        check_floats(images[:, :rows, cols:])
    found = namespace(images).zeros(1, np.int32)
    _launch_kernel(images, tiles, orientations, cell, block, block_norm, transform_sqrt, found, out)
    if rows > 0 and int(found[0]):
        check_floats(images)


def _launch_kernel(images, tiles, orientations, cell, block, block_norm, transform_sqrt, found, out):
    xp, n_tiles = namespace(images), len(images) * tiles.per_image
    names = {
        "Pixel": images.dtype,
        "CHANNELS": images.shape[3],
        "RUN": tiles.run,
        "STAGED": int(tiles.staged),
        "IN_SHARED": int(not tiles.in_workspace),
        "LANES": tiles.lanes,
        "EXACT": _precision(images, orientations, transform_sqrt),
        "ORIENTATIONS": orientations,
        **dict(zip(("CELL_ROWS", "CELL_COLS", "BLOCK_ROWS", "BLOCK_COLS"), (*cell, *block), strict=True)),
        "NORM": _BLOCK_NORMS.index(block_norm),
    }
    load_kernels("features/hog.cu", tiles.sizes, **names).launch(
        "hog",
        -(-n_tiles // tiles.together),
        images,
        n_tiles,
        transform_sqrt,
        constant(xp, _levels, transform_sqrt),
        constant(xp, _thresholds, orientations),
        constant(xp, _tangents, orientations),
        xp.empty(max(1, n_tiles * tiles.in_workspace), np.float32),
        found,
        out,
        **tiles.launch(),
    )


def _precision(images, orientations, transform_sqrt):
    """Return which gradients are found in double precision, as hog.cu numbers them: where rounding may decide a bin."""
    always = images.dtype == np.float64 or transform_sqrt
    return 2 if always else int(orientations % 4 == 0)


@lru_cache
def _levels(transform_sqrt):
    levels = np.arange(256) / 255
    return np.sqrt(levels) if transform_sqrt else levels


@lru_cache
def _thresholds(orientations):
    """Return the cotangents at which scikit-image's angles change bins, (2, orientations, 2) float64.

    First for gradients upward (gy < 0), whose arctangent is negative, then for the others. A cotangent is the sum of
    two numbers. scikit-image rounds the arctangent, and its conversion to degrees, to double precision: so the angle
    that matters lies halfway between the last double that stays in the bin before, and the next one.
    """
    table, pi = np.zeros((2, orientations, 2)), np.longdouble("3.14159265358979323846264338327950288")
    for sign, k in np.ndindex(2, orientations - 1):
        k += 1
        angle = float(pi * k / orientations - (0 if sign else pi))
        while _has_reached(angle, k, orientations):
            angle = np.nextafter(angle, -np.inf)
        while not _has_reached(angle, k, orientations):
            angle = np.nextafter(angle, np.inf)
        middle = (np.longdouble(angle) + np.longdouble(np.nextafter(angle, -np.inf))) / 2
        cotangent = 1 / np.tan(middle)
        table[sign, k] = cotangent, cotangent - np.float64(cotangent)
    return table


@lru_cache
def _tangents(n):
    """Return minus the tangents of the thresholds between -90 and 90 degrees, for `n` orientations; float32.

    The first threshold is always reached, and what follows the last one never. At 90 degrees, where an even `n` has its
    last, the tangent is so small that without a horizontal gradient it is reached.
    """
    angles = np.pi / n * (np.arange(n + 1) - (n + 1) // 2)
    tangents = [3e38, *-np.tan(angles[1:]), -3e38]
    tangents[(n + 1) // 2] = 0.0  # not -0.0, which is negative
    if n % 2 == 0:
        tangents[n] = -1e16
    return np.array(tangents, np.float32)


def _has_reached(angle, k, orientations):
    degrees = np.rad2deg(angle)
    return (degrees + 180 if degrees < 0 else degrees) >= 180.0 / orientations * k
