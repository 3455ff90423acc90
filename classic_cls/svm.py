"""Linear support vector machines in array code: one Newton-like descent for all classes, on the CPU or a GPU."""

import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.externals.array_api_compat import array_namespace, device
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ._array_api import beside, read_labelled_rows, read_rows, to_numpy
from ._arrays import device_of

_TAKES_SPARSE = "sklearn.svm.LinearSVC"
_LARGEST_MATRIX = 8192  # rows of the largest preconditioner: 256 MiB in float32, and seconds to invert
_LARGEST_STACK = 2**27  # numbers in the preconditioners of all classes together: 1 GiB in float64
_CHUNK = 2**23  # numbers of X that are copied at a time, or an eighth of it: it may be larger than memory
_STEP = 1e-5  # of the line search, relative; Newton's next one would be the square


class LinearSVC(ClassifierMixin, BaseEstimator):
    """Linear support vector classifier with the squared hinge loss, for NumPy arrays and arrays on a GPU.

    The parameters, and the problem that is solved, are those of :class:`sklearn.svm.LinearSVC` with its default loss
    and penalty: per class, against all others, the minimum over w and b of::

        0.5 * (w @ w + b ** 2) + sum_i C_i * max(0, 1 - y_i * (w @ x_i + b)) ** 2

    Two classes make one problem. All classes are solved together, so that a pass over X is one matrix product; the
    array type of X decides where it runs.

    Parameters
    ----------
    C : float, default=1.0
        Weight of the loss against the regularisation; positive.
    tol : float, default=1e-4
        A class is done once its duality gap, which its objective cannot fall by more than, is below `tol` times the
        objective; or, where Newton steps are under way, below 100 `tol` while the next one promises a tenth of `tol`.
    class_weight : dict or "balanced", default=None
        Factor on C for each class label; labels not in the dict have 1. "balanced" is ``n / (n_classes * count)``.
        With more than two classes a class's factor applies to its own samples in its own problem, as in LIBLINEAR.
    max_iter : int, default=1000
        Most steps per class.

    Attributes
    ----------
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features), float64
        Weights of the features, one row per problem; one row for two classes.
    intercept_ : ndarray of shape (1,) or (n_classes,), float64
        The intercepts b.
    classes_ : ndarray of shape (n_classes,)
        The class labels, sorted.
    n_iter_ : int
        Steps taken for the slowest class.
    n_features_in_ : int
        Features seen in ``fit``.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X was a data frame with names.

    See Also
    --------
    sklearn.svm.LinearSVC : Other losses and penalties, and sparse X.

    Notes
    -----
    A preconditioned nonlinear conjugate gradient method with exact line search. The loss is quadratic between kinks,
    so the Hessian of all samples, one matrix for all classes, is a preconditioner that leaves a dozen steps; from zero,
    the first step lands on the ridge regression. Where classes are still open after a while, each gets the Hessian of
    its own active samples, which makes the steps Newton's. With fewer samples than features all of this happens on the
    kernel matrix ``X @ X.T``. X is read in its own precision, float32 or float64, and for classes that stay open in
    float64, a few rows at a time.

    Beside X, ``fit`` needs two to three matrices of `n_features` (or n, if that is less) rows and columns, and one more
    per class where classes stay open and these take no more than 1 GiB.

    References
    ----------
    S. S. Keerthi and D. DeCoste, "A modified finite Newton method for fast solution of large scale linear SVMs",
    JMLR 6, 2005.

    O. Chapelle, "Training a support vector machine in the primal", Neural Computation 19, 2007.

    C.-J. Lin, R. C. Weng and S. S. Keerthi, "Trust region Newton method for logistic regression", JMLR 9, 2008.

    R.-E. Fan et al., "LIBLINEAR: a library for large linear classification", JMLR 9, 2008.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from classic_cls import LinearSVC
    >>> X, y = load_digits(return_X_y=True)
    >>> round(LinearSVC(C=0.01).fit(X[:1000] / 16, y[:1000]).score(X[1000:] / 16, y[1000:]), 2)
    0.91
    """

    def __init__(self, C=1.0, *, tol=1e-4, class_weight=None, max_iter=1000):
        self.C = C
        self.tol = tol
        self.class_weight = class_weight
        self.max_iter = max_iter

    def fit(self, X, y, sample_weight=None):
        """Find the hyperplanes.

        Parameters
        ----------
        X : array of shape (n, n_features)
            NumPy, CuPy, torch or another array-API array, or a data frame. float32 and float64 are read as they are,
            other numbers as float64.
        y : array of shape (n,)
            Class labels: numbers or strings.
        sample_weight : array of shape (n,), default=None
            Factors on C, not negative. A factor of 2 is the same as the sample twice.

        Returns
        -------
        self : LinearSVC

        Raises
        ------
        ValueError
            If a parameter is out of range, X or y holds NaN or infinity, or y holds one class only.
        TypeError
            If X is sparse.

        Warns
        -----
        ConvergenceWarning
            If `max_iter` steps were not enough.
        """
        self._check_parameters()
        X, y = read_labelled_rows(self, X, y, takes_sparse=_TAKES_SPARSE)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds one class only, {self.classes_.tolist()}; a classifier needs at least 2 classes."
            )
        weight = _check_sample_weight(to_numpy(sample_weight), labels, dtype=np.float64, ensure_non_negative=True)
        factors = compute_class_weight(self.class_weight, classes=self.classes_, y=y, sample_weight=weight)
        with device_of(X):
            space = _space(X)
            signs, costs = _one_vs_rest(*(space.doubles(a) for a in (labels, self.C * weight, factors)))
            solution, self.n_iter_, converged = _minimise(space, signs, costs, self.tol, self.max_iter)
            solution = to_numpy(space.hyperplanes(solution))
        if not converged:
            warnings.warn(f"max_iter={self.max_iter} steps were not enough.", ConvergenceWarning, stacklevel=2)
        self.coef_, self.intercept_ = solution[:-1].T.copy(), solution[-1].copy()
        return self

    def decision_function(self, X):
        """Return ``w @ x + b`` of every sample and problem.

        Parameters
        ----------
        X : array of shape (n, n_features)
            Samples, in any kind of array.

        Returns
        -------
        scores : array of shape (n,) for two classes, else (n, n_classes)
            In the array type and precision of X. Of two classes, a positive score means ``classes_[1]``.
        """
        check_is_fitted(self)
        X = read_rows(self, X, reset=False, takes_sparse=_TAKES_SPARSE)
        with device_of(X):
            coef, intercept = (beside(X, a, X.dtype) for a in (self.coef_.T, self.intercept_))
            scores = X @ coef + intercept
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X):
        """Return the class of every sample.

        Parameters
        ----------
        X : array of shape (n, n_features)
            Samples, in any kind of array.

        Returns
        -------
        labels : ndarray of shape (n,)
            Out of ``classes_``, on the host whatever X is.
        """
        scores = to_numpy(self.decision_function(X))
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]

    def _check_parameters(self):
        for name in ("C", "tol"):
            value = getattr(self, name)
            if not isinstance(value, Real) or isinstance(value, bool) or not 0 < value < np.inf:
                raise ValueError(f"{name}={value!r}; expected a positive number.")
        if not isinstance(self.max_iter, Integral) or isinstance(self.max_iter, bool) or self.max_iter < 1:
            raise ValueError(f"max_iter={self.max_iter!r}; expected a positive int.")


# --- The problem ------------------------------------------------------------------------------------------------------


def _one_vs_rest(labels, costs, factors):
    """Return signs (-1 or 1) and costs of all samples in all problems, both (n, n_problems) float64."""
    xp, n_classes = array_namespace(labels), factors.shape[0]
    own = labels[:, None] == xp.arange(n_classes, dtype=xp.float64, device=device(labels))
    signs = xp.astype(own, xp.float64) * 2 - 1
    if n_classes == 2:
        return signs[:, 1:], (costs * xp.sum(xp.where(own, factors, 0.0), axis=1))[:, None]
    return signs, costs[:, None] * xp.where(own, factors, 1.0)


def _space(X):
    """Choose where to look for the hyperplanes: among weights of the features, or of the samples if there are fewer."""
    return _SampleSpace(X) if X.shape[0] < min(X.shape[1], _LARGEST_MATRIX) else _FeatureSpace(X)


def _chunks(size, width):
    """Return slices of so many rows or columns, of `width` numbers each."""
    step = max(1, min(_CHUNK // width, size // 8))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


class _FeatureSpace:
    """Hyperplanes as their weights: the features' and, in the last row, the intercept."""

    def __init__(self, X):
        self.X, self.xp = X, array_namespace(X)
        self.size = X.shape[1] + 1
        self.square_sum = float(sum(self.xp.sum(X[chunk, :] ** 2) for chunk in _chunks(*X.shape)))
        self._work_in(X.dtype, [slice(0, X.shape[0])])

    def sharpen(self):
        """Compute products with X in float64 from here on, a chunk at a time."""
        self._work_in(self.xp.float64, _chunks(*self.X.shape))

    def _work_in(self, dtype, chunks):
        self.dtype, self.chunks = dtype, chunks
        self.rounding = (4 * float(self.xp.finfo(dtype).eps)) ** 2 * self.square_sum

    def doubles(self, a):
        return beside(self.X, a, self.xp.float64)

    def scores(self, weights):
        """Return the hyperplanes' values at all samples, (n, n_problems) float64."""
        a = self.xp.astype(weights[:-1, :], self.dtype)
        products = self.xp.concat([self._rows(chunk) @ a for chunk in self.chunks])
        return self.xp.astype(products, self.xp.float64) + weights[-1:, :]

    def gradient(self, weights, residuals):
        """Return ``weights - X.T @ residuals``."""
        a = self.xp.astype(residuals, self.dtype)
        product = sum(self.xp.astype(self._rows(chunk).T @ a[chunk, :], self.xp.float64) for chunk in self.chunks)
        return weights - self.xp.concat([product, self.xp.sum(residuals, axis=0, keepdims=True)])

    def _rows(self, chunk):
        return self.xp.astype(self.X[chunk, :], self.dtype, copy=False)

    def inner(self, a, b, scores_of_b):
        return self.xp.sum(a * b, axis=0)

    def square(self, a):
        return self.xp.sum(a * a, axis=0)

    def inverse_hessian(self, curvature):
        """Return the inverse of ``I + X.T @ diag(curvature) @ X``, about; of its diagonal if that is too large.

        The matrix is scaled to a unit diagonal, to which the size of its rounding is added: then float32 is enough.
        """
        xp, dtype = self.xp, self.dtype
        hessian = self._hessian(curvature)
        scale = 1 / xp.sqrt(xp.linalg.diagonal(hessian) if hessian.ndim == 2 else hessian)
        if hessian.ndim == 1:
            return scale**2
        hessian = hessian * scale * scale[:, None]
        hessian += xp.eye(self.size, dtype=dtype, device=device(self.X)) * (self.size * xp.finfo(dtype).eps)
        return xp.linalg.inv(hessian) * scale * scale[:, None]

    def _hessian(self, curvature):
        xp, full = self.xp, self.size <= _LARGEST_MATRIX
        total = xp.eye(self.size, dtype=self.dtype, device=device(self.X)) if full else 1
        (active,) = xp.nonzero(curvature)
        for chunk in _chunks(active.shape[0], self.size):
            root = xp.astype(xp.sqrt(xp.take(curvature, active[chunk])), self.dtype)[:, None]
            rows = xp.astype(xp.take(self.X, active[chunk], axis=0), self.dtype, copy=False)
            rows = xp.concat([rows * root, root], axis=1)
            total = total + (rows.T @ rows if full else xp.sum(rows * rows, axis=0))
        return total

    def hyperplanes(self, weights):
        return weights


class _SampleSpace:
    """Hyperplanes as combinations of samples: ``weights = X.T @ combination``, so that ``X @ X.T`` is all it takes.

    The kernel matrix is float64: it squares the ratio of the features' scales.
    """

    def __init__(self, X):
        self.X, self.xp = X, array_namespace(X)
        self.size = X.shape[0]
        self.kernel = self.xp.ones((self.size, self.size), dtype=self.xp.float64, device=device(X))
        for chunk in _chunks(*X.shape[::-1]):
            columns = self.xp.astype(X[:, chunk], self.xp.float64)
            self.kernel += columns @ columns.T
        eps = float(self.xp.finfo(self.xp.float64).eps)
        self.rounding = (4 * eps) ** 2 * float(self.xp.sum(self.xp.linalg.diagonal(self.kernel)))

    def sharpen(self):
        """Nothing to do: all products are float64."""

    def doubles(self, a):
        return beside(self.X, a, self.xp.float64)

    def scores(self, combination):
        return self.kernel @ combination

    def gradient(self, combination, residuals):
        return combination - residuals

    def inner(self, a, b, scores_of_b):
        return self.xp.sum(a * scores_of_b, axis=0)

    def square(self, a):
        return self.inner(a, a, self.scores(a))

    def inverse_hessian(self, curvature):
        """Return the inverse of ``I + diag(curvature) @ X @ X.T``, which is the Hessian's on combinations."""
        eye = self.xp.eye(self.size, dtype=self.xp.float64, device=device(self.X))
        return self.xp.linalg.inv(eye + curvature[:, None] * self.kernel)

    def hyperplanes(self, combination):
        X, xp = self.X, self.xp
        parts = [xp.astype(X[:, chunk], xp.float64).T @ combination for chunk in _chunks(*X.shape[::-1])]
        return xp.concat([*parts, xp.sum(combination, axis=0, keepdims=True)])


# --- The descent ------------------------------------------------------------------------------------------------------


def _minimise(space, signs, costs, tol, max_iter):
    """Return the solutions (size, n_problems), the steps of the slowest problem, and whether all converged."""
    descent = _Descent(space, signs, costs)
    steps = 0
    descent.turn()
    descent.release(descent.done(tol))
    while descent.open and steps < max_iter:
        descent.move()
        steps += 1
        if descent.lost():
            descent.look_around()
        descent.turn()
        descent.release(descent.done(tol))
    return descent.solution(), max(steps, 1), not descent.open


class _Descent:
    """Preconditioned conjugate gradients (Polak-Ribiere, restarting) on all open problems at once.

    Every array has a column per open problem. `point` and `direction` are in the space's coordinates, with their scores
    at the samples beside them, so that a step needs two passes over X: for the gradient, and for the scores.
    """

    _COLUMNS = ("signs", "costs", "point", "scores", "hinge", "gradient", "fall", "direction", "along")

    def __init__(self, space, signs, costs):
        self.space, self.xp, self.signs, self.costs = space, space.xp, signs, costs
        self.open, self.closed = list(range(signs.shape[1])), {}
        self.point = space.doubles(np.zeros((space.size, signs.shape[1])))
        self.gradient, self.direction = self.point, self.point
        self.along = self.xp.zeros_like(signs)
        self._arrive(self.point, self.along)
        self.fall = self.xp.ones_like(signs[0, :])
        self.inverse = space.inverse_hessian(2 * self.xp.mean(costs, axis=1))
        affordable = self.inverse.ndim == 2 and len(self.open) * space.size**2 <= _LARGEST_STACK
        # By then the steps have cost about as much as a Hessian for every problem will.
        self.patience = max(10, space.size // 25) if affordable else np.inf
        self.steps, self.looks = 0, 0

    def turn(self):
        """Find the gradient at `point` and the next direction."""
        gradient = self.space.gradient(self.point, 2 * self.costs * self.signs * self.hinge)
        descent = self._precondition(gradient)
        along = self.space.scores(descent)
        change = self.space.inner(gradient - self.gradient, descent, along)
        keep = self.xp.where(change > 0, change / self.fall, 0.0)
        self.direction, self.along = keep * self.direction - descent, keep * self.along - along
        self.gradient, self.fall = gradient, self.space.inner(gradient, descent, along)

    def done(self, tol):
        """Return where the duality gap proves the optimum, or where it is small and the Hessians promise nothing more.

        A gap that is all rounding counts as small.
        """
        residuals = self.xp.sum((2 * self.costs * self.hinge) ** 2, axis=0)
        figures = self.objective(), self.fall, self.space.square(self.gradient), residuals
        objective, fall, square, residuals = to_numpy(self.xp.stack(figures))  # at once: a GPU makes the host wait
        small, promise, gap, rounding = tol * objective, fall / 2, square / 2, self.space.rounding * residuals / 2
        newton = (gap <= 100 * small) & (promise <= small / 10) & (self.looks > 0)
        return (gap <= small) | newton | ((gap <= rounding) & (promise <= small / 100))

    def objective(self):
        loss = self.xp.sum(self.costs * self.hinge**2, axis=0)
        return self.space.inner(self.point, self.point, self.scores) / 2 + loss

    def move(self):
        """Go to the lowest point along the direction."""
        step = self._line_search()
        self._arrive(self.point + step * self.direction, self.scores + step * self.along)
        self.steps += 1

    def _arrive(self, point, scores):
        self.point, self.scores = point, scores
        self.hinge = _positive(1 - self.signs * scores)

    def lost(self):
        return self.steps >= self.patience

    def look_around(self):
        """Precondition each problem with the Hessian of its own active samples; from the second time on in float64."""
        self.looks += 1
        if self.looks == 2:
            self.space.sharpen()
            self._arrive(self.point, self.space.scores(self.point))
        curvature = self.xp.where(self.hinge > 0, 2 * self.costs, 0.0)
        problems = range(len(self.open))
        self.inverse = self.xp.stack([self.space.inverse_hessian(curvature[:, k]) for k in problems])
        self.direction, self.along = 0 * self.direction, 0 * self.along
        self.steps, self.patience = 0, max(1, self.space.size // 50)

    def release(self, done):
        """Set aside the problems that are done."""
        if not done.any():
            return
        self.closed |= {self.open[k]: self.point[:, int(k)] for k in np.flatnonzero(done)}
        self.open = [problem for problem, over in zip(self.open, done, strict=True) if not over]
        left = self.xp.asarray(np.flatnonzero(~done), device=device(self.signs))
        for name in self._COLUMNS:
            column = getattr(self, name)
            setattr(self, name, self.xp.take(column, left, axis=column.ndim - 1))
        if self.inverse.ndim == 3:
            self.inverse = self.xp.take(self.inverse, left, axis=0)

    def solution(self):
        points = self.closed | {problem: self.point[:, k] for k, problem in enumerate(self.open)}
        return self.xp.stack([points[problem] for problem in sorted(points)], axis=1)

    def _precondition(self, gradient):
        a = self.xp.astype(gradient, self.inverse.dtype)
        if self.inverse.ndim == 1:
            a = self.inverse[:, None] * a
        elif self.inverse.ndim == 2:
            a = self.inverse @ a
        else:
            a = (self.inverse @ a.T[:, :, None])[:, :, 0].T
        return self.xp.astype(a, self.xp.float64)

    def _line_search(self):
        """Return the steps to the zeros of the slopes: Newton's method, kept between bounds by bisection."""
        inner, slopes = self.space.inner, self._slopes()
        linear, square = (to_numpy(inner(a, self.direction, self.along)) for a in (self.point, self.direction))
        step, low, high = np.ones_like(linear), np.zeros_like(linear), np.full_like(linear, np.inf)
        for _ in range(60):
            slope, curvature = slopes(step)
            slope, curvature = slope + linear + step * square, curvature + square
            low, high = np.where(slope < 0, step, low), np.where(slope < 0, high, step)
            newton = step - slope / curvature
            middle = np.where(np.isinf(high), 2 * low, (low + high) / 2)
            last, step = step, np.where((newton >= low) & (newton <= high), newton, middle)
            if np.all(np.abs(step - last) <= _STEP * step):
                break
        return self.space.doubles(step)

    def _slopes(self):
        """Return a function that gives the losses' first and second derivatives, (2, n_problems), at such steps.

        Its arrays are NumPy's: a GPU has nothing to gain from a number per problem.
        """
        xp, room, rise = self.xp, 1 - self.signs * self.scores, self.signs * self.along
        force = 2 * self.costs * rise
        bend = force * rise

        def slopes(step):
            left = room - self.space.doubles(step) * rise
            first, second = (xp.where(left > 0, a, 0.0) for a in (-force * left, bend))
            return to_numpy(xp.stack([xp.sum(first, axis=0), xp.sum(second, axis=0)]))

        return slopes


def _positive(a):
    return array_namespace(a).where(a > 0, a, 0.0)  # the standard's clip, on CuPy, waits for the GPU
