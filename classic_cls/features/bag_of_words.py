"""Bag of visual words: local descriptors, counted by their nearest word of a learned vocabulary."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .. import _native
from .._arrays import count, device_of, empty_beside, namespace, on_device, to_host
from .._images import fit_images, for_batches, one_of, positive_int, positive_number, transform_images
from .._kmeans import kmeans, nearest
from . import _array_encoders
from ._local import (
    all_cells,
    as_descriptor,
    as_words,
    bytes_per_image,
    cell_names,
    check_enough,
    describe,
    finest_cells,
    images_per_batch,
    n_cells,
    sample_descriptors,
    scale_to_unit,
    signed_power,
)

_NORMS = ("l1", "l2", "hellinger", None)
_ASSIGNMENTS = ("hard", "soft", "llc")
_POOLINGS = ("auto", "sum", "max")


class BagOfVisualWords(TransformerMixin, BaseEstimator):
    """Histograms of visual words, over the whole image and, if asked for, over the cells of a spatial pyramid.

    ``fit`` draws local descriptors from the training images and clusters them with k-means: the centres are the words.
    ``transform`` assigns every descriptor of an image to its nearest word and counts, or shares it between the nearest
    few. Descriptors are computed a few images at a time and never held for the whole set. Images on a GPU are encoded
    there where the descriptor takes them, as ``DenseSIFT`` does.

    Parameters
    ----------
    descriptor : DenseSIFT, KeypointSIFT or the like, default=None
        Gives the local descriptors of an image; None means ``DenseSIFT()``. It is cloned, not changed.
    n_words : int, default=256
        Size of the vocabulary.
    pyramid_levels : int, default=1
        Level l counts words in 2^l x 2^l cells; 1 is the image as a whole, 3 adds 2 x 2 and 4 x 4 cells.
    norm : {"l1", "l2", "hellinger", None}, default="hellinger"
        How an image's counts are scaled: to sum 1, to length 1, to sum 1 and square root taken, or not at all. Where
        weights are negative, as "llc" may give them, their magnitudes sum to 1 and the roots keep the signs.
    assignment : {"hard", "soft", "llc"}, default="hard"
        The words of a descriptor. "hard": the nearest. "soft": the `n_neighbors` nearest, with weights that fall off
        with the distance. "llc": the same words, with weights, possibly negative, that rebuild the descriptor from
        them (locality-constrained linear coding).
    pooling : {"auto", "sum", "max"}, default="auto"
        What becomes of a word's weights in a cell: their sum, or the largest, which is at least 0. "auto" is "max" for
        "llc", as in its paper, and "sum" otherwise.
    n_neighbors : int, default=5
        Words that share a descriptor; not used by "hard".
    beta : float, default=10.0
        A weight of "soft" is proportional to ``exp(-beta * distance**2)``: 10 suits descriptors of length 1.
    regularization : float, default=1e-4
        Of "llc", as a share of the squared distances to the words; larger values even out the weights.
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
    descriptor_ : DenseSIFT, KeypointSIFT or the like
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
    J. C. van Gemert et al., "Visual word ambiguity", PAMI 2010, and L. Liu, L. Wang and X. Liu, "In defense of
    soft-assignment coding", ICCV 2011 ("soft", among the nearest words).
    J. Wang et al., "Locality-constrained linear coding for image classification", CVPR 2010 ("llc").

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
        assignment="hard",
        pooling="auto",
        n_neighbors=5,
        beta=10.0,
        regularization=1e-4,
        samples_per_word=64,
        random_state=None,
        image_shape=None,
        n_jobs=None,
    ):
        self.descriptor = descriptor
        self.n_words = n_words
        self.pyramid_levels = pyramid_levels
        self.norm = norm
        self.assignment = assignment
        self.pooling = pooling
        self.n_neighbors = n_neighbors
        self.beta = beta
        self.regularization = regularization
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
            If the images give fewer descriptors than there are words, or are too small for one descriptor, or a
            parameter is out of range.
        TypeError
            If the images lie on a GPU, and the descriptor runs on the CPU alone.
        """
        n_words = positive_int(self.n_words, "n_words")
        positive_int(self.pyramid_levels, "pyramid_levels")
        one_of(self.norm, "norm", _NORMS)
        one_of(self.pooling, "pooling", _POOLINGS)
        if one_of(self.assignment, "assignment", _ASSIGNMENTS) != "hard":
            _neighbors(self.n_neighbors, n_words)
        positive_number(self.beta, "beta")
        positive_number(self.regularization, "regularization")
        images = fit_images(self, X, ragged=True, device=True)
        self.descriptor_ = as_descriptor(self.descriptor)
        rng = check_random_state(self.random_state)
        n_samples = n_words * positive_int(self.samples_per_word, "samples_per_word")
        with device_of(images):
            sample, _ = sample_descriptors(self.descriptor_, images, n_samples, rng, self.n_jobs)
            self.vocabulary_ = to_host(learn_vocabulary(sample, n_words, rng, self.n_jobs))
        return self

    def transform(self, X):
        """Count the words in images.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images with as many channels as those seen in ``fit``.

        Returns
        -------
        features : array of shape (n, n_features), float32
            In the images' kind of array. For each level of the pyramid and each of its cells, row by row: one number a
            word. Zeros for an image without descriptors.
        """
        images = transform_images(self, X, ragged=True, device=True)
        with device_of(images):
            vocabulary = namespace(*images[:1]).asarray(self.vocabulary_)

        def encode(part, out):
            out[...] = self._counts(part, vocabulary)
            _normalise(out, self.norm)

        out = empty_beside(images, (len(images), len(self.vocabulary_) * n_cells(self.pyramid_levels)))
        size, workspace = images_per_batch(images, out.shape[1]), self._workspace(images)
        return for_batches(encode, images, out, n_jobs=self.n_jobs, batch_size=size, workspace=workspace)

    def _workspace(self, images):
        """Return about how many bytes of a GPU's memory an image needs: descriptors and counts, and copies of them."""
        shares = 0 if self.assignment == "hard" else 16 * self.n_neighbors
        return bytes_per_image(self.descriptor_, images, shares, 24 * len(self.vocabulary_), self.pyramid_levels)

    def _counts(self, images, vocabulary):
        """Return what each cell has of each word, (n_images, n_cells * n_words)."""
        described = describe(self.descriptor_, images)
        words, weights = self._assign(described.descriptors, vocabulary)
        cells = finest_cells(described, self.pyramid_levels)
        shape, pooling = (len(images) * 4 ** (self.pyramid_levels - 1), len(self.vocabulary_)), self._pooling()
        pooled, merge = _pool(words, weights, cells, *shape, pooling), np.add if pooling == "sum" else np.maximum
        return all_cells(pooled, self.pyramid_levels, merge).reshape(len(images), -1)

    def _assign(self, descriptors, vocabulary):
        """Return the words of descriptors, and their weights, or None where each is 1."""
        if self.assignment == "hard":
            return nearest(descriptors, vocabulary), None
        if self.assignment == "soft":
            return _soft(descriptors, vocabulary, self.n_neighbors, self.beta)
        return _llc(descriptors, vocabulary, self.n_neighbors, self.regularization)

    def _pooling(self):
        if self.pooling == "auto":
            return "max" if self.assignment == "llc" else "sum"
        return self.pooling

    def get_feature_names_out(self, input_features=None):
        """Return names such as ``word_12_level1_cell2``."""
        check_is_fitted(self)
        n_words = len(self.vocabulary_)
        names = [f"word_{k}_{cell}" for cell in cell_names(self.pyramid_levels) for k in range(n_words)]
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
    descriptors : array of shape (n, n_dims), float32
    vocabulary : array of shape (n_words, n_dims), float32
        Both on the host, or both on a GPU.

    Returns
    -------
    words : array of shape (n,), int32
        In their kind of array. Of words equally near, the first.

    Raises
    ------
    ValueError
        If the two do not have the same number of columns, there is no word, or a number is NaN or beyond 1e6.
    TypeError
        If only one of the two lies on a GPU.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import assign_words
    >>> assign_words(np.array([[0.9, 0.1]], np.float32), np.eye(2, dtype=np.float32))
    array([0], dtype=int32)
    """
    return nearest(*as_words(descriptors, vocabulary)).astype(np.int32, copy=False)


def soft_assign_words(descriptors, vocabulary, n_neighbors=5, beta=10.0):
    """Share each descriptor between its nearest words, the more the nearer.

    Parameters
    ----------
    descriptors : array of shape (n, n_dims)
    vocabulary : array of shape (n_words, n_dims)
        Both on the host, or both on a GPU.
    n_neighbors, beta
        As in :class:`BagOfVisualWords`.

    Returns
    -------
    words : array of shape (n, n_neighbors), int32
        In their kind of array. Of each descriptor the nearest words, the nearest first.
    weights : array of shape (n, n_neighbors), float32
        Proportional to ``exp(-beta * distance**2)``, of sum 1.

    Raises
    ------
    ValueError
        If the two do not have the same number of columns, there are fewer words than neighbors, a number is NaN or
        beyond 1e6, or a parameter is out of range.
    TypeError
        If only one of the two lies on a GPU.

    Examples
    --------
    >>> from classic_cls import soft_assign_words
    >>> words, weights = soft_assign_words([[0.0, 0.5]], [[5.0, 5.0], [0.0, 0.0], [0.0, 1.0]], n_neighbors=2)
    >>> words, weights
    (array([[1, 2]], dtype=int32), array([[0.5, 0.5]], dtype=float32))
    """
    descriptors, vocabulary = as_words(descriptors, vocabulary)
    return _soft(descriptors, vocabulary, _neighbors(n_neighbors, len(vocabulary)), positive_number(beta, "beta"))


def llc(descriptors, vocabulary, n_neighbors=5, regularization=1e-4):
    """Rebuild each descriptor from its nearest words (locality-constrained linear coding, the fast version).

    Parameters
    ----------
    descriptors : array of shape (n, n_dims)
    vocabulary : array of shape (n_words, n_dims)
        Both on the host, or both on a GPU.
    n_neighbors, regularization
        As in :class:`BagOfVisualWords`.

    Returns
    -------
    words : array of shape (n, n_neighbors), int32
        In their kind of array. Of each descriptor the nearest words, the nearest first.
    weights : array of shape (n, n_neighbors), float32
        Of sum 1, such that the words so weighted come nearest to the descriptor; some may be negative.

    Raises
    ------
    ValueError, TypeError
        As in :func:`soft_assign_words`.

    Examples
    --------
    >>> from classic_cls import llc
    >>> words, weights = llc([[0.0, 0.25]], [[0.0, 0.0], [0.0, 1.0]], n_neighbors=2)
    >>> words, weights.round(3)
    (array([[0, 1]], dtype=int32), array([[0.75, 0.25]], dtype=float32))
    """
    descriptors, vocabulary = as_words(descriptors, vocabulary)
    regularization = positive_number(regularization, "regularization")
    return _llc(descriptors, vocabulary, _neighbors(n_neighbors, len(vocabulary)), regularization)


def learn_vocabulary(descriptors, n_words, rng, n_jobs=None):
    """Return the k-means centres of `descriptors`, float32 of shape (n_words, n_dims)."""
    check_enough(len(descriptors), n_words, "n_words")
    return kmeans(descriptors, n_words, rng, n_jobs)


def _soft(descriptors, vocabulary, n_neighbors, beta):
    return _weighted("soft_weights", descriptors, vocabulary, n_neighbors, beta)


def _llc(descriptors, vocabulary, n_neighbors, regularization):
    return _weighted("llc_weights", descriptors, vocabulary, n_neighbors, regularization)


def _weighted(method, descriptors, vocabulary, n_neighbors, parameter):
    """Return the nearest words of each descriptor and the weights that a method, "soft_weights" or so, gives them."""
    if on_device(descriptors):
        with device_of([descriptors]):
            words = _array_encoders.nearest_words(descriptors, vocabulary, n_neighbors)
            return words, getattr(_array_encoders, method)(descriptors, vocabulary, words, parameter)
    shape = len(descriptors), n_neighbors
    words, weights = np.empty(shape, np.int32), np.empty(shape, np.float32)
    _native.kernels.nearest_words(descriptors, vocabulary, words)
    getattr(_native.kernels, method)(descriptors, vocabulary, words, parameter, weights)
    return words, weights


def _pool(words, weights, cells, n_cells, n_words, pooling):
    """Return what `pooling` makes of each word's weights in each cell, (n_cells, n_words)."""
    if weights is not None and on_device(words):
        return _array_encoders.pool_weights(words, weights, cells, n_cells, n_words, pooling)
    slots = (cells.reshape(-1, *[1] * (words.ndim - 1)) * n_words + words).ravel()
    if weights is None:
        counts = count(slots, n_cells * n_words)
        pooled = counts if pooling == "sum" else counts > 0
    elif pooling == "sum":
        pooled = np.bincount(slots, weights.ravel(), n_cells * n_words)
    else:
        pooled = np.zeros(n_cells * n_words)
        np.maximum.at(pooled, slots, weights.ravel())
    return pooled.reshape(n_cells, n_words)


def _normalise(counts, norm):
    """Scale each row in place; rows of zeros stay as they are."""
    if norm is not None:
        scale_to_unit(counts, order=2 if norm == "l2" else 1)
    if norm == "hellinger":
        signed_power(counts, 0.5)


def _neighbors(value, n_words):
    value = positive_int(value, "n_neighbors")
    if value > n_words:
        raise ValueError(f"n_neighbors={value}, but there are only {n_words} words. Ask for fewer, or for more words.")
    return value
