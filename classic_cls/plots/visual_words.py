"""Shows words of a visual vocabulary by the patches nearest to them."""

import numpy as np

from .._images import as_pixels, positive_int, transform_images
from ..features._local import images_per_batch
from ..features.bag_of_words import BagOfVisualWords, assign_words
from ..features.dense_sift import DenseSIFT
from ..features.resize import resize
from ._common import axes, show

_KEYPOINT_SIDE = 32  # a keypoint's own size is not told; small keypoints, which are most, look at about this


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
        self.ax_ = axes(ax, (1.5 + 0.55 * n_patches, 0.7 + 0.55 * n_words))
        self.figure_ = self.ax_.figure
        gap = max(1, side // 10)
        tiles = np.pad(self.patches, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=1)
        canvas = tiles.swapaxes(1, 2).reshape(n_words * (side + gap), n_patches * (side + gap), -1)
        show(self.ax_, canvas[:-gap, :-gap])
        labels = [f"word {word} ({share:.1%})" for word, share in zip(self.words, self.shares, strict=True)]
        self.ax_.set_yticks(np.arange(n_words) * (side + gap) + side / 2, labels)
        self.ax_.set_title("Patches nearest to each visual word")
        return self


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
