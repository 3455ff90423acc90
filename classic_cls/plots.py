"""Displays: what the descriptors see, as pictures.

As scikit-learn's displays, each is made by a class method ``from_...``, holds what it shows as attributes, and draws
it with ``plot(ax=None)``, which sets ``ax_`` and ``figure_``. Matplotlib is imported when something is drawn.
"""

import numpy as np

from ._images import as_pixels, positive_int, transform_images
from .features.bag_of_words import BagOfVisualWords, assign_words, images_per_batch
from .features.color_histogram import ColorHistogram
from .features.dense_sift import DenseSIFT
from .features.hog import HOG
from .features.resize import resize

_KEYPOINT_SIDE = 32  # a keypoint's own size is not told; small keypoints, which are most, look at about this


class HOGDisplay:
    """A picture beside its histograms of oriented gradients, drawn as stars.

    A cell is a star of one line per orientation. The line lies along the edge, that is, across the gradient that voted
    for it, and is the longer and brighter the larger the vote.

    Use :meth:`from_image` to make one.

    Parameters
    ----------
    image : ndarray of shape (height, width) or (height, width, 3)
        The picture.
    votes : ndarray of shape (cells_down, cells_across, orientations)
        One histogram per cell.
    pixels_per_cell : (int, int)
        Rows and columns of a cell.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : matplotlib LineCollection
        The lines of the stars.

    See Also
    --------
    HOG : The descriptor.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from classic_cls import HOGDisplay, load_faces
    >>> display = HOGDisplay.from_image(load_faces().images[0], pixels_per_cell=5, cells_per_block=2).plot()
    >>> display.votes.shape
    (5, 5, 9)
    """

    def __init__(self, image, votes, pixels_per_cell):
        self.image = image
        self.votes = votes
        self.pixels_per_cell = pixels_per_cell

    @classmethod
    def from_image(cls, image, **hog_parameters):
        """Describe a picture.

        Parameters
        ----------
        image : array of shape (height, width) or (height, width, 3)
            uint8, or float in [0, 1].
        **hog_parameters
            Parameters of :class:`HOG`. A cell is shown as the mean of its histograms in the blocks that hold it.

        Returns
        -------
        display : HOGDisplay

        Raises
        ------
        ValueError
            If `image` is not one image, is too small for one block, or holds NaN or floats outside [0, 1].
        """
        pixels = _one_image(image)
        hog = HOG(**hog_parameters)
        features = hog.fit_transform(pixels[None])[0]
        geometry = hog._geometry()
        blocks = features.reshape(*geometry.blocks(pixels.shape[:2]), *geometry.block, geometry.orientations)
        return cls(pixels, _mean_over_blocks(blocks), geometry.cell)

    def plot(self, ax=None):
        """Draw the picture at the left and the stars at the right.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : HOGDisplay
        """
        from matplotlib.collections import LineCollection

        height, width = self.image.shape[:2]
        self.ax_ = _axes(ax, (8, 0.4 + 3.9 * height / width))
        self.figure_ = self.ax_.figure
        shift = 1.04 * width
        _show(self.ax_, self.image, extent=(0, width, height, 0))
        _show(self.ax_, np.zeros((1, 1), np.uint8), extent=(shift, shift + width, height, 0))
        segments, strength = self._stars()
        segments[..., 0] += shift
        thickness = min(1.5, 40 / max(self.votes.shape[:2]))
        self.lines_ = LineCollection(segments, colors="white", alpha=strength, linewidths=thickness)
        self.ax_.add_collection(self.lines_)
        self.ax_.set(xlim=(0, shift + width), ylim=(height, 0))
        down, across, orientations = self.votes.shape
        stars = f"HOG: {down} x {across} cells, {orientations} orientations"
        self.ax_.set_xticks([width / 2, shift + width / 2], [f"picture, {height} x {width} pixels", stars])
        return self

    def _stars(self):
        """Return the lines ((x, y), (x, y)) of votes above zero, and each vote relative to the largest."""
        row, col, orientation = np.nonzero(self.votes)
        strength = self.votes[row, col, orientation] / max(self.votes.max(), np.finfo(np.float32).tiny)
        angle = np.pi * (orientation + 0.5) / self.votes.shape[2]
        along = np.stack([-np.sin(angle), np.cos(angle)], -1)  # the gradient is (cos, sin), with y downwards
        half = 0.5 * min(self.pixels_per_cell) * strength[:, None] * along
        center = (np.stack([col, row], -1) + 0.5) * self.pixels_per_cell[::-1]
        return np.stack([center - half, center + half], 1), strength


class ColorHistogramDisplay:
    """The most frequent colours of a picture: the largest bins of its joint histogram, in their own colours.

    Use :meth:`from_image` to make one.

    Parameters
    ----------
    shares : ndarray of shape (n_bins,)
        Share of the pixels in each bin.
    colors : ndarray of shape (n_bins, 3)
        RGB in [0, 1] of each bin's centre.
    names : ndarray of shape (n_bins,)
        What :meth:`ColorHistogram.get_feature_names_out` calls the bins.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    bars_ : matplotlib BarContainer
        The bars, the largest first.

    See Also
    --------
    ColorHistogram : The descriptor.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from classic_cls import ColorHistogramDisplay
    >>> red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    >>> display = ColorHistogramDisplay.from_image(red, color_space="hsv", bins=(6, 2, 2)).plot()
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['hsv_h0_s1_v1']
    """

    def __init__(self, shares, colors, names):
        self.shares = shares
        self.colors = colors
        self.names = names

    @classmethod
    def from_image(cls, image, bins=8, color_space="rgb"):
        """Count a picture's colours.

        Parameters
        ----------
        image : array of shape (height, width) or (height, width, 3)
            uint8, or float in [0, 1].
        bins, color_space
            As in :class:`ColorHistogram`.

        Returns
        -------
        display : ColorHistogramDisplay

        Raises
        ------
        ValueError
            If `image` is not one image, or holds NaN or floats outside [0, 1], or a parameter is out of range.
        """
        histogram = ColorHistogram(bins, color_space, norm="l1")
        shares = histogram.fit_transform(_one_image(image)[None])[0]
        return cls(shares, _bin_colors(histogram._layout().bins, color_space), histogram.get_feature_names_out())

    def plot(self, ax=None, *, n_colors=12):
        """Draw the most frequent colours as bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        n_colors : int, default=12
            Number of bars, at most; empty bins get none.

        Returns
        -------
        self : ColorHistogramDisplay
        """
        order = np.argsort(-self.shares, kind="stable")[: positive_int(n_colors, "n_colors")]
        order = order[self.shares[order] > 0]
        self.ax_ = _axes(ax, (5.5, 1.1 + 0.27 * len(order)))
        self.figure_ = self.ax_.figure
        percent = 100 * self.shares[order]
        self.bars_ = self.ax_.barh(self.names[order], percent, color=self.colors[order], edgecolor="0.4", linewidth=0.6)
        self.ax_.invert_yaxis()
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.ax_.set(xlabel="share of the pixels (%)")
        self.ax_.set_title(f"{len(order)} of {len(self.shares)} bins hold {percent.sum():.0f} % of the pixels")
        return self


class VisualWordsDisplay:
    """Words of a visual vocabulary, each a row of the image patches nearest to it.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    patches : ndarray of shape (n_words, n_patches, side, side, channels)
        In [0, 1], the nearest patch first; white where no image has another.
    words : ndarray of shape (n_words,)
        Which words of the vocabulary these are.
    shares : ndarray of shape (n_words,)
        Share of all the images' descriptors that each word takes.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.

    See Also
    --------
    BagOfVisualWords : Learns the vocabulary.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from classic_cls import BagOfVisualWords, VisualWordsDisplay, load_textures
    >>> images = load_textures().images[::16]
    >>> words = BagOfVisualWords(n_words=20, random_state=0).fit(images)
    >>> display = VisualWordsDisplay.from_estimator(words, images, n_words=3, n_patches=5).plot()
    >>> display.patches.shape
    (3, 5, 16, 16, 1)
    """

    def __init__(self, patches, words, shares):
        self.patches = patches
        self.words = words
        self.shares = shares

    @classmethod
    def from_estimator(cls, bag_of_words, images, *, n_words=8, n_patches=10, words=None):
        """Find the patches nearest to words of a fitted vocabulary.

        Parameters
        ----------
        bag_of_words : BagOfVisualWords
            Fitted.
        images : array or list of images
            As in :meth:`BagOfVisualWords.transform`. Each gives at most one patch to a row: its nearest.
        n_words : int, default=8
            Number of words, the most frequent in `images`.
        n_patches : int, default=10
            Number of patches per word.
        words : sequence of int, default=None
            Show these words, in this order, instead of the most frequent.

        Returns
        -------
        display : VisualWordsDisplay
            A patch is what its descriptor looked at, 4 x 4 bins of :class:`DenseSIFT`. Patches of several sizes are
            scaled to the largest; one of :class:`KeypointSIFT` is drawn upright, 32 pixels large.

        Raises
        ------
        TypeError
            If `bag_of_words` is not a BagOfVisualWords.
        NotFittedError
            If it is not fitted.
        ValueError
            If the images are not such as it was fitted on, or a word is not in the vocabulary.
        """
        if not isinstance(bag_of_words, BagOfVisualWords):
            raise TypeError(
                f"bag_of_words is a {type(bag_of_words).__name__}; expected a fitted BagOfVisualWords. Of a "
                "pipeline take the step, such as pipeline['words'], and give it what the steps before it return."
            )
        images = transform_images(bag_of_words, images, ragged=True)
        distances, places, counts = _nearest_descriptors(bag_of_words, images)
        chosen = _chosen_words(words, positive_int(n_words, "n_words"), counts)
        nearest = np.argsort(distances[:, chosen], axis=0, kind="stable")[: positive_int(n_patches, "n_patches")].T
        rows = [[_cut(images[i], places[i, word]) for i in row] for word, row in zip(chosen, nearest, strict=True)]
        return cls(_same_size(rows), chosen, counts[chosen] / max(1, counts.sum()))

    def plot(self, ax=None):
        """Draw one row per word.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : VisualWordsDisplay
        """
        n_words, n_patches, side = self.patches.shape[:3]
        self.ax_ = _axes(ax, (1.5 + 0.55 * n_patches, 0.7 + 0.55 * n_words))
        self.figure_ = self.ax_.figure
        gap = max(1, side // 10)
        tiles = np.pad(self.patches, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=1)
        canvas = tiles.swapaxes(1, 2).reshape(n_words * (side + gap), n_patches * (side + gap), -1)
        _show(self.ax_, canvas[:-gap, :-gap])
        labels = [f"word {word} ({share:.1%})" for word, share in zip(self.words, self.shares, strict=True)]
        self.ax_.set_yticks(np.arange(n_words) * (side + gap) + side / 2, labels)
        self.ax_.set_title("Patches nearest to each visual word")
        return self


def _axes(ax, size):
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def _show(ax, image, **kwargs):
    image = image[..., 0] if image.shape[-1:] == (1,) and image.ndim == 3 else image
    white = 255 if image.dtype == np.uint8 else 1
    ax.imshow(image, cmap="gray", vmin=0, vmax=white, interpolation="nearest", **kwargs)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _one_image(image):
    image = np.asarray(image)
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise ValueError(
            f"The image has shape {image.shape}; expected one image, (height, width) gray or (height, width, 3) RGB. "
            "Of a batch take one: images[0]."
        )
    return as_pixels(image.reshape(*image.shape[:2], -1), unit_range=True)


def _mean_over_blocks(blocks):
    """Return the mean histogram of each cell over the blocks (down, across, block rows, block cols, bins) it is in."""
    down, across, rows, cols, n = blocks.shape
    total = np.zeros((down + rows - 1, across + cols - 1, n))
    count = np.zeros_like(total)
    for row, col in np.ndindex(rows, cols):
        cells = np.s_[row : row + down, col : col + across]
        total[cells] += blocks[:, :, row, col]
        count[cells] += 1
    return total / count


def _bin_colors(bins, color_space):
    """Return the RGB colour, in [0, 1], of each bin's centre."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in bins), indexing="ij"), -1).reshape(-1, len(bins))
    centers = (index + 0.5) / bins
    to_rgb = {
        "rgb": lambda c: c,
        "hsv": lambda c: _cv_rgb(c * [360, 1, 1], "COLOR_HSV2RGB"),
        "lab": lambda c: _cv_rgb(c * [100, 255, 255] - [0, 128, 128], "COLOR_LAB2RGB"),
        "opponent": _rgb_of_opponent,
        "gray": lambda c: np.repeat(c, 3, axis=1),
    }
    return np.clip(to_rgb[color_space](centers), 0, 1)


def _cv_rgb(colors, conversion):
    import cv2

    return cv2.cvtColor(colors.astype(np.float32)[None], getattr(cv2, conversion))[0]


def _rgb_of_opponent(levels):
    red_green, yellow_blue, total = (levels * [2, 4, 3] - [1, 2, 0]).T
    blue = (total - yellow_blue) / 3
    return np.stack([total - blue + red_green, total - blue - red_green, 2 * blue], -1) / 2


def _nearest_descriptors(bag_of_words, images):
    """Return, by image and word, the distance and the place (y, x, side) of the descriptor nearest to the word.

    Also how many descriptors each word takes. Where an image has no descriptor the distance is infinite.
    """
    from sklearn.metrics.pairwise import euclidean_distances

    vocabulary, descriptor = bag_of_words.vocabulary_, bag_of_words.descriptor_
    distances = np.full((len(images), len(vocabulary)), np.inf)
    places = np.full((*distances.shape, 3), np.nan)
    counts = np.zeros(len(vocabulary), int)
    for i, (found, positions) in enumerate(_described(descriptor, images)):
        if len(found):
            apart = euclidean_distances(found, vocabulary)
            distances[i] = apart.min(axis=0)
            places[i] = np.c_[positions, _sides(descriptor, images[i].shape, len(found))][apart.argmin(axis=0)]
            counts += np.bincount(assign_words(found, vocabulary), minlength=len(counts))
    return distances, places, counts


def _described(descriptor, images):
    size = images_per_batch(images)
    for start in range(0, len(images), size):
        yield from descriptor.describe(images[start : start + size])


def _sides(descriptor, image_shape, n):
    """Return how many pixels across each of an image's `n` descriptors looks at."""
    if not isinstance(descriptor, DenseSIFT):
        return np.full(n, _KEYPOINT_SIDE)
    geometry = descriptor._geometry()
    return np.repeat(4 * np.array(geometry.bin_sizes), np.diff(geometry.edges(image_shape)))


def _chosen_words(words, n_words, counts):
    if words is None:
        return np.argsort(-counts, kind="stable")[:n_words]
    chosen = np.asarray(words)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not np.isin(chosen, np.arange(len(counts))).all():
        raise ValueError(
            f"words={words!r}; expected a list of ints from 0 to {len(counts) - 1}, words of the vocabulary."
        )
    return chosen


def _cut(image, place):
    """Return the patch at `place` (y, x, side), its border repeated where it reaches beyond the image."""
    if np.isnan(place).any():
        return np.ones((1, 1, image.shape[2]), np.float32)
    y, x, side = place
    rows, cols = (np.arange(side) + np.floor(center - side / 2 + 1) for center in (y, x))
    height, width = image.shape[:2]
    rows, cols = rows.clip(0, height - 1).astype(int), cols.clip(0, width - 1).astype(int)
    return as_pixels(image[np.ix_(rows, cols)])


def _same_size(rows):
    """Return rows of patches as one array (n_rows, n_patches, side, side, channels), in [0, 1]."""
    patches = [patch for row in rows for patch in row]
    side = max(len(patch) for patch in patches)
    sized = [resize([patch], side)[0] for patch in patches]
    return np.reshape(sized, (len(rows), -1, side, side, patches[0].shape[2]))
