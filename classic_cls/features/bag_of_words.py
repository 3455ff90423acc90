"""Bag of visual words: local descriptors, counted by their nearest word of a learned vocabulary."""

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._images import fit_images, for_batches, one_of, positive_int, transform_images
from .._kmeans import kmeans, nearest
from .dense_sift import DenseSIFT

_NORMS = ("l1", "l2", "hellinger", None)
_PER_IMAGE = 32  # descriptors drawn from one image, at least: fewer would mostly describe pixels in vain


class BagOfVisualWords(TransformerMixin, BaseEstimator):
    """Histograms of visual words, over the whole image and, if asked for, over the cells of a spatial pyramid.

    ``fit`` draws local descriptors from the training images and clusters them with k-means: the centres are the words.
    ``transform`` assigns every descriptor of an image to its nearest word and counts. Descriptors are computed a few
    images at a time and never held for the whole set.

    Parameters
    ----------
    descriptor : DenseSIFT or KeypointSIFT, default=None
        Gives the local descriptors of an image; None means ``DenseSIFT()``. It is cloned, not changed.
    n_words : int, default=256
        Size of the vocabulary.
    pyramid_levels : int, default=1
        Level l counts words in 2^l x 2^l cells; 1 is the image as a whole, 3 adds 2 x 2 and 4 x 4 cells.
    norm : {"l1", "l2", "hellinger", None}, default="hellinger"
        How an image's counts are scaled: to sum 1, to length 1, to sum 1 and square root taken, or not at all.
    samples_per_word : int, default=64
        Descriptors drawn for learning, per word.
    random_state : int, RandomState or None, default=None
        Draws the sample and starts k-means.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.
    n_jobs : int, default=None
        Number of threads.

    Attributes
    ----------
    vocabulary_ : ndarray of shape (n_words, n_dims), float32
        The words.
    descriptor_ : DenseSIFT or KeypointSIFT
        The descriptor in use.
    image_shape_ : tuple
        ``(height, width, channels)`` of the images seen in ``fit``; height and width None where they differed.

    References
    ----------
    G. Csurka et al., "Visual categorization with bags of keypoints", ECCV workshop 2004.
    S. Lazebnik, C. Schmid and J. Ponce, "Beyond bags of features: spatial pyramid matching for recognizing natural
    scene categories", CVPR 2006.
    R. Arandjelovic and A. Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012
    (the Hellinger norm).

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import BagOfVisualWords
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 48, 48), dtype=np.uint8)
    >>> BagOfVisualWords(n_words=10, pyramid_levels=2, random_state=0).fit_transform(images).shape
    (20, 50)
    """

    def __init__(
        self,
        descriptor=None,
        n_words=256,
        pyramid_levels=1,
        norm="hellinger",
        *,
        samples_per_word=64,
        random_state=None,
        image_shape=None,
        n_jobs=None,
    ):
        self.descriptor = descriptor
        self.n_words = n_words
        self.pyramid_levels = pyramid_levels
        self.norm = norm
        self.samples_per_word = samples_per_word
        self.random_state = random_state
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Learn the vocabulary.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images, uint8 or float in [0, 1]; in a list their sizes may differ.
        y : ignored

        Returns
        -------
        self : BagOfVisualWords

        Raises
        ------
        ValueError
            If the images give fewer descriptors than there are words, or are too small for one descriptor.
        """
        n_words = positive_int(self.n_words, "n_words")
        positive_int(self.pyramid_levels, "pyramid_levels")
        one_of(self.norm, "norm", _NORMS)
        images = fit_images(self, X, ragged=True)
        self.descriptor_ = DenseSIFT() if self.descriptor is None else clone(self.descriptor)
        rng = check_random_state(self.random_state)
        n_samples = n_words * positive_int(self.samples_per_word, "samples_per_word")
        sample = sample_descriptors(self.descriptor_, images, n_samples, rng, self.n_jobs)
        self.vocabulary_ = learn_vocabulary(sample, n_words, rng, self.n_jobs)
        return self

    def transform(self, X):
        """Count the words in images.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images with as many channels as those seen in ``fit``.

        Returns
        -------
        features : ndarray of shape (n, n_features), float32
            For each level of the pyramid and each of its cells, row by row: one number a word. Zeros for an image
            without descriptors.
        """
        images = transform_images(self, X, ragged=True)

        def count(part, out):
            out[...] = _counts(self.descriptor_, part, self.vocabulary_, self.pyramid_levels)
            _normalise(out, self.norm)

        out = np.empty((len(images), len(self.vocabulary_) * _n_cells(self.pyramid_levels)), np.float32)
        return for_batches(count, images, out, n_jobs=self.n_jobs, batch_size=images_per_batch(images))

    def get_feature_names_out(self, input_features=None):
        """Return names such as ``word_12_level1_cell2``."""
        check_is_fitted(self)
        cells = [(level, cell) for level in range(self.pyramid_levels) for cell in range(4**level)]
        names = [f"word_{k}_level{level}_cell{cell}" for level, cell in cells for k in range(len(self.vocabulary_))]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def assign_words(descriptors, vocabulary):
    """Return the index of the nearest word, by Euclidean distance, of each descriptor.

    Parameters
    ----------
    descriptors : ndarray of shape (n, n_dims), float32
    vocabulary : ndarray of shape (n_words, n_dims), float32

    Returns
    -------
    words : ndarray of shape (n,), int32
        Of words equally near, the first.

    Raises
    ------
    ValueError
        If the two do not have the same number of columns, or there is no word.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import assign_words
    >>> assign_words(np.array([[0.9, 0.1]], np.float32), np.eye(2, dtype=np.float32))
    array([0], dtype=int32)
    """
    descriptors, vocabulary = (np.ascontiguousarray(a, np.float32) for a in (descriptors, vocabulary))
    if descriptors.ndim != 2 or vocabulary.ndim != 2 or descriptors.shape[1:] != vocabulary.shape[1:]:
        raise ValueError(
            f"descriptors have shape {descriptors.shape} and the vocabulary {vocabulary.shape}; "
            "expected (n, n_dims) and (n_words, n_dims)."
        )
    if len(vocabulary) == 0:
        raise ValueError("The vocabulary has no words.")
    return nearest(descriptors, vocabulary)


def images_per_batch(images, pixels=1 << 17):
    """Return how many images to describe at a time, so that their descriptors stay in the cache."""
    return max(1, pixels // max(image.shape[0] * image.shape[1] for image in images[:64]))


def sample_descriptors(descriptor, images, n_samples, rng, n_jobs=None):
    """Return about `n_samples` descriptors, drawn from random images, the same whatever `n_jobs`.

    Goes through the images in random order until there are enough: a detector may find nothing in some.
    """
    order = rng.permutation(len(images))
    seeds = rng.randint(np.iinfo(np.int32).max, size=len(images))
    step = min(len(images), max(1, n_samples // _PER_IMAGE))
    quota, found, start = -(-n_samples // step), [], 0
    while start < len(images) and sum(map(len, found)) < n_samples:
        chosen = np.sort(order[start : start + step])
        found += _draw_each(descriptor, images, chosen, seeds[chosen], quota, n_jobs)
        start, step = start + step, 2 * step
    return np.concatenate(found)


def _draw_each(descriptor, images, chosen, seeds, quota, n_jobs):
    def draw(indices, seeds):
        part = [images[i] for i in indices] if isinstance(images, list) else images[indices]
        return [_draw(found, quota, seed) for (found, _), seed in zip(descriptor.describe(part), seeds, strict=True)]

    size = images_per_batch(images)
    parts = Parallel(n_jobs=n_jobs, require="sharedmem")(
        delayed(draw)(chosen[start : start + size], seeds[start : start + size])
        for start in range(0, len(chosen), size)
    )
    return [found for part in parts for found in part]


def _draw(descriptors, quota, seed):
    if len(descriptors) <= quota:
        return descriptors.copy()
    return descriptors[np.random.default_rng(seed).choice(len(descriptors), quota, replace=False)]


def learn_vocabulary(descriptors, n_words, rng, n_jobs=None):
    """Return the k-means centres of `descriptors`, float32 of shape (n_words, n_dims)."""
    if len(descriptors) < n_words:
        raise ValueError(
            f"n_words={n_words}, but the images gave only {len(descriptors)} descriptors to learn from. "
            "Ask for fewer words, sample more densely, or give more or larger images."
        )
    return kmeans(descriptors, n_words, rng, n_jobs)


def _n_cells(levels):
    return sum(4**level for level in range(levels))


def _counts(descriptor, images, vocabulary, levels):
    """Return how often each word occurs in each cell, (n_images, n_cells * n_words)."""
    described = list(descriptor.describe(images))
    descriptors = np.concatenate([found for found, _ in described])
    words = assign_words(descriptors, vocabulary)
    owner = np.repeat(np.arange(len(described)), [len(found) for found, _ in described])
    sizes = np.array([image.shape[:2] for image in images])[owner]
    relative = (np.concatenate([positions for _, positions in described]) + 0.5) / sizes
    n_cells, n_words, first = _n_cells(levels), len(vocabulary), 0
    counts = np.zeros(len(described) * n_cells * n_words)
    for level in range(levels):
        row, col = np.clip((relative * 2**level).astype(np.intp), 0, 2**level - 1).T
        cell = owner * n_cells + first + row * 2**level + col
        counts += np.bincount(cell * n_words + words, minlength=len(counts))
        first += 4**level
    return counts.reshape(len(described), -1)


def _normalise(counts, norm):
    """Scale each row in place; rows of zeros stay as they are."""
    if norm is None:
        return
    total = np.linalg.norm(counts, ord=2 if norm == "l2" else 1, axis=1, keepdims=True)
    np.divide(counts, total, out=counts, where=total > 0)
    if norm == "hellinger":
        np.sqrt(counts, out=counts)
