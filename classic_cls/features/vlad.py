"""VLAD: how local descriptors differ from their words, summed by word."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .. import _native
from .._arrays import device_of, empty_beside, namespace, on_device, to_host
from .._images import fit_images, for_batches, one_of, positive_int, transform_images
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
    fraction,
    images_per_batch,
    n_cells,
    sample_descriptors,
    scale_to_unit,
    signed_power,
    unit_cells,
)
from ._pca import learn_pca, project, uncentered

_NORMS = ("intra", "l2", None)


class VLAD(TransformerMixin, BaseEstimator):
    """Vector of locally aggregated descriptors: a bag of words that keeps how descriptors differ from their words.

    ``fit`` draws local descriptors from the training images and clusters them with k-means: the centres are the words.
    ``transform`` assigns every descriptor of an image to its nearest word and sums, word by word, descriptor less word.
    A few words do: there are ``n_dims`` numbers for each, where a bag of words has one. Images on a GPU are encoded
    there where the descriptor takes them, as ``DenseSIFT`` does; the words are learned on the host.

    Parameters
    ----------
    descriptor : DenseSIFT, KeypointSIFT or the like, default=None
        Gives the local descriptors of an image; None means ``DenseSIFT()``. It is cloned, not changed.
    n_words : int, default=64
        Size of the vocabulary.
    n_dims : int, default=64
        Principal components to which descriptors are reduced first; None keeps them as they are.
    pyramid_levels : int, default=1
        Level l sums in 2^l x 2^l cells; 1 is the image as a whole, 3 adds 2 x 2 and 4 x 4 cells.
    power : float, default=0.5
        The sums' magnitudes are raised to this power, in (0, 1], and keep their signs. 0.5 is the signed square root,
        and 1 leaves them as they are.
    norm : {"intra", "l2", None}, default="intra"
        What follows: "intra" scales the sums of each word to length 1, and then, as "l2" does at once, each cell, and
        then the whole, so that neither words that occur often nor crowded cells weigh more. None does nothing.
    samples_per_word : int, default=256
        Descriptors drawn for learning, per word.
    random_state : int, RandomState or None, default=None
        Draws the sample and starts k-means.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.
    n_jobs : int, default=None
        Number of threads; None means 1 unless in a :obj:`joblib.parallel_config` context, -1 means all cores.

    Attributes
    ----------
    vocabulary_ : ndarray of shape (n_words, n_dims), float32
        The words.
    mean_ : ndarray of shape (n_descriptor_dims,), float32
        Mean of the descriptors; not there where `n_dims` is None.
    components_ : ndarray of shape (n_dims, n_descriptor_dims), float32
        Their principal axes; a reduced descriptor is ``components_ @ (descriptor - mean_)``. Not there where `n_dims`
        is None.
    descriptor_ : DenseSIFT, KeypointSIFT or the like
        The descriptor in use.
    image_shape_ : tuple
        ``(height, width, channels)`` of the images seen in ``fit``; height and width None where they differed.

    See Also
    --------
    vlad : The features of one set of descriptors, given a vocabulary.
    FisherVector : Sums of second order too, of soft assignments.

    References
    ----------
    H. Jegou, M. Douze, C. Schmid and P. Perez, "Aggregating local descriptors into a compact image representation",
    CVPR 2010.
    R. Arandjelovic and A. Zisserman, "All about VLAD", CVPR 2013 (intra-normalisation).

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import VLAD
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 48, 48), dtype=np.uint8)
    >>> VLAD(n_words=5, n_dims=16, random_state=0).fit_transform(images).shape
    (20, 80)
    """

    def __init__(
        self,
        descriptor=None,
        n_words=64,
        n_dims=64,
        pyramid_levels=1,
        power=0.5,
        norm="intra",
        *,
        samples_per_word=256,
        random_state=None,
        image_shape=None,
        n_jobs=None,
    ):
        self.descriptor = descriptor
        self.n_words = n_words
        self.n_dims = n_dims
        self.pyramid_levels = pyramid_levels
        self.power = power
        self.norm = norm
        self.samples_per_word = samples_per_word
        self.random_state = random_state
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Learn the vocabulary and, if asked for, the principal components.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images, uint8 or float in [0, 1]; in a list their sizes may differ.
        y : ignored

        Returns
        -------
        self : VLAD

        Raises
        ------
        ValueError
            If the images give fewer descriptors than there are words, or are too small for one descriptor, or a
            parameter is out of range.
        TypeError
            If the images lie on a GPU, and the descriptor runs on the CPU alone.
        """
        n_words = positive_int(self.n_words, "n_words")
        n_samples = n_words * positive_int(self.samples_per_word, "samples_per_word")
        positive_int(self.pyramid_levels, "pyramid_levels")
        if self.n_dims is not None:
            positive_int(self.n_dims, "n_dims")
        fraction(self.power, "power")
        one_of(self.norm, "norm", _NORMS)
        images = fit_images(self, X, ragged=True, device=True)
        self.descriptor_ = as_descriptor(self.descriptor)
        rng = check_random_state(self.random_state)
        with device_of(images):
            sample = to_host(sample_descriptors(self.descriptor_, images, n_samples, rng, self.n_jobs)[0])
        check_enough(len(sample), n_words, "n_words")
        if self.n_dims is not None:
            self.mean_, self.components_ = learn_pca(sample, self.n_dims)
            sample = project(sample, self.components_, self.mean_)
        self.vocabulary_ = kmeans(sample, n_words, rng, self.n_jobs)
        return self

    def transform(self, X):
        """Describe images.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images with as many channels as those seen in ``fit``.

        Returns
        -------
        features : array of shape (n, n_features), float32
            In the images' kind of array. For each level of the pyramid and each of its cells, row by row: word by word,
            `n_dims` numbers. Zeros for an image without descriptors.
        """
        images = transform_images(self, X, ragged=True, device=True)
        axes = None if self.n_dims is None else self.components_
        # The mean is not subtracted: flat areas stay zeros, and how far they are from their words is not rounded.
        words = self.vocabulary_ if axes is None else uncentered(self.vocabulary_, axes, self.mean_)

        def encode(part, out):
            described = describe(self.descriptor_, part)
            cells = finest_cells(described, self.pyramid_levels)
            factors = [a if a is None else namespace(cells).asarray(a) for a in (axes, words)]
            sums = _sums(described.descriptors, *factors, cells, len(part) * 4 ** (self.pyramid_levels - 1))
            sums = all_cells(sums, self.pyramid_levels, dtype=np.float32)
            out[...] = _normalise(sums, self.power, self.norm).reshape(out.shape)

        out = empty_beside(images, (len(images), n_cells(self.pyramid_levels) * self.vocabulary_.size))
        size, workspace = images_per_batch(images, out.shape[1]), self._workspace(images)
        return for_batches(encode, images, out, n_jobs=self.n_jobs, batch_size=size, workspace=workspace)

    def _workspace(self, images):
        n_words, n_dims = self.vocabulary_.shape
        depth = n_dims if self.n_dims is None else self.components_.shape[1]
        per_cell = 8 * n_words * (2 * depth + 3 * n_dims)
        return bytes_per_image(self.descriptor_, images, 4 * n_dims, per_cell, self.pyramid_levels)

    def get_feature_names_out(self, input_features=None):
        """Return names such as ``vlad_12_5_level1_cell2``: word, dimension, level and cell."""
        check_is_fitted(self)
        entries = [f"vlad_{k}_{i}" for k, i in np.ndindex(*self.vocabulary_.shape)]
        names = [f"{entry}_{cell}" for cell in cell_names(self.pyramid_levels) for entry in entries]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def vlad(descriptors, vocabulary, power=0.5, norm="intra"):
    """Return the VLAD of one set of descriptors.

    Parameters
    ----------
    descriptors : array of shape (n, n_dims)
    vocabulary : array of shape (n_words, n_dims)
        Both on the host, or both on a GPU.
    power, norm
        As in :class:`VLAD`.

    Returns
    -------
    features : array of shape (n_words * n_dims,), float32
        In their kind of array. Word by word the sum of descriptor less word over the descriptors to which the word is
        nearest, after `power` and `norm`. Zeros where there are no descriptors.

    Raises
    ------
    ValueError
        If the shapes do not fit together, there is no word, a number is NaN or beyond 1e6, or a parameter is out of
        range.
    TypeError
        If only one of the two lies on a GPU.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import vlad
    >>> vlad([[3, 0], [0, 5]], [[2, 0], [0, 2]], power=1, norm=None)
    array([1., 0., 0., 3.], dtype=float32)
    """
    descriptors, vocabulary = as_words(descriptors, vocabulary)
    fraction(power, "power")
    one_of(norm, "norm", _NORMS)
    with device_of([descriptors]):
        cells = namespace(descriptors).zeros(len(descriptors), np.int64)
        sums = _sums(descriptors, None, vocabulary, cells, 1)
        return _normalise(sums[None].astype(np.float32), power, norm).ravel()


def _sums(descriptors, axes, words, cells, n_cells):
    """Return the sums of descriptor, projected onto axes if there are any, less nearest word, float64.

    Their shape is (n_cells, n_words, n_dims).
    """
    points = descriptors if axes is None else project(descriptors, axes)
    labels = nearest(points, words.astype(np.float32))
    if on_device(descriptors):
        return _array_encoders.residual_sums(descriptors, axes, words.astype(np.float64), labels, cells, n_cells)
    sums = np.empty((n_cells, *words.shape))
    _native.kernels.residual_sums(descriptors, axes, words.astype(np.float64), labels, cells, sums)
    return sums


def _normalise(sums, power, norm):
    """Scale sums (n_images, n_cells, n_words, n_dims) in place and return them as (n_images, n_features)."""
    signed_power(sums, power)
    if norm == "intra":
        scale_to_unit(sums)
    cells = sums.reshape(*sums.shape[:2], -1)
    return cells.reshape(len(cells), -1) if norm is None else unit_cells(cells)
