"""K-means for NumPy arrays, where it is scikit-learn's, and for arrays on a GPU, where it is the same in array code."""

import warnings
from numbers import Real

import numpy as np
import sklearn.cluster
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.externals.array_api_compat import array_namespace, is_array_api_obj
from sklearn.metrics import euclidean_distances, pairwise_distances_argmin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from . import _array_kmeans
from ._array_api import beside, elsewhere, read_rows, to_numpy
from ._arrays import device_of
from ._images import positive_int

_TAKES_SPARSE = "sklearn.cluster.KMeans"


class KMeans(ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin, BaseEstimator):
    """K-means clustering, for NumPy arrays and arrays on a GPU.

    The array type of X decides where it runs. On NumPy arrays this is scikit-learn's :class:`~sklearn.cluster.KMeans`
    or, with a `batch_size`, its :class:`~sklearn.cluster.MiniBatchKMeans`; the same steps in array code on all others.
    What was fitted lies on the host: a model fitted on a GPU predicts without one.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    init : "k-means++" or array of shape (n_clusters, n_features), default="k-means++"
        The initial centres: rows that are drawn far apart, or these, in the kind of array that X is.
    n_init : int, default=1
        How many initial centres are drawn; the result with the least inertia stays. (Of mini-batches on NumPy arrays
        only the initial centres are compared, on a sample.) Not used where `init` is an array.
    max_iter : int, default=300
        Most passes over the rows.
    tol : float, default=1e-4
        It ends when the squared distances that the centres move sum up to no more than `tol` times the mean variance
        of the features.
    batch_size : int, default=None
        Rows that are drawn for a step, for many rows; None means all of them.
    random_state : int, RandomState or None, default=None
        Draws the initial centres and the mini-batches.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        The means of the clusters, in the precision of X.
    labels_ : ndarray of shape (n,), int32
        The cluster of each row seen in ``fit``.
    inertia_ : float
        The sum of the squared distances of these rows to their nearest centres.
    n_iter_ : int
        Passes over the rows.
    n_features_in_ : int
        Features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X was a data frame with names.

    See Also
    --------
    sklearn.cluster.KMeans : Sparse X, sample weights, other initial centres.

    Notes
    -----
    Empty clusters get the rows that are farthest from their centres. In array code, the distances of a few rows at a
    time are one matrix product, and the sums of the clusters another one; ``n * n_clusters`` numbers never stand in
    memory. The random numbers of Lloyd's algorithm are scikit-learn's: the same `random_state` gives the same clusters,
    but for rounding.

    References
    ----------
    S. P. Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28, 1982.

    D. Arthur and S. Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.

    D. Sculley, "Web-scale k-means clustering", WWW 2010 (mini-batches).

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import KMeans
    >>> X = np.array([[0.0, 1.0], [0.0, 2.0], [9.0, 1.0], [9.0, 2.0]])
    >>> model = KMeans(2, random_state=0).fit(X)
    >>> model.cluster_centers_[model.predict([[8.0, 8.0]])]
    array([[9. , 1.5]])
    """

    def __init__(
        self,
        n_clusters=8,
        *,
        init="k-means++",
        n_init=1,
        max_iter=300,
        tol=1e-4,
        batch_size=None,
        random_state=None,
    ):
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X, y=None):
        """Find the clusters.

        Parameters
        ----------
        X : array of shape (n, n_features)
            NumPy, CuPy, torch or another array-API array, or a data frame. float32 and float64 are read as they are,
            other numbers as float64.
        y : ignored

        Returns
        -------
        self : KMeans

        Raises
        ------
        ValueError
            If a parameter is out of range, X holds NaN, infinity or numbers whose squares are infinite, there are fewer
            rows than clusters, or `init` has another shape than the centres.
        TypeError
            If X is sparse, or `init` another kind of array than X.

        Warns
        -----
        ConvergenceWarning
            If fewer clusters than `n_clusters` have rows.
        """
        self._check_parameters()
        X = read_rows(self, X, reset=True, takes_sparse=_TAKES_SPARSE)
        if X.shape[0] < self.n_clusters:
            raise ValueError(f"n_clusters={self.n_clusters}, but X has only {X.shape[0]} rows. Ask for fewer clusters.")
        cluster = self._in_array_code if elsewhere(X) else self._by_scikit_learn
        with device_of(X):
            found = cluster(X, self._initial_centers(X))
        if not np.isfinite(found.inertia):
            raise ValueError(f"X holds numbers whose squares are too large for {X.dtype}. Scale them, or use float64.")
        self.cluster_centers_, self.labels_ = to_numpy(found.centers), to_numpy(found.labels).astype(np.int32)
        self.inertia_, self.n_iter_ = float(found.inertia), int(found.n_iter)
        self._n_features_out = self.n_clusters
        self._warn_of_empty_clusters()
        return self

    def predict(self, X):
        """Return the nearest centre of every row.

        Parameters
        ----------
        X : array of shape (n, n_features)
            Rows, in any kind of array.

        Returns
        -------
        labels : ndarray of shape (n,), int32
            Indices of the centres, on the host whatever X is.
        """
        X, centers = self._read(X)
        nearest = _array_kmeans.nearest if elsewhere(X) else pairwise_distances_argmin
        with device_of(X):
            return to_numpy(nearest(X, centers)).astype(np.int32)

    def transform(self, X):
        """Return the distance of every row to every centre.

        Parameters
        ----------
        X : array of shape (n, n_features)
            Rows, in any kind of array.

        Returns
        -------
        distances : array of shape (n, n_clusters)
            In the array type and precision of X.
        """
        X, centers = self._read(X)
        with device_of(X):
            return _array_kmeans.distances(X, centers) if elsewhere(X) else euclidean_distances(X, centers)

    def score(self, X, y=None):
        """Return how well the clusters fit other rows: their inertia, negative.

        Parameters
        ----------
        X : array of shape (n, n_features)
            Rows, in any kind of array.
        y : ignored

        Returns
        -------
        score : float
            Minus the sum of the squared distances to the nearest centres.
        """
        X, centers = self._read(X)
        with device_of(X):
            return -_array_kmeans.inertia(X, centers)

    def _read(self, X):
        """Return rows as seen in ``fit``, and the centres beside them."""
        check_is_fitted(self)
        X = read_rows(self, X, reset=False, takes_sparse=_TAKES_SPARSE)
        with device_of(X):
            return X, beside(X, self.cluster_centers_, X.dtype)

    def _by_scikit_learn(self, X, init):
        parameters = {
            "init": self.init if init is None else init,
            "n_init": self.n_init if init is None else 1,
            "max_iter": self.max_iter,
            "tol": self.tol,
            "random_state": self.random_state,
        }
        if self.batch_size is None:
            model = sklearn.cluster.KMeans(self.n_clusters, **parameters)
        else:
            model = sklearn.cluster.MiniBatchKMeans(self.n_clusters, batch_size=self.batch_size, **parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fit says the same
            model.fit(X)
        return _array_kmeans.Clustering(model.cluster_centers_, model.labels_, model.inertia_, model.n_iter_)

    def _in_array_code(self, X, init):
        return _array_kmeans.cluster(
            X,
            self.n_clusters,
            init=init,
            n_init=self.n_init,
            max_iter=self.max_iter,
            tol=self.tol,
            batch_size=self.batch_size,
            rng=check_random_state(self.random_state),
        )

    def _initial_centers(self, X):
        """Return `init` in X's precision, or None where the centres are to be drawn."""
        if isinstance(self.init, str):
            return None
        init = self.init if is_array_api_obj(self.init) else np.asarray(self.init)
        xp = array_namespace(X)
        if array_namespace(init) is not xp:
            raise TypeError(f"X is a {_kind(X)} and init a {_kind(init)}; expected arrays of one kind.")
        if tuple(init.shape) != (self.n_clusters, X.shape[1]):
            raise ValueError(f"init has shape {tuple(init.shape)}; expected {(self.n_clusters, X.shape[1])}.")
        init = xp.astype(init, X.dtype)
        if not bool(xp.all(xp.isfinite(init))):
            raise ValueError("init contains NaN or infinity.")
        return init

    def _warn_of_empty_clusters(self):
        n_found = len(np.unique(self.labels_))
        if n_found < self.n_clusters:
            message = f"Only {n_found} of n_clusters={self.n_clusters} clusters have rows; too few rows differ."
            warnings.warn(message, ConvergenceWarning, stacklevel=3)

    def _check_parameters(self):
        for name in ("n_clusters", "n_init", "max_iter"):
            positive_int(getattr(self, name), name)
        if self.batch_size is not None:
            positive_int(self.batch_size, "batch_size")
        if not isinstance(self.tol, Real) or isinstance(self.tol, bool) or not 0 <= self.tol < np.inf:
            raise ValueError(f"tol={self.tol!r}; expected a number from 0 on.")
        if isinstance(self.init, str) and self.init != "k-means++":
            raise ValueError(f"init={self.init!r}; expected 'k-means++' or an array of shape (n_clusters, n_features).")


def _kind(a):
    return f"{type(a).__module__}.{type(a).__qualname__}"
