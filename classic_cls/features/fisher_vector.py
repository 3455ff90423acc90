"""Fisher vectors: how an image's local descriptors would move the means and variances of a Gaussian mixture."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .. import _native
from .._arrays import count, device_of, empty_beside, namespace, on_device, to_host
from .._images import fit_images, for_batches, one_of, positive_int, transform_images
from .._kmeans import kmeans, nearest
from . import _array_encoders
from ._local import (
    all_cells,
    as_descriptor,
    as_floats,
    bytes_per_image,
    cell_names,
    check_enough,
    describe,
    finest_cells,
    fraction,
    images_per_batch,
    n_cells,
    sample_descriptors,
    signed_power,
    unit_cells,
)
from ._pca import learn_pca, project

_NORMS = ("l2", None)
_ITERATIONS = 20  # of expectation-maximisation, after k-means
_PER_SUM = 4096  # descriptors whose float32 sums are taken at a time
_LEAST_VARIANCE = 1e-4  # as a share of the largest variance of all descriptors, as in VLFeat's own training
_TINY = 1e-10


class FisherVector(TransformerMixin, BaseEstimator):
    """Improved Fisher vectors: how an image's descriptors would move the means and variances of a Gaussian mixture.

    ``fit`` draws local descriptors from the training images, reduces them to their principal components, and learns a
    mixture of Gaussians with diagonal covariance. ``transform`` finds which components the descriptors of an image may
    belong to, and sums how far they lie from these, to first and second order. The numbers are those of
    ``skimage.feature.fisher_vector`` for means and variances, the latter with VLFeat's sign. Images on a GPU are
    encoded there where the descriptor takes them, as ``DenseSIFT`` does; the mixture is learned on the host.

    Parameters
    ----------
    descriptor : DenseSIFT, KeypointSIFT or the like, default=None
        Gives the local descriptors of an image; None means ``DenseSIFT()``. It is cloned, not changed.
    n_components : int, default=64
        Gaussians in the mixture.
    n_dims : int, default=64
        Principal components to which descriptors are reduced first; None keeps them as they are.
    pyramid_levels : int, default=1
        Level l sums in 2^l x 2^l cells; 1 is the image as a whole, 3 adds 2 x 2 and 4 x 4 cells.
    append_position : bool, default=True
        Let a descriptor's place, ``x / width - 0.5`` and ``y / height - 0.5``, follow its principal components. The
        mixture then says where, too, at a much smaller price than the cells of a pyramid.
    power : float, default=0.5
        The sums' magnitudes are raised to this power, in (0, 1], and keep their signs. 0.5 is the signed square root,
        and 1 leaves them as they are.
    norm : {"l2", None}, default="l2"
        What follows: "l2" scales each cell to length 1, and then the whole. None does nothing.
    samples_per_component : int, default=256
        Descriptors drawn for learning, per Gaussian.
    random_state : int, RandomState or None, default=None
        Draws the sample and starts the mixture.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.
    n_jobs : int, default=None
        Number of threads; None means 1 unless in a :obj:`joblib.parallel_config` context, -1 means all cores.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,), float32
        Share of the descriptors that belongs to each Gaussian.
    means_ : ndarray of shape (n_components, n_dims), float32
        Their means; two columns more, x and y, where positions are appended.
    variances_ : ndarray of shape (n_components, n_dims), float32
        Their variances.
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
    fisher_vector : The features of one set of descriptors, given a mixture.
    VLAD : Sums of first order, of hard assignments.

    References
    ----------
    F. Perronnin, J. Sanchez and T. Mensink, "Improving the Fisher kernel for large-scale image classification",
    ECCV 2010.
    J. Sanchez, F. Perronnin, T. Mensink and J. Verbeek, "Image classification with the Fisher vector: theory and
    practice", IJCV 2013.
    J. Sanchez, F. Perronnin and T. de Campos, "Modeling the spatial layout of images beyond spatial pyramids", Pattern
    Recognition Letters 2012 (appended positions).

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import FisherVector
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 48, 48), dtype=np.uint8)
    >>> FisherVector(n_components=5, n_dims=16, random_state=0).fit_transform(images).shape
    (20, 180)
    """

    def __init__(
        self,
        descriptor=None,
        n_components=64,
        n_dims=64,
        pyramid_levels=1,
        append_position=True,
        power=0.5,
        norm="l2",
        *,
        samples_per_component=256,
        random_state=None,
        image_shape=None,
        n_jobs=None,
    ):
        self.descriptor = descriptor
        self.n_components = n_components
        self.n_dims = n_dims
        self.pyramid_levels = pyramid_levels
        self.append_position = append_position
        self.power = power
        self.norm = norm
        self.samples_per_component = samples_per_component
        self.random_state = random_state
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Learn the principal components and the mixture.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images, uint8 or float in [0, 1]; in a list their sizes may differ.
        y : ignored

        Returns
        -------
        self : FisherVector

        Raises
        ------
        ValueError
            If the images give fewer descriptors than there are Gaussians, or are too small for one descriptor, or a
            parameter is out of range.
        TypeError
            If the images lie on a GPU, and the descriptor runs on the CPU alone.
        """
        n_components = positive_int(self.n_components, "n_components")
        n_samples = n_components * positive_int(self.samples_per_component, "samples_per_component")
        positive_int(self.pyramid_levels, "pyramid_levels")
        if self.n_dims is not None:
            positive_int(self.n_dims, "n_dims")
        fraction(self.power, "power")
        one_of(self.norm, "norm", _NORMS)
        images = fit_images(self, X, ragged=True, device=True)
        self.descriptor_ = as_descriptor(self.descriptor)
        rng = check_random_state(self.random_state)
        with device_of(images):
            sample = sample_descriptors(self.descriptor_, images, n_samples, rng, self.n_jobs)
        descriptors, places = map(to_host, sample)
        check_enough(len(descriptors), n_components, "n_components")
        if self.n_dims is not None:
            self.mean_, self.components_ = learn_pca(descriptors, self.n_dims)
        points = self._points(descriptors, places).astype(np.float32)
        self.weights_, self.means_, self.variances_ = learn_mixture(points, n_components, rng, self.n_jobs)
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
            In the images' kind of array. For each level of the pyramid and each of its cells, row by row: Gaussian by
            Gaussian the numbers for its mean, then likewise those for its variances. Zeros for an image without
            descriptors.
        """
        images = transform_images(self, X, ragged=True, device=True)
        mixture = self.weights_, self.means_, self.variances_
        n_finest = 4 ** (self.pyramid_levels - 1)

        def encode(part, out):
            described = describe(self.descriptor_, part)
            cells = finest_cells(described, self.pyramid_levels)
            points = self._points(described.descriptors, described.places)
            sums = _sums(points, *mixture, cells, len(part) * n_finest)[1]
            counts = count(cells, len(sums))
            sums, counts = (all_cells(a, self.pyramid_levels) for a in (sums, counts))
            out[...] = _normalise(sums, counts, self.weights_, self.power, self.norm)

        out = empty_beside(images, (len(images), n_cells(self.pyramid_levels) * 2 * self.means_.size))
        size, workspace = images_per_batch(images, out.shape[1]), self._workspace(images)
        return for_batches(encode, images, out, n_jobs=self.n_jobs, batch_size=size, workspace=workspace)

    def _workspace(self, images):
        n_doubles = 2 * self.means_.shape[1] + (0 if self.n_dims is None else len(self.mean_))
        return bytes_per_image(self.descriptor_, images, 8 * n_doubles, 96 * self.means_.size, self.pyramid_levels)

    def get_feature_names_out(self, input_features=None):
        """Return names such as ``fisher_mean_12_5_level1_cell2``: Gaussian, dimension, level and cell."""
        check_is_fitted(self)
        kinds = "mean", "variance"
        entries = [f"fisher_{kind}_{k}_{i}" for kind in kinds for k, i in np.ndindex(*self.means_.shape)]
        names = [f"{entry}_{cell}" for cell in cell_names(self.pyramid_levels) for entry in entries]
        return np.array(names, dtype=object)

    def _points(self, descriptors, places):
        """Return what the mixture is of, float64: a sum may be near zero, and all of it rounding, were this float32."""
        if self.n_dims is not None:
            descriptors = project(descriptors, self.components_, self.mean_, np.float64)
        if self.append_position:
            descriptors = namespace(places).concatenate([descriptors, places[:, ::-1] - 0.5], axis=1)
        return descriptors.astype(np.float64, copy=False)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def fisher_vector(descriptors, weights, means, variances, power=0.5, norm="l2"):
    """Return the Fisher vector of one set of descriptors.

    Parameters
    ----------
    descriptors : array of shape (n, n_dims)
        float64 is summed in double; anything else is taken as float32, and summed so (in double on a GPU).
    weights : array of shape (n_components,)
        Of the Gaussians in the mixture, positive.
    means, variances : array of shape (n_components, n_dims)
        Of the Gaussians; the variances are positive. All four lie on the host, or all on a GPU.
    power, norm
        As in :class:`FisherVector`.

    Returns
    -------
    features : array of shape (2 * n_components * n_dims,), float32
        In their kind of array. With posteriors p and deviations z = (x - mean) / sqrt(variance), Gaussian by Gaussian:
        the mean over the descriptors of ``p * z / sqrt(weight)``, then likewise of ``p * (z**2 - 1) / sqrt(2 *
        weight)``, after `power` and `norm`. Zeros where there are no descriptors. Posteriors below 1e-8 count as 0.

    Raises
    ------
    ValueError
        If the shapes do not fit together, there is no Gaussian, a weight is not positive, a variance is below 1e-20, a
        number is NaN or beyond 1e6, or a parameter is out of range.
    TypeError
        If only some of the arrays lie on a GPU.

    Notes
    -----
    On a GPU deviations are found about the mixture's center: of Gaussians more than 1e5 times as narrow as they are far
    from there, digits are lost. None that :class:`FisherVector` learns is.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import fisher_vector
    >>> fisher_vector([[3.0], [5.0]], weights=[1.0], means=[[2.0]], variances=[[4.0]], power=1, norm=None)
    array([1.        , 0.17677669], dtype=float32)
    """
    xp = namespace(descriptors, weights, means, variances)
    descriptors = as_floats(descriptors, "descriptors", double=True)
    if descriptors.ndim != 2:
        raise ValueError(f"descriptors have shape {descriptors.shape}; expected (n, n_dims).")
    mixture = _checked_mixture(weights, means, variances, descriptors.shape[1])
    fraction(power, "power")
    one_of(norm, "norm", _NORMS)
    with device_of([descriptors]):
        sums = _sums(descriptors, *mixture, xp.zeros(len(descriptors), np.int64), 1)[1]
        return _normalise(sums[None], xp.full((1, 1), len(descriptors)), mixture[0], power, norm)[0]


def learn_mixture(points, n_components, rng, n_jobs=None):
    """Return weights, means and variances of a mixture of Gaussians, float32, by expectation-maximisation.

    Starts from k-means. A Gaussian that less than one point belongs to stays where it is.
    """
    floor = max(_LEAST_VARIANCE * points.var(0, dtype=np.float64).max(), _TINY)
    centers = kmeans(points, n_components, rng, n_jobs)
    owners = np.eye(n_components, dtype=np.float32)[nearest(points, centers, n_jobs)]
    spreads = owners.T @ (points - centers[owners.argmax(1)]) ** 2 / np.maximum(owners.sum(0), 1)[:, None]
    mixture = _as_mixture(owners.sum(0), centers, spreads, floor)
    for _ in range(_ITERATIONS):
        mixture = _maximise(*_expect(points, mixture, n_jobs), *mixture[1:], floor)
    return mixture


def _expect(points, mixture, n_jobs):
    """Return how many points belong to each Gaussian, and their summed deviations, (2, n_components, n_dims)."""
    parts = [points[start : start + _PER_SUM] for start in range(0, len(points), _PER_SUM)]
    found = [None] * len(parts)

    def add(indices, _):
        for i in indices:
            found[i] = _sums(parts[i], *mixture, np.zeros(len(parts[i]), np.int64), 1)

    for_batches(add, range(len(parts)), found, n_jobs=n_jobs, batch_size=1)
    return tuple(np.sum([part[i][0] for part in found], axis=0, dtype=np.float64) for i in (0, 1))


def _maximise(counts, sums, means, variances, floor):
    enough = (counts >= 1)[:, None]
    shift, spread = sums / np.maximum(counts, 1)[:, None]
    moved = means + shift * np.sqrt(variances)
    scaled = variances * (spread + 1 - shift**2)
    return _as_mixture(counts, np.where(enough, moved, means), np.where(enough, scaled, variances), floor)


def _as_mixture(counts, means, variances, floor):
    counts = np.maximum(counts, 1)
    return tuple(a.astype(np.float32) for a in (counts / counts.sum(), means, np.maximum(variances, floor)))


def _sums(points, weights, means, variances, cells, n_cells):
    """Return how many points belong to each Gaussian, and their summed deviations, one after the other cell.

    Shapes are (n_cells, n_components) and (n_cells, 2, n_components, n_dims); deviations are z and z**2 - 1. All is
    summed in the precision of the points, and in double on a GPU. The mixture lies on the host.
    """
    if on_device(points):
        return _array_encoders.fisher_sums(points, weights, means, variances, cells, n_cells)
    counts = np.empty((n_cells, len(means)), points.dtype)
    sums = np.empty((n_cells, 2, *means.shape), points.dtype)
    mixture = (a.astype(np.float64, copy=False) for a in (weights, means, variances))
    _native.kernels.fisher_sums(points, cells, *mixture, counts, sums)
    return counts, sums


def _normalise(sums, counts, weights, power, norm):
    """Return features (n_images, n_features) of sums (n_images, n_cells, 2, n_components, n_dims)."""
    xp = namespace(sums)
    scales = xp.asarray(np.sqrt(np.multiply.outer([1.0, 2.0], weights)))
    sizes = scales * xp.maximum(counts, 1)[..., None, None]
    features = (sums / sizes[..., None]).astype(np.float32)
    signed_power(features, power)
    cells = features.reshape(*sums.shape[:2], -1)
    return cells.reshape(len(cells), -1) if norm is None else unit_cells(cells)


def _checked_mixture(weights, means, variances, n_dims):
    """Return a mixture as NumPy's float64."""
    weights, means, variances = (np.ascontiguousarray(to_host(a), np.float64) for a in (weights, means, variances))
    shape = (*weights.shape, n_dims)
    if weights.ndim != 1 or weights.size == 0 or means.shape != shape or variances.shape != shape:
        raise ValueError(
            f"weights, means and variances have shapes {weights.shape}, {means.shape} and {variances.shape}; for "
            f"descriptors of {n_dims} numbers expected (n_components,), (n_components, {n_dims}) and the same again."
        )
    _check_range(weights, "weights", 1e-38)
    _check_range(variances, "variances", 1e-20)  # so that no squared deviation outgrows float32
    return weights, as_floats(means, "means", double=True), variances


def _check_range(values, name, least):
    if not (least <= values.min() and values.max() <= 1e38):  # NaN fails too
        found = f"{values.min():.3g} to {values.max():.3g}"
        raise ValueError(f"The {name} of the mixture range from {found}; expected {least:g} to 1e+38.")
