"""The Gaussian kernel as a feature map, so that a linear classifier behind it is a kernel machine."""

import numpy as np
from scipy.linalg import LinAlgError, solve_triangular
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.extmath import randomized_svd
from sklearn.utils.validation import check_is_fitted, validate_data

from ._arrays import refuse_device
from ._images import positive_int, positive_number
from ._linalg import cholesky

_ROWS = 2048  # at a time: the kernel values of a batch stay small beside the data
_JITTER = 1e-4  # added to the kernel's diagonal of ones, so that float32 can factor it
_PAIRED = 1000  # landmarks whose distances give the median


class RBFNystroem(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features whose dot products approximate the Gaussian kernel exp(-|a - b|^2 / (2 sigma^2)).

    Rows are compared with landmarks, a random sample of the training rows, and the comparisons are decorrelated with
    the Cholesky factor of the landmarks' own kernel. scikit-learn's Nystroem does the same for any kernel; this one
    is for thousands of landmarks, where a singular value decomposition in double precision would take longer than
    everything else.

    Parameters
    ----------
    n_components : int, default=1000
        Landmarks, and features. If there are fewer training rows, all of them are landmarks, and the map is exact on
        them.
    bandwidth : float, default=1.0
        Sigma, in units of the median distance between landmarks.
    standardize : bool, default=False
        Whether every column is first divided by its standard deviation.
    n_dims : int, default=None
        Rows are compared in the space of so many principal components, which costs little accuracy and saves much
        time where there are thousands of columns; None compares them as they are.
    random_state : int, RandomState or None, default=None
        Draws the landmarks.

    Attributes
    ----------
    center_ : ndarray of shape (n_features,)
        Mean of the landmarks.
    scale_ : ndarray of shape (n_features,), or None
        Their standard deviation, 1 instead of 0; None where `standardize` is False.
    axes_ : ndarray of shape (n_features, n_dims), or None
        Principal axes; None where n_dims is, or where there are no more columns or landmarks than that.
    components_ : ndarray of shape (n_components, n_dims or n_features)
        The landmarks, less that mean, divided by the scale, in terms of the axes.
    gamma_ : float
        1 / (2 sigma^2).
    normalization_ : ndarray of shape (n_components, n_components)
        Lower triangular Cholesky factor of the landmarks' kernel.

    See Also
    --------
    sklearn.kernel_approximation.Nystroem : The same for any kernel, and a few hundred landmarks.

    References
    ----------
    C. Williams and M. Seeger, "Using the Nystroem method to speed up kernel machines", NIPS 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import RBFNystroem
    >>> X = np.random.default_rng(0).normal(size=(50, 4))
    >>> Z = RBFNystroem(n_components=50, random_state=0).fit_transform(X)
    >>> bool(abs((Z**2).sum(1) - 1).max() < 1e-3)  # the kernel of a row with itself
    True
    """

    def __init__(self, n_components=1000, bandwidth=1.0, *, standardize=False, n_dims=None, random_state=None):
        self.n_components = n_components
        self.bandwidth = bandwidth
        self.standardize = standardize
        self.n_dims = n_dims
        self.random_state = random_state

    def fit(self, X, y=None):
        """Draw the landmarks.

        Parameters
        ----------
        X : array of shape (n, n_features)
        y : ignored

        Returns
        -------
        self : RBFNystroem

        Raises
        ------
        ValueError
            If X holds NaN, infinity or numbers whose distances would leave its dtype, or a parameter is out of range.
        """
        n_components = positive_int(self.n_components, "n_components")
        bandwidth = positive_number(self.bandwidth, "bandwidth")
        refuse_device(X, type(self).__name__)
        X = validate_data(self, X, dtype=[np.float32, np.float64])
        rng = check_random_state(self.random_state)
        chosen = rng.permutation(len(X))[:n_components]
        for rows in _batches(chosen):
            _check_size(X[rows])
        self.center_ = _mean(X, chosen)
        self.scale_ = _deviation(X, chosen, self.center_) if self.standardize else None
        self.axes_ = None
        if self.n_dims is not None:
            few = chosen[: max(_ROWS, 2 * positive_int(self.n_dims, "n_dims"))]
            self.axes_ = _principal_axes(self._project(X[few]), self.n_dims, rng)
        self.components_ = np.concatenate([self._project(X[rows]) for rows in _batches(chosen)])
        self.gamma_ = 1 / (2 * bandwidth**2 * _median_squared_distance(self.components_[:_PAIRED]))
        try:
            factor = _factor(self.components_, self.gamma_)
        except LinAlgError:  # Rows near to each other and far from the others: float32 hasn't the digits.
            factor = _factor(self.components_.astype(np.float64), self.gamma_)
        self.normalization_ = factor.astype(X.dtype)
        return self

    def transform(self, X):
        """Map rows.

        Parameters
        ----------
        X : array of shape (n, n_features)

        Returns
        -------
        features : ndarray of shape (n, n_components)
            float32, or float64 if X is.

        Raises
        ------
        ValueError
            If X holds NaN, infinity or numbers whose distances would leave its dtype.
        """
        check_is_fitted(self)
        refuse_device(X, type(self).__name__)
        X = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        components, normalization = (a.astype(X.dtype, copy=False) for a in (self.components_, self.normalization_))
        out = np.empty((len(X), len(components)), X.dtype)
        for rows in gen_batches(len(X), _ROWS):
            kernel = _rbf(self._project(X[rows]), components, self.gamma_)
            out[rows] = solve_triangular(normalization, kernel.T, lower=True, overwrite_b=True).T
        return out

    def _project(self, X):
        with np.errstate(over="ignore"):
            X = X - self.center_.astype(X.dtype, copy=False)
            if self.scale_ is not None:
                X /= self.scale_.astype(X.dtype, copy=False)
        _check_size(X)
        return X if self.axes_ is None else X @ self.axes_.astype(X.dtype, copy=False)

    @property
    def _n_features_out(self):
        return len(self.components_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32", "float64"]
        return tags


def _check_size(X):
    """Raise a ValueError where the squared distance of such rows could be infinite."""
    largest, bound = max(X.max(), -X.min()), np.sqrt(np.finfo(X.dtype).max / X.shape[1]) / 8
    if largest > bound:
        raise ValueError(
            f"X holds numbers so large, or so far from those of fit, that their distances leave {X.dtype}: "
            f"{largest:.3g}; expected at most {bound:.3g}. Scale or clip the features, or pass float64."
        )


def _batches(chosen):
    """Cut row numbers into batches: thousands of rows with tens of thousands of columns are not copied at once."""
    return np.array_split(chosen, -(-len(chosen) // _ROWS))


def _mean(X, chosen):
    """Return the mean of some rows."""
    return (sum(X[rows].sum(0, dtype=np.float64) for rows in _batches(chosen)) / len(chosen)).astype(X.dtype)


def _deviation(X, chosen, center):
    """Return the standard deviation of some rows; 1 for a deviation of 0."""
    variance = sum(((X[rows] - center) ** 2).sum(0, dtype=np.float64) for rows in _batches(chosen)) / len(chosen)
    deviation, rounding = np.sqrt(variance), 10 * np.finfo(X.dtype).eps * np.abs(center)
    return np.where(deviation > rounding, deviation, 1).astype(X.dtype)


def _principal_axes(rows, n_dims, rng):
    """Return the first principal axes of centred rows as columns, or None where all of them would be asked for."""
    if n_dims >= min(rows.shape):
        return None
    return randomized_svd(rows, n_dims, n_iter=1, random_state=rng)[2].T.copy()


def _squared_distances(a, b):
    """Return the squared distances of the rows of `a` from those of `b`."""
    distances = a @ b.T
    distances *= -2
    distances += np.einsum("ij,ij->i", a, a)[:, None]
    distances += np.einsum("ij,ij->i", b, b)
    return np.maximum(distances, 0, out=distances)


def _rbf(a, b, gamma):
    kernel = _squared_distances(a, b)
    kernel *= -gamma
    return np.exp(kernel, out=kernel)


def _factor(landmarks, gamma):
    """Return the Cholesky factor of the landmarks' kernel."""
    kernel = _rbf(landmarks, landmarks, gamma).astype(np.float64)
    kernel.flat[:: len(kernel) + 1] = 1 + _JITTER
    return cholesky(kernel)


def _median_squared_distance(rows):
    """Return the median over pairs, or 1 where rows do not differ."""
    distances = _squared_distances(rows, rows)[np.triu_indices(len(rows), 1)]
    return float(np.median(distances)) if distances.size and np.median(distances) > 0 else 1.0
