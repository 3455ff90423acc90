"""Colour histograms over OpenCV's colour spaces, with the counts of ``cv2.calcHist``, for whole batches."""

import numbers
from functools import lru_cache

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .. import _native
from .._arrays import SHARED_MEMORY, constant, empty_beside, load_kernels, namespace, on_device, threads_for
from .._images import (
    as_pixels,
    fit_images,
    for_batches,
    is_ragged,
    largest,
    one_of,
    pair,
    read_images,
    transform_images,
)

_CHANNELS = {
    "rgb": ("r", "g", "b"),
    "hsv": ("h", "s", "v"),
    "lab": ("l", "a", "b"),
    "opponent": ("rg", "yb", "i"),
    "gray": ("y",),
}
_NORMS = (None, "l1", "l2", "hellinger")
_MOST_BINS = 65536  # per cell; a kernel's bin number has 16 bits


class ColorHistogram(TransformerMixin, BaseEstimator):
    """Histograms of colours.

    Every pixel is one count, in the bin of its colour: level v of a channel is in bin
    ``floor(v * bins / 256)``, and of hue in bin ``floor(v * bins / 180)``. Where the objects keep their place
    in the picture, a `grid` of cells, each with a histogram of its own, tells more than one histogram of the
    whole.

    Parameters
    ----------
    bins : int or tuple of int, default=8
        Bins per channel, 1 to 256: one number for all channels or one for each.
    color_space : {"rgb", "hsv", "lab", "opponent", "gray"}, default="rgb"
        All have 8-bit levels, 0 to 255, except that hue ends at 179.

        - "rgb": as in the image.
        - "hsv": hue (in steps of 2 degrees), saturation, value; exactly OpenCV's ``COLOR_RGB2HSV``.
        - "lab": CIE L*a*b* of sRGB under D65, as L* 255 / 100, a* + 128, b* + 128, rounded; nearly always
          within one level of OpenCV's.
        - "opponent": ``rg = (R - G + 255) / 2``, ``yb = (R + G - 2 B + 510) / 4`` and
          ``i = (R + G + B) / 3``, rounded, halves up. These are (R - G) / sqrt 2, (R + G - 2 B) / sqrt 6 and
          (R + G + B) / sqrt 3, stretched to 0..255.
        - "gray": luma of Rec. 601; exactly OpenCV's ``COLOR_RGB2GRAY``. One channel.
    joint : bool, default=True
        Count colours, in a histogram with one axis per channel (the last channel changes fastest). If False,
        count each channel's levels, one histogram after the other.
    grid : int or (int, int), default=(1, 1)
        Rows and columns of cells. Cell row i begins at pixel row ``floor(i * height / rows)``; columns
        likewise.
    norm : {None, "l1", "l2", "hellinger"}, default=None
        What is done to a cell's numbers. None leaves the counts; "l1" and "l2" make them sum to 1, or their
        squares; "hellinger" takes the square root of "l1", so that a linear SVM compares histograms by the
        Hellinger kernel.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows. None reads a flat
        row as a gray image of one row: a row of numbers, of which those outside [0, 1] are counted in the
        outermost bins.
    n_jobs : int, default=None
        Number of threads; None means 1 unless in a :obj:`joblib.parallel_config` context, -1 means all cores.

    Attributes
    ----------
    image_shape_ : tuple of int
        ``(height, width, channels)`` of the images seen in ``fit``; the sizes are None where they differed.
    n_features_in_ : int
        Numbers per image seen in ``fit``; absent where the images' sizes differed.

    See Also
    --------
    color_histogram : The same as a plain function.

    Notes
    -----
    ``cv2.calcHist`` computes a hue's bin in floating point, and for a few numbers of bins (26 is the
    smallest) puts a hue that begins a bin into the bin before. Here it is in the bin that it begins.

    References
    ----------
    M. J. Swain and D. H. Ballard, "Color indexing", International Journal of Computer Vision 7, 1991.

    K. van de Sande, T. Gevers and C. Snoek, "Evaluating color descriptors for object and scene recognition",
    IEEE Transactions on Pattern Analysis and Machine Intelligence 32, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import ColorHistogram
    >>> images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    >>> ColorHistogram(color_space="hsv").fit_transform(images).shape
    (10, 512)
    """

    def __init__(self, bins=8, color_space="rgb", joint=True, grid=(1, 1), norm=None, *, image_shape=None, n_jobs=None):
        self.bins = bins
        self.color_space = color_space
        self.joint = joint
        self.grid = grid
        self.norm = norm
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Check the parameters and remember the images' shape.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images, uint8 or float in [0, 1]. Gray counts as equal red, green and blue. Images in a list may
            differ in size.
        y : ignored

        Returns
        -------
        self : ColorHistogram

        Raises
        ------
        ValueError
            If a parameter is out of range, or X holds NaN, floats outside [0, 1] (except in flat rows without
            an `image_shape`) or images with fewer pixels than the grid has cells.
        """
        images = fit_images(self, X, ragged=True, device=True)
        self._layout().check(images)
        clip = _is_rows_of_numbers(X, self.image_shape)
        for start in range(0, len(images), 256):
            for part in _arrays(images[start : start + 256]):
                _levels(part, clip)
        return self

    def transform(self, X):
        """Describe images.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images with as many channels as those seen in ``fit``.

        Returns
        -------
        features : ndarray of shape (n, n_features), float32
            Cells from top left to bottom right, in a cell the bins.
        """
        images = transform_images(self, X, ragged=True, device=True)
        return _describe(images, self._layout(), _is_rows_of_numbers(X, self.image_shape), self.n_jobs)

    def get_feature_names_out(self, input_features=None):
        """Return names such as ``hsv_h0_s3_v7`` (joint) or ``hsv_h0``; with cells ``hsv_r0_c1_h0_s3_v7``."""
        check_is_fitted(self)
        return np.array(self._layout().names(), dtype=object)

    def _layout(self):
        return _Layout(self.bins, self.color_space, self.joint, self.grid, self.norm)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def color_histogram(
    images, bins=8, color_space="rgb", joint=True, grid=(1, 1), norm=None, *, image_shape=None, n_jobs=None
):
    """Return the colour histograms of a batch of images.

    Parameters
    ----------
    images : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
        uint8, or float in [0, 1], which is read as the nearest of 256 levels; the same picture gives the same
        features in either. Gray counts as equal red, green and blue. Images in a list may differ in size.
    bins, color_space, joint, grid, norm, image_shape, n_jobs
        As in :class:`ColorHistogram`.

    Returns
    -------
    features : ndarray of shape (n, n_features), float32
        ``n_features = rows * columns * n_bins``, with ``n_bins`` the product of the channels' bins, or their
        sum where `joint` is False.

    Raises
    ------
    ValueError
        If the images hold NaN or floats outside [0, 1] (except in flat rows without an `image_shape`), have
        fewer pixels than the grid has cells, or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import color_histogram
    >>> color_histogram(np.full((1, 4, 6, 3), 200, np.uint8), bins=2)
    array([[ 0.,  0.,  0.,  0.,  0.,  0.,  0., 24.]], dtype=float32)
    """
    layout = _Layout(bins, color_space, joint, grid, norm)
    read = read_images(images, image_shape, ragged=True, device=True)
    return _describe(read, layout, _is_rows_of_numbers(images, image_shape), n_jobs)


class _Layout:
    """The checked parameters, and what follows from them."""

    def __init__(self, bins, color_space, joint, grid, norm):
        self.color_space = one_of(color_space, "color_space", tuple(_CHANNELS))
        self.channels = _CHANNELS[color_space]
        self.bins = _per_channel(bins, color_space)
        self.joint = bool(joint)
        self.grid = pair(grid, "grid")
        self.norm = one_of(norm, "norm", _NORMS)
        if self.n_bins > _MOST_BINS:
            raise ValueError(
                f"bins={bins!r} makes a joint histogram of {self.n_bins} bins; "
                f"expected at most {_MOST_BINS}. Choose fewer, or joint=False."
            )

    @property
    def n_bins(self):
        return int(np.prod(self.bins)) if self.joint else sum(self.bins)

    @property
    def n_features(self):
        return self.grid[0] * self.grid[1] * self.n_bins

    def check(self, images):
        for height, width in {part.shape[1:3] for part in _arrays(images)}:
            if height < self.grid[0] or width < self.grid[1]:
                raise ValueError(
                    f"An image of {height} x {width} pixels has too few for a grid of {self.grid[0]} x "
                    f"{self.grid[1]} cells. Choose fewer, or give image_shape where X holds flat rows."
                )

    def names(self):
        cells = [f"_r{r}_c{c}" for r, c in np.ndindex(self.grid)] if self.grid != (1, 1) else [""]
        return [self.color_space + cell + name for cell in cells for name in self._bin_names()]

    def _bin_names(self):
        if not self.joint:
            return [f"_{c}{k}" for c, n in zip(self.channels, self.bins, strict=True) for k in range(n)]
        index = np.ndindex(self.bins)
        return ["".join(f"_{c}{k}" for c, k in zip(self.channels, bins, strict=True)) for bins in index]


def _per_channel(bins, color_space):
    n_channels = len(_CHANNELS[color_space])
    values = (bins,) * n_channels if isinstance(bins, numbers.Integral) else bins
    ok = isinstance(values, (tuple, list, np.ndarray)) and len(values) == n_channels
    if not ok or not all(isinstance(k, numbers.Integral) and 1 <= k <= 256 for k in values):
        raise ValueError(
            f"bins={bins!r}; expected an int from 1 to 256, or one for each channel of {color_space!r} ({n_channels})."
        )
    return tuple(int(k) for k in values)


def _describe(images, layout, clip, n_jobs):
    layout.check(images)

    def describe(part, out):
        arrays = _arrays(part)
        for array, rows in zip(arrays, namespace(out).split(out, len(arrays)), strict=True):
            pixels = _levels(array, clip)
            run = _launch_kernel if on_device(pixels) else _native.kernels.color_histogram
            run(
                pixels,
                layout.bins,
                layout.color_space,
                layout.joint,
                layout.grid,
                layout.norm or "none",
                rows,
            )

    out = empty_beside(images, (len(images), layout.n_features))
    workspace = 8 * (largest(images).size + layout.n_features)
    return for_batches(describe, images, out, n_jobs=n_jobs, workspace=workspace)


def _arrays(images):
    """Return a batch as a list of arrays (n, height, width, channels): itself, or each image of a list."""
    return [image[None] for image in images] if isinstance(images, list) else [images]


def _is_rows_of_numbers(X, image_shape):
    return image_shape is None and not is_ragged(X) and getattr(X, "ndim", 2) == 2


def _levels(images, clip):
    """Return images as uint8, floats rounded to the nearest of 256 levels."""
    float_type = np.float64 if images.dtype == np.float64 else np.float32
    pixels = as_pixels(images, float_type=float_type, unit_range=not clip)
    if pixels.dtype == np.uint8:
        return pixels
    levels = pixels * pixels.dtype.type(255)
    namespace(levels).rint(levels, out=levels)
    return (levels.clip(0, 255, out=levels) if clip else levels).astype(np.uint8)


# --- On a GPU ---------------------------------------------------------------------------------------------------------


_MANY_PIXELS = 1 << 15  # of a cell: then one thread block has much to do


def _launch_kernel(pixels, bins, color_space, joint, grid, norm, out):
    xp, (n, height, width, channels) = namespace(pixels), pixels.shape
    n_bins = out.shape[1] // (grid[0] * grid[1])
    n_cells = n * grid[0] * grid[1]
    in_shared = n_bins * 4 <= SHARED_MEMORY - 1024
    n_pixels = height * width // (grid[0] * grid[1])
    norms = _NORMS[1:].index(norm) + 1 if norm != "none" else 0
    run = _run(pixels, grid)
    names = {"CHANNELS": channels, "RUN": run, "SPACE": list(_CHANNELS).index(color_space), "JOINT": int(joint)}
    load_kernels("features/color_histogram.cu", **names, IN_SHARED=int(in_shared)).launch(
        "color_histogram",
        n_cells,
        *(pixels, height, width, *grid, norms, n_bins),
        constant(xp, _binning, tuple(bins), color_space),
        constant(xp, _linear_light),
        xp.empty(1 if in_shared else n_cells * n_bins, np.uint32),
        out,
        threads=threads_for(max(n_bins // 4, n_pixels // run), most=1024 if n_pixels > _MANY_PIXELS else None),
        shared=4 * n_bins if in_shared else 0,
    )


def _run(pixels, grid):
    """Return how many pixels a thread takes at a time: 4 where all cells' rows have whole words of them."""
    height, width = pixels.shape[1:3]
    row = width // grid[1] if width % grid[1] == 0 else 1
    count = width * height if grid == (1, 1) else row  # a cell of all columns is one long row
    return 4 if count % 4 == 0 and pixels.data.ptr % 4 == 0 else 1


@lru_cache
def _binning(bins, color_space):
    """Return the factors from levels to bins (over 2**15), and the strides and first counters of the channels."""
    levels = [180 if color_space == "hsv" and c == 0 else 256 for c in range(len(bins))]
    table = np.zeros((3, 3), np.int32)
    for c, (n, size) in enumerate(zip(bins, levels, strict=True)):
        table[:, c] = -(-n * 32768 // size), np.prod(bins[c + 1 :]), sum(bins[:c])
    return table


@lru_cache
def _linear_light():
    """Return the linear light, 0 to 1, of the 256 levels of sRGB."""
    x = np.arange(256) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)
