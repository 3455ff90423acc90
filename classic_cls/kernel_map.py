"""The Gaussian kernel as a feature map, so that a linear classifier behind it is a kernel machine."""

import math

import numpy as np
from scipy.linalg import LinAlgError
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.externals.array_api_compat import array_namespace, device
from sklearn.utils import check_random_state, gen_batches
from sklearn.utils.validation import check_is_fitted

from ._array_api import beside, read_rows, to_numpy
from ._arrays import device_of
from ._images import positive_int, positive_number
from ._linalg import cholesky, diagonal_view, solve_triangular

_TAKES_SPARSE = "sklearn.kernel_approximation.Nystroem"
_ROWS = 2048  # at a time: the kernel values of a batch stay small beside the data
_JITTER = 1e-4  # added to the kernel's diagonal of ones, so that float32 can factor it
_PAIRED = 1000  # landmarks whose distances give the median
_SPARE = 10  # random vectors beyond the principal axes that are sought with them


class RBFNystroem(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Features whose dot products approximate the Gaussian kernel exp(-|a - b|^2 / (2 sigma^2)).

    Rows are compared with landmarks, a random sample of the training rows, and the comparisons are decorrelated with
    the Cholesky factor of the landmarks' own kernel. scikit-learn's Nystroem does the same for any kernel; this one
    is for thousands of landmarks, where a singular value decomposition in double precision would take longer than
    everything else.

    The array type of X decides where it runs, and the features come out there. What was fitted lies on the host: a map
    fitted on a GPU works without one, and the same `random_state` draws the same landmarks.

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
    N. Halko, P. Martinsson and J. Tropp, "Finding structure with randomness", SIAM Review 53, 2011 (principal axes).

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
            NumPy, CuPy, torch or another array-API array, or a data frame. float32 and float64 are read as they are,
            other numbers as float32.
        y : ignored

        Returns
        -------
        self : RBFNystroem

        Raises
        ------
        ValueError
            If X holds NaN, infinity or numbers whose distances would leave its dtype, or a parameter is out of range.
        TypeError
            If X is sparse.
        """
        n_components = positive_int(self.n_components, "n_components")
        bandwidth = positive_number(self.bandwidth, "bandwidth")
        X = read_rows(self, X, reset=True, takes_sparse=_TAKES_SPARSE, others="float32")
        rng = check_random_state(self.random_state)
        chosen = rng.permutation(X.shape[0])[:n_components]
        with device_of(X):
            view, landmarks = self._landmarks(X, chosen, rng)
            self.gamma_ = 1 / (2 * bandwidth**2 * _median_squared_distance(landmarks))
            factor = _factor(landmarks, self.gamma_)
        self.center_, self.scale_, self.axes_ = map(to_numpy, view)
        self.components_, self.normalization_ = to_numpy(landmarks), to_numpy(factor)
        return self

    def _landmarks(self, X, chosen, rng):
        """Return the (centre, scale, axes) in which rows are compared, and the chosen rows as seen there."""
        for rows in _batches(chosen):
            _check_size(_take(X, rows))
        center = _mean(X, chosen)
        scale, axes = _deviation(X, chosen, center) if self.standardize else None, None
        if self.n_dims is not None:
            few = chosen[: max(_ROWS, 2 * positive_int(self.n_dims, "n_dims"))]
            axes = _principal_axes(_project(_take(X, few), center, scale, None), self.n_dims, rng)
        view = center, scale, axes
        return view, array_namespace(X).concat([_project(_take(X, rows), *view) for rows in _batches(chosen)])

    def transform(self, X):
        """Map rows.

        Parameters
        ----------
        X : array of shape (n, n_features)
            In any kind of array.

        Returns
        -------
        features : array of shape (n, n_components)
            In the array type of X; float32, or float64 if X is.

        Raises
        ------
        ValueError
            If X holds NaN, infinity or numbers whose distances would leave its dtype.
        """
        check_is_fitted(self)
        X = read_rows(self, X, reset=False, takes_sparse=_TAKES_SPARSE, others="float32")
        with device_of(X):
            *view, components, normalization = (a if a is None else beside(X, a, X.dtype) for a in self._fitted())
            out = array_namespace(X).empty((X.shape[0], components.shape[0]), dtype=X.dtype, device=device(X))
            for rows in gen_batches(X.shape[0], _ROWS):
                kernel = _rbf(_project(X[rows, :], *view), components, self.gamma_)
                out[rows, :] = solve_triangular(normalization, kernel.T, overwrite_b=True).T
        return out

    def _fitted(self):
        return self.center_, self.scale_, self.axes_, self.components_, self.normalization_

    @property
    def _n_features_out(self):
        return len(self.components_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32", "float64"]
        return tags


def _project(X, center, scale, axes):
    """Return rows less the centre, divided by the scale, in terms of the axes."""
    with np.errstate(over="ignore"):
        X = X - center
        if scale is not None:
            X /= scale
    _check_size(X)
    return X if axes is None else X @ axes


def _check_size(X):
    """Raise a ValueError where the squared distance of such rows could be infinite."""
    xp = array_namespace(X)
    largest = max(float(xp.max(X)), -float(xp.min(X)))
    bound = math.sqrt(float(xp.finfo(X.dtype).max) / X.shape[1]) / 8
    if largest > bound:
        raise ValueError(
            f"X holds numbers so large, or so far from those of fit, that their distances leave {X.dtype}: "
            f"{largest:.3g}; expected at most {bound:.3g}. Scale or clip the features, or pass float64."
        )


def _batches(chosen):
    """Cut row numbers into batches: thousands of rows with tens of thousands of columns are not copied at once."""
    return np.array_split(chosen, -(-len(chosen) // _ROWS))


def _take(X, rows):
    return array_namespace(X).take(X, beside(X, rows), axis=0)


def _mean(X, chosen):
    """Return the mean of some rows."""
    xp = array_namespace(X)
    total = sum(xp.sum(_take(X, rows), axis=0, dtype=xp.float64) for rows in _batches(chosen))
    return xp.astype(total / len(chosen), X.dtype)


def _deviation(X, chosen, center):
    """Return the standard deviation of some rows; 1 for a deviation of 0."""
    xp = array_namespace(X)
    squares = sum(xp.sum((_take(X, rows) - center) ** 2, axis=0, dtype=xp.float64) for rows in _batches(chosen))
    deviation, rounding = xp.sqrt(squares / len(chosen)), 10 * float(xp.finfo(X.dtype).eps) * xp.abs(center)
    return xp.astype(xp.where(deviation > rounding, deviation, 1.0), X.dtype)


def _principal_axes(rows, n_dims, rng):
    """Return the first principal axes of centred rows as columns, or None where all of them would be asked for.

    With one power iteration of random vectors, which are NumPy's wherever the rows lie.
    """
    if n_dims >= min(rows.shape):
        return None
    xp, wide = array_namespace(rows), rows.shape[0] < rows.shape[1]
    tall = rows.T if wide else rows
    sketch = beside(rows, rng.normal(size=(tall.shape[1], n_dims + _SPARE)), rows.dtype)
    basis = xp.linalg.qr(tall @ (tall.T @ (tall @ sketch)))[0]
    within = xp.astype(basis.T @ tall, xp.float64)
    directions = xp.linalg.eigh(within @ within.T)[1]  # from the least variance to the largest
    directions = xp.flip(directions, axis=1)[:, :n_dims]
    axes = basis @ xp.astype(directions, rows.dtype) if wide else xp.linalg.qr(within.T @ directions)[0]
    return xp.astype(axes, rows.dtype)


def _squared_distances(a, b):
    """Return the squared distances of the rows of `a` from those of `b`."""
    xp = array_namespace(a)
    distances = a @ b.T
    distances *= -2
    distances += xp.sum(a * a, axis=1)[:, None]
    distances += xp.sum(b * b, axis=1)
    distances[distances < 0] = 0
    return distances


def _rbf(a, b, gamma):
    kernel = _squared_distances(a, b)
    kernel *= -gamma
    return array_namespace(a).exp(kernel)


def _factor(landmarks, gamma):
    """Return the Cholesky factor of the landmarks' kernel."""
    xp = array_namespace(landmarks)
    try:
        factor = cholesky(_jittered(landmarks, gamma))
    except LinAlgError:  # Rows near to each other and far from the others: float32 hasn't the digits.
        factor = cholesky(_jittered(xp.astype(landmarks, xp.float64), gamma))
    return xp.astype(factor, landmarks.dtype)


def _jittered(landmarks, gamma):
    """Return the landmarks' kernel, float64."""
    xp = array_namespace(landmarks)
    kernel = xp.astype(_rbf(landmarks, landmarks, gamma), xp.float64, copy=False)
    diagonal_view(kernel)[:] = 1 + _JITTER
    return kernel


def _median_squared_distance(landmarks):
    """Return the median over pairs of the first ones, or 1 where they do not differ."""
    some = landmarks[: min(_PAIRED, landmarks.shape[0]), :]
    distances = to_numpy(_squared_distances(some, some))[np.triu_indices(some.shape[0], 1)]
    return float(np.median(distances)) if distances.size and np.median(distances) > 0 else 1.0
