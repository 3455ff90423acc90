"""Least-squares classification whose regularisation is chosen by leave-one-out, in one pass over many rows."""

from functools import partial
from numbers import Real
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.externals.array_api_compat import array_namespace
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state, column_or_1d, compute_sample_weight, gen_batches
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted

from ._array_api import beside, read_labelled_rows, read_rows, to_numpy
from ._arrays import device_of
from ._images import positive_int
from ._linalg import cholesky, diagonal_view, solve_triangular

_TAKES_SPARSE = "sklearn.linear_model.RidgeClassifier"
_ALPHAS = tuple(10.0**k for k in np.arange(-5, 3.5, 0.5))
_ROWS = 4096  # at a time


class RidgeLOOClassifier(ClassifierMixin, BaseEstimator):
    """Linear classifier by least squares, one class against the rest, its `alpha` chosen by leave-one-out.

    Minimises ``|Y - X W - b|^2 + alpha * s * |W|^2``, where Y holds 1 for a row's class and -1 for the others, and s is
    the mean squared length of the centred rows, so that an alpha means the same whatever the features' scale. The
    errors of models fitted without one row follow from the fit with all rows; they choose alpha, and their spread
    gives the probabilities. scikit-learn's RidgeClassifierCV does the same with decompositions that take too long for
    tens of thousands of rows and thousands of features; here a value of alpha costs one Cholesky factorisation.

    The array type of X decides where that runs. Labels, and what was fitted, lie on the host: a model fitted on a GPU
    predicts without one.

    Parameters
    ----------
    alphas : sequence of float, default=(1e-5, ..., 1e3)
        Candidates, half a decade apart by default. Tried from the middle in the direction of smaller error.
    class_weight : dict or "balanced", default=None
        Weights of the classes; "balanced" gives each class the same total weight.
    max_left_out : int, default=4096
        Rows that are left out, a random sample where there are more.
    random_state : int, RandomState or None, default=None
        Draws that sample.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels; for an indicator matrix the numbers of its columns.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
    intercept_ : ndarray of shape (n_classes,) or (1,)
    alpha_ : float
        The alpha chosen.
    loo_error_ : float
        Its mean squared leave-one-out error.
    scale_ : float
        What `predict_proba` multiplies decision values with.

    See Also
    --------
    sklearn.linear_model.RidgeClassifierCV : For few rows, or scores other than the squared error.

    References
    ----------
    R. Rifkin, G. Yeo and T. Poggio, "Regularized least-squares classification", 2003.
    C. Guo et al., "On calibration of modern neural networks", ICML 2017 (one scale for all probabilities).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from classic_cls import RidgeLOOClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> RidgeLOOClassifier(random_state=0).fit(X[::2], y[::2]).score(X[1::2], y[1::2]) > 0.9
    True
    """

    def __init__(self, alphas=_ALPHAS, *, class_weight=None, max_left_out=4096, random_state=None):
        self.alphas = alphas
        self.class_weight = class_weight
        self.max_left_out = max_left_out
        self.random_state = random_state

    def fit(self, X, y):
        """Fit the weights and choose alpha.

        Parameters
        ----------
        X : array of shape (n, n_features)
            NumPy, CuPy, torch or another array-API array, or a data frame. float32 and float64 are read as they are,
            other numbers as float32.
        y : array of shape (n,), or indicator matrix of shape (n, n_labels)
            Labels, numbers or strings; an indicator matrix where a row may have several or none.

        Returns
        -------
        self : RidgeLOOClassifier

        Raises
        ------
        ValueError
            If X holds NaN or infinity, y has one class only, or an alpha is not positive.
        TypeError
            If X is sparse.
        """
        X, y = read_labelled_rows(self, X, y, takes_sparse=_TAKES_SPARSE, others="float32", multi_output=True)
        with device_of(X):
            return self._fit(y, to_numpy(X[:1, :1]).dtype, partial(_problem, X))

    def _fit(self, y, dtype, make_problem):
        """Fit to the problem that ``make_problem(targets, weights, rows to leave out)`` returns."""
        alphas, max_left_out = _checked_alphas(self.alphas), positive_int(self.max_left_out, "max_left_out")
        y = column_or_1d(y, warn=True) if y.shape[1:] in ((), (1,)) else y
        Y = self._targets(y)
        weights = compute_sample_weight(self.class_weight, y) if self.class_weight is not None else np.ones(len(Y))
        chosen = np.sort(check_random_state(self.random_state).permutation(len(Y))[:max_left_out])
        problem = make_problem(Y, weights.astype(dtype), chosen)
        best = _search(problem.solve, alphas)
        if best.weights is None:
            raise ValueError(f"alphas={self.alphas!r} are too small for features so dependent in {dtype}; add larger.")
        self.alpha_, self.loo_error_ = best.alpha, best.error
        self.coef_ = np.ascontiguousarray(best.weights.T.astype(dtype))
        self.intercept_ = (problem.target_mean - problem.mean @ best.weights).astype(dtype)
        self.scale_ = _probability_scale(best.left_out, problem.left_out.targets, self._multilabel)
        return self

    def _targets(self, y):
        """Return 1 and -1, one column per class (one for two classes), and remember the classes."""
        check_classification_targets(y)
        self._multilabel = type_of_target(y) == "multilabel-indicator"
        self._binarizer = LabelBinarizer(neg_label=-1).fit(y)
        self.classes_ = self._binarizer.classes_
        if len(self.classes_) < 2 and not self._multilabel:
            raise ValueError(f"y has one class only, {self.classes_.tolist()}; expected two or more.")
        return self._binarizer.transform(y).astype(np.float64)

    def decision_function(self, X):
        """Return how far each row is on the side of each class.

        Parameters
        ----------
        X : array of shape (n, n_features)
            In any kind of array.

        Returns
        -------
        scores : array of shape (n, n_classes), or (n,) for two classes
            About 1 for the class and -1 for the others. In the array type and precision of X.
        """
        check_is_fitted(self)
        X = read_rows(self, X, reset=False, takes_sparse=_TAKES_SPARSE, others="float32")
        with device_of(X):
            scores = X @ beside(X, self.coef_, X.dtype).T + beside(X, self.intercept_, X.dtype)
        return scores[:, 0] if scores.shape[1] == 1 and not self._multilabel else scores

    def predict(self, X):
        """Return the class of each row, or 0 and 1 for each label of an indicator matrix: on the host whatever X is."""
        scores = to_numpy(self.decision_function(X))
        if self._multilabel:
            return (scores > 0).astype(int)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    def predict_proba(self, X):
        """Return probabilities of shape (n, n_classes), from the scale that suits the rows left out best.

        In the array type and precision of X, as `decision_function`; :class:`HostPredictions` brings them to the host.
        """
        scores = self.decision_function(X) * self.scale_
        if self._multilabel:
            return _expit(2 * scores)
        return _softmax(array_namespace(scores).stack([-scores, scores], axis=1) if scores.ndim == 1 else scores)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class _Solution(NamedTuple):
    alpha: float
    weights: np.ndarray | None
    left_out: np.ndarray | None  # decision values of the rows left out
    error: float


class _LeftOut(NamedTuple):
    rows: np.ndarray  # centred as the normal equations are
    targets: np.ndarray
    weights: np.ndarray
    shares: np.ndarray  # of the sum of all weights


class _Problem:
    """Normal equations of the centred, weighted problem, in double precision, and the rows to leave out."""

    def __init__(self, mean, target_mean, gram, moments, n_rows, left_out, rotation=None):
        self.mean, self.target_mean, self.gram, self.moments = mean, target_mean, gram, moments
        xp = array_namespace(gram)
        self.left_out = left_out._replace(rows=xp.astype(left_out.rows, xp.float64))
        self.rotation = rotation
        self.scale = float(xp.linalg.trace(gram)) / n_rows
        if self.scale <= (10 * np.finfo(mean.dtype).eps) ** 2 * (mean @ mean):  # no more than rounding
            self.scale = 1.0

    def solve(self, alpha):
        """Return the solution for one alpha; of infinite error where alpha is too small for one."""
        try:
            factor = cholesky(self._matrix(alpha))
        except LinAlgError:  # features depend on each other, and alpha is below the rounding of their products
            return _Solution(alpha, None, None, np.inf)
        weights = solve_triangular(factor, solve_triangular(factor, self.moments), transposed=True, overwrite_b=True)
        rows, targets, row_weights, shares = self.left_out
        predicted, lengths = to_numpy(rows @ weights), to_numpy(_square_lengths(solve_triangular(factor, rows.T)))
        leverages = row_weights[:, None] * lengths[:, None] + shares[:, None]
        residuals = (targets - self.target_mean - predicted) / np.maximum(1 - leverages, 1e-6)
        error = float(np.average((residuals**2).mean(1), weights=row_weights))
        weights = to_numpy(weights if self.rotation is None else self.rotation @ weights)
        return _Solution(alpha, weights, targets - residuals, error)

    def _matrix(self, alpha):
        matrix = array_namespace(self.gram).asarray(self.gram, copy=True)
        diagonal = diagonal_view(matrix)
        diagonal += alpha * self.scale
        return matrix


def _square_lengths(columns):
    """Return the squared lengths of columns, which are overwritten."""
    columns *= columns
    return array_namespace(columns).sum(columns, axis=0)


def _problem(X, Y, weights, chosen):
    """Return the problem for rows of any kind; targets and weights are NumPy's."""
    xp, share = array_namespace(X), weights / weights.sum()
    mean, target_mean = beside(X, share) @ X, share @ Y
    rotation, X, center = _narrowed(X, mean)
    gram, moments = _normal_equations(X, beside(X, Y - target_mean), center, beside(X, weights))
    left_out = _LeftOut(xp.take(X, beside(X, chosen), axis=0) - center, Y[chosen], weights[chosen], share[chosen])
    return _Problem(to_numpy(mean), target_mean, gram, moments, X.shape[0], left_out, rotation)


def _narrowed(X, mean):
    """Return (Q, X Q, center): rows of fewer numbers with the same dot products, where rows are fewer than columns."""
    xp = array_namespace(X)
    if X.shape[0] >= X.shape[1]:
        return None, X, mean
    rotation, rotated = xp.linalg.qr(xp.astype((X - mean).T, xp.float64))
    return rotation, rotated.T, xp.zeros_like(rotated[0, :])


def _normal_equations(X, Y, center, weights):
    xp, gram, moments = array_namespace(X), 0, 0
    for rows in gen_batches(X.shape[0], _ROWS):
        centered = xp.astype(X[rows, :] - center, X.dtype, copy=False)
        weighted = centered * weights[rows, None]
        gram = gram + xp.astype(weighted.T @ centered, xp.float64)
        moments = moments + xp.astype(weighted.T, xp.float64) @ Y[rows, :]
    return gram, moments


def _expit(scores):
    """Return 1 / (1 + exp(-scores)), without overflow."""
    xp, small = array_namespace(scores), array_namespace(scores).exp(-abs(scores))
    return xp.where(scores > 0, 1.0, small) / (1 + small)


def _softmax(scores):
    """Return the rows' exponentials, divided by their sum."""
    xp = array_namespace(scores)
    shares = xp.exp(scores - xp.max(scores, axis=1, keepdims=True))
    return shares / xp.sum(shares, axis=1, keepdims=True)


def _search(solve, alphas):
    """Return the solution of least error, going from the middle in the direction in which it falls."""
    start = len(alphas) // 2
    best = middle = solve(alphas[start])
    for candidates in (alphas[start + 1 :], alphas[:start][::-1]):
        for alpha in candidates:
            solution = solve(alpha)
            if solution.error >= best.error:
                break
            best = solution
        if best is not middle:
            break
    return best


def _checked_alphas(alphas):
    values = [alphas] if np.ndim(alphas) == 0 else list(alphas)
    if not values or not all(isinstance(alpha, Real) and 0 < alpha < np.inf for alpha in values):
        raise ValueError(f"alphas={alphas!r}; expected positive numbers.")
    return sorted(float(alpha) for alpha in values)


def _probability_scale(scores, targets, multilabel):
    """Return the factor on decision values under which the targets are most likely."""
    if multilabel or targets.shape[1] == 1:
        scores, targets = (np.column_stack([-a.ravel(), a.ravel()]) for a in (scores, targets))
    truth = targets > 0

    def loss(log_scale):
        return -log_softmax(np.exp(log_scale) * scores, axis=1)[truth].mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 5), method="bounded").x))
