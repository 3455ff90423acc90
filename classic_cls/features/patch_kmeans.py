"""Features of learned patches: how the patches of an image respond to a dictionary learned by k-means."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import normalize
from sklearn.utils import check_random_state
from sklearn.utils.random import sample_without_replacement
from sklearn.utils.validation import check_is_fitted

from .. import _native
from .._arrays import (
    SHARED_MEMORY,
    WARP,
    blocks_for,
    empty_beside,
    load_kernels,
    namespace,
    on_device,
    threads_for,
    to_host,
)
from .._images import (
    as_pixels,
    fit_images,
    for_batches,
    largest,
    one_of,
    pair,
    positive_int,
    positive_number,
    read_images,
    transform_images,
)
from .._kmeans import kmeans, spherical_kmeans

_ACTIVATIONS = ("triangle", "soft_threshold", "hard")
_DICTIONARIES = ("kmeans", "spherical", "patches")
_CONTRAST_EPSILON = 10 / 255**2  # added to a patch's variance: 10 where pixels run to 255
_LARGEST = 1e6  # a pixel's square must stay far inside float32


class PatchKMeans(TransformerMixin, BaseEstimator):
    """Features of learned patches: how the patches of an image respond to a dictionary, averaged over a grid.

    ``fit`` draws patches from the training images, evens out their contrast, whitens them (ZCA) and learns a
    dictionary. ``transform`` does the same to every patch of an image, compares it with each dictionary entry, and
    takes the mean of what that gives over the cells of a grid: no descriptor is designed, and no label used.

    Parameters
    ----------
    n_clusters : int, default=800
        Entries of the dictionary. More are better, up to several thousand.
    patch_size : int or (int, int), default=6
        Rows and columns of a patch, in pixels. 6 suits images of 32 pixels.
    step : int, default=1
        Pixels between neighbouring patches.
    pool : int, (int, int) or tuple of pairs, default=(2, 2)
        Rows and columns of the grid over whose cells responses are averaged; several grids follow one another, as in
        ``((1, 1), (2, 2))``.
    activation : {"triangle", "soft_threshold", "hard"}, default="triangle"
        A patch's response to an entry. "triangle": how much nearer it is than the average entry, or 0.
        "soft_threshold": by how much their dot product exceeds `alpha`, and as a second feature the same with the
        opposite sign. "hard": 1 for the nearest entry and 0 for others.
    dictionary : {"kmeans", "spherical", "patches"}, default="kmeans"
        How it is learned. "spherical" is k-means for directions, which suits "soft_threshold"; "patches" takes random
        patches as they are. Both give entries of length 1.
    alpha : float, default=0.25
        Threshold of "soft_threshold"; not used otherwise.
    whitening_epsilon : float, default=0.1
        Added to the variances before whitening divides by them. Larger values whiten less and suppress more noise.
    samples_per_cluster : int, default=100
        Patches drawn for learning, per entry.
    random_state : int, RandomState or None, default=None
        Draws the patches and starts k-means.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows. None reads a flat row as an
        image of one row.
    n_jobs : int, default=None
        Number of threads; None means 1 unless in a :obj:`joblib.parallel_config` context, -1 means all cores.

    Attributes
    ----------
    mean_ : ndarray of shape (n_pixels,), float32
        Mean of the training patches, after their contrast was evened out. The numbers of a patch run over rows,
        columns, channels.
    whitening_ : ndarray of shape (n_pixels, n_pixels), float32
        A whitened patch is ``(patch - mean_) @ whitening_``.
    dictionary_ : ndarray of shape (n_clusters, n_pixels), float32
        Whitened patches that others are compared with.
    image_shape_ : tuple
        ``(height, width, channels)`` of the images seen in ``fit``; height and width None where they differed.

    See Also
    --------
    patch_features : The features of images, given what ``fit`` has learned.

    References
    ----------
    A. Coates, H. Lee and A. Y. Ng, "An analysis of single-layer networks in unsupervised feature learning",
    AISTATS 2011.
    A. Coates and A. Y. Ng, "The importance of encoding versus training with sparse coding and vector quantization",
    ICML 2011 (soft threshold, random patches).

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import PatchKMeans
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    >>> PatchKMeans(n_clusters=10, random_state=0).fit_transform(images).shape
    (20, 40)
    """

    def __init__(
        self,
        n_clusters=800,
        patch_size=6,
        step=1,
        pool=(2, 2),
        activation="triangle",
        *,
        dictionary="kmeans",
        alpha=0.25,
        whitening_epsilon=0.1,
        samples_per_cluster=100,
        random_state=None,
        image_shape=None,
        n_jobs=None,
    ):
        self.n_clusters = n_clusters
        self.patch_size = patch_size
        self.step = step
        self.pool = pool
        self.activation = activation
        self.dictionary = dictionary
        self.alpha = alpha
        self.whitening_epsilon = whitening_epsilon
        self.samples_per_cluster = samples_per_cluster
        self.random_state = random_state
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Learn the whitening and the dictionary.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images, uint8 or float in [0, 1]; in a list their sizes may differ.
        y : ignored

        Returns
        -------
        self : PatchKMeans

        Raises
        ------
        ValueError
            If an image is too small for one patch per cell, the images have fewer patches than the dictionary is to
            have entries, or a parameter is out of range.
        """
        n_clusters = positive_int(self.n_clusters, "n_clusters")
        n_samples = n_clusters * positive_int(self.samples_per_cluster, "samples_per_cluster")
        one_of(self.dictionary, "dictionary", _DICTIONARIES)
        epsilon = positive_number(self.whitening_epsilon, "whitening_epsilon")
        layout = self._layout()
        images = fit_images(self, X, ragged=True, device=True)
        layout.check(images)
        rng = check_random_state(self.random_state)
        patches = _sample_patches(images, layout, n_samples, rng)
        self.mean_, self.whitening_ = _learn_whitening(patches, epsilon)
        self.dictionary_ = self._learn_dictionary((patches - self.mean_) @ self.whitening_, n_clusters, rng)
        return self

    def _learn_dictionary(self, patches, n_clusters, rng):
        if len(patches) < n_clusters:
            raise ValueError(
                f"n_clusters={n_clusters}, but the images have only {len(patches)} patches to learn from. "
                "Ask for fewer clusters, take a smaller step, or give more or larger images."
            )
        if self.dictionary == "patches":
            return normalize(patches[rng.choice(len(patches), n_clusters, replace=False)])
        learn = kmeans if self.dictionary == "kmeans" else spherical_kmeans
        return learn(patches, n_clusters, rng, self.n_jobs)

    def transform(self, X):
        """Describe images.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images with as many channels as those seen in ``fit``.

        Returns
        -------
        features : ndarray of shape (n, n_features), float32
            The grids of `pool` one after the other, of a grid its cells from top left to bottom right, of a cell one
            number per dictionary entry ("soft_threshold": then one per entry with the opposite sign).
        """
        images = transform_images(self, X, ragged=True, device=True)
        return _describe(images, self._layout(), self.mean_, self.whitening_, self.dictionary_, self.n_jobs)

    def get_feature_names_out(self, input_features=None):
        """Return names such as ``patch_12_pool0_cell3``; ``minus_patch_12_pool0_cell3`` for the opposite sign."""
        check_is_fitted(self)
        layout = self._layout()
        entries = [f"{sign}patch_{k}" for sign in ("", "minus_")[: layout.signs] for k in range(len(self.dictionary_))]
        cells = [(g, cell) for g, (down, across) in enumerate(layout.grids) for cell in range(down * across)]
        return np.array([f"{entry}_pool{g}_cell{cell}" for g, cell in cells for entry in entries], dtype=object)

    def _layout(self):
        return _Layout(self.patch_size, self.step, self.pool, self.activation, self.alpha)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def patch_features(
    images,
    mean,
    whitening,
    dictionary,
    patch_size=6,
    step=1,
    pool=(2, 2),
    activation="triangle",
    *,
    alpha=0.25,
    image_shape=None,
    n_jobs=None,
):
    """Return how the patches of a batch of images respond to a dictionary.

    Parameters
    ----------
    images : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
        uint8, or float in [0, 1]; the same picture gives the same features in either. Images in a list may differ in
        size.
    mean : ndarray of shape (n_pixels,)
        Subtracted from each patch after its own mean was subtracted, and the result divided by
        ``sqrt(variance + 10 / 255**2)``. The numbers of a patch run over rows, columns, channels.
    whitening : ndarray of shape (n_pixels, n_pixels)
        Then multiplied with it, from the right.
    dictionary : ndarray of shape (n_entries, n_pixels)
        What the whitened patches are compared with.
    patch_size, step, pool, activation, alpha, image_shape, n_jobs
        As in :class:`PatchKMeans`.

    Returns
    -------
    features : ndarray of shape (n, n_features), float32
        ``n_features`` is the number of cells times ``n_entries``, and twice that for "soft_threshold".

    Raises
    ------
    ValueError
        If an image is too small for one patch per cell, an image or a factor holds NaN, the shapes do not fit together,
        or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import patch_features
    >>> images = np.random.default_rng(0).random((3, 8, 8))
    >>> patch_features(images, np.zeros(4), np.eye(4), np.eye(4), patch_size=2).shape
    (3, 16)
    """
    layout = _Layout(patch_size, step, pool, activation, alpha)
    return _describe(
        read_images(images, image_shape, ragged=True, device=True), layout, mean, whitening, dictionary, n_jobs
    )


class _Layout:
    """The checked parameters, and what follows from them."""

    def __init__(self, patch_size, step, pool, activation, alpha):
        self.patch_size = pair(patch_size, "patch_size")
        self.step = positive_int(step, "step")
        several = isinstance(pool, (tuple, list)) and pool and all(isinstance(p, (tuple, list)) for p in pool)
        self.grids = [pair(grid, "pool") for grid in (pool if several else [pool])]
        self.activation = one_of(activation, "activation", _ACTIVATIONS)
        self.alpha = float(alpha)

    @property
    def signs(self):
        return 2 if self.activation == "soft_threshold" else 1

    @property
    def n_cells(self):
        return sum(down * across for down, across in self.grids)

    def positions(self, size):
        """Return the rows and columns of patches in an image of `size` (height, width)."""
        return tuple((k - patch) // self.step + 1 for k, patch in zip(size, self.patch_size, strict=True))

    def check(self, images):
        sizes = {image.shape[:2] for image in (images if isinstance(images, list) else images[:1])}
        cells = np.max(self.grids, axis=0)
        need = tuple(int(k) for k in self.patch_size + (cells - 1) * self.step)
        for height, width in sizes:
            if height < need[0] or width < need[1]:
                raise ValueError(
                    f"An image is {height} x {width} pixels; patches of {self.patch_size} pixels, {self.step} apart, "
                    f"one for every cell of the grid, need at least {need[0]} x {need[1]}. Choose smaller patches, "
                    "enlarge the images with Resize(size), or give image_shape where X holds flat rows."
                )

    def patch(self, image, k):
        """Return the k-th patch of an image, flat."""
        y, x = (i * self.step for i in divmod(k, self.positions(image.shape[:2])[1]))
        return image[y : y + self.patch_size[0], x : x + self.patch_size[1]].ravel()


def _sample_patches(images, layout, n_samples, rng):
    """Return `n_samples` random patches, or all there are, contrast-normalised, float32 (n, n_pixels)."""
    ends = np.cumsum([np.prod(layout.positions(image.shape[:2])) for image in images])
    chosen = sample_without_replacement(ends[-1], min(n_samples, ends[-1]), random_state=rng)
    owners = np.searchsorted(ends, chosen, side="right")
    within = chosen - np.r_[0, ends][owners]
    images = to_host(images)  # patches are learned from there
    patches = [_pixels(layout.patch(images[i], k)) for i, k in zip(owners, within, strict=True)]
    return _normalise_contrast(np.array([p / np.float32(255) if p.dtype == np.uint8 else p for p in patches]))


def _pixels(images):
    pixels = as_pixels(images)
    if pixels.dtype != np.uint8 and max(-pixels.min(), pixels.max()) > _LARGEST:
        raise ValueError(f"Pixels beyond {_LARGEST:g} cannot be images; expected uint8, or float in [0, 1].")
    return pixels


def _normalise_contrast(patches):
    patches = patches - patches.mean(1, keepdims=True)
    return patches / np.sqrt(patches.var(1, keepdims=True) + np.float32(_CONTRAST_EPSILON))


def _learn_whitening(patches, epsilon):
    """Return the patches' mean, and the symmetric matrix that makes their variances nearly 1 (ZCA)."""
    mean = patches.mean(0, dtype=np.float64)
    centered = patches - mean
    variances, axes = np.linalg.eigh(centered.T @ centered / len(patches))
    whitening = axes / np.sqrt(variances.clip(0) + epsilon) @ axes.T
    return mean.astype(np.float32), whitening.astype(np.float32)


def _describe(images, layout, mean, whitening, dictionary, n_jobs):
    layout.check(images)
    n_pixels = int(np.prod(layout.patch_size)) * images[0].shape[2]
    folded = _fold(*_checked_factors(mean, whitening, dictionary, n_pixels), layout.activation)

    def describe(part, out):
        arrays = [image[None] for image in part] if isinstance(part, list) else [part]
        for array, rows in zip(arrays, namespace(out).split(out, len(arrays)), strict=True):
            pixels = _pixels(array)
            run = _launch_kernels if on_device(pixels) else _native.kernels.patch_features
            run(
                pixels,
                layout.patch_size,
                layout.step,
                layout.grids,
                layout.activation,
                layout.alpha,
                _CONTRAST_EPSILON,
                *folded,
                rows,
            )

    out = empty_beside(images, (len(images), layout.n_cells * layout.signs * len(dictionary)))
    n_patches = np.prod(layout.positions(largest(images).shape[:2]))
    workspace = 4 * int(n_patches) * (3 * n_pixels + len(dictionary))
    return for_batches(describe, images, out, n_jobs=n_jobs, workspace=workspace)


def _checked_factors(mean, whitening, dictionary, n_pixels):
    factors = [np.asarray(to_host(a), np.float64) for a in (mean, whitening, dictionary)]
    shapes = [a.shape for a in factors]
    n_entries = shapes[2][:1]
    if shapes != [(n_pixels,), (n_pixels, n_pixels), (*n_entries, n_pixels)] or n_entries == (0,):
        raise ValueError(
            f"mean, whitening and dictionary have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}; for patches of "
            f"{n_pixels} numbers expected ({n_pixels},), ({n_pixels}, {n_pixels}) and (n_entries, {n_pixels})."
        )
    for name, a in zip(("mean", "whitening", "dictionary"), factors, strict=True):
        if not np.isfinite(a).all():
            raise ValueError(f"{name} holds NaN or infinity; expected numbers, such as those of a fitted PatchKMeans.")
    return factors


def _fold(mean, whitening, dictionary, activation):
    """Return what the kernel multiplies patches with, so that whitening them costs no product of its own.

    ``patch @ directions.T + offsets`` is the whitened patch's dot product with each entry, less half that entry's
    squared length where distances matter. The triangular `factor` keeps lengths: ``factor @ patch + factor_offsets``
    is as long as the whitened patch.
    """
    directions = dictionary @ whitening.T
    offsets = -directions @ mean
    if activation != "soft_threshold":
        offsets -= (dictionary**2).sum(1) / 2
    factor = np.linalg.qr(whitening.T, mode="r")
    return [a.astype(np.float32) for a in (directions, offsets, factor, -factor @ mean)]


# --- On a GPU ---------------------------------------------------------------------------------------------------------


def _launch_kernels(pixels, patch_size, step, grids, activation, alpha, epsilon, *folded_and_out):
    *folded, out = folded_and_out
    xp, (n, height, width, channels) = namespace(pixels), pixels.shape
    directions, offsets, factor, factor_offsets = (xp.asarray(a) for a in folded)
    down, across = ((size - patch) // step + 1 for size, patch in zip((height, width), patch_size, strict=True))
    n_patches, n_entries = n * down * across, len(directions)
    n_cells, first = sum(rows * cols for rows, cols in grids), 0
    sums = 4 * out.shape[1] // n_cells  # bytes
    names = {"ACTIVATION": _ACTIVATIONS.index(activation), "IN_SHARED": int(sums <= SHARED_MEMORY - 1024)}
    kernels = load_kernels("features/patch_kmeans.cu", Pixel=pixels.dtype, **names)

    patches, blocks = xp.empty((n_patches, directions.shape[1]), np.float32), blocks_for(n_patches * WARP)
    kernels.launch("patch_rows", blocks, pixels, n, height, width, channels, *patch_size, step, epsilon, patches)
    products = patches @ directions.T
    lengths = ((patches @ factor.T + factor_offsets) ** 2).sum(1) if activation == "triangle" else offsets  # not read
    room = {"threads": threads_for(n_entries), "shared": names["IN_SHARED"] * sums}
    for rows, cols in grids:
        arguments = down, across, n_entries, offsets, lengths, float(alpha), rows, cols, first, n_cells, out
        kernels.launch("patch_pool", n * rows * cols, products, *arguments, **room)
        first += rows * cols
