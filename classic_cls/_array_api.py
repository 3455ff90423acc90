"""Rows of features in any kind of array (NumPy's, CuPy's, torch's, others of the array API), checked where they lie."""

import numpy as np
import scipy.sparse
from sklearn.externals.array_api_compat import (
    array_namespace,
    device,
    is_array_api_obj,
    is_cupy_array,
    is_numpy_array,
    is_torch_array,
    to_device,
)
from sklearn.utils.validation import validate_data


def read_rows(estimator, X, *, reset, takes_sparse):
    """Return X as float32 or float64 rows without NaN: of `estimator`'s training data if `reset`, else as wide as they.

    Other numbers become float64. `takes_sparse` names the estimator for sparse X, which is refused here.
    """
    refuse_sparse(X, takes_sparse)
    if not elsewhere(X):
        return validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32])
    xp = array_namespace(X)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X has shape {tuple(X.shape)}; expected (n, n_features), and neither of them 0.")
    if X.dtype not in (xp.float32, xp.float64):
        X = xp.astype(X, xp.float64)
    if not bool(xp.all(xp.isfinite(X))):
        raise ValueError("X contains NaN or infinity.")
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    return X


def refuse_sparse(X, takes_sparse):
    """Raise TypeError if X is sparse, and name the estimator that takes it."""
    if scipy.sparse.issparse(X):
        raise TypeError(f"X is sparse; expected a dense array. {takes_sparse} takes sparse X.")


def elsewhere(X):
    """Tell whether X is an array that is not NumPy's, which scikit-learn's checks would refuse or move."""
    return is_array_api_obj(X) and not is_numpy_array(X)


def to_numpy(a):
    """Return an array of any kind as NumPy's; what is no array stays as it is."""
    return a if not elsewhere(a) else np.asarray(to_device(a, "cpu") if is_cupy_array(a) or is_torch_array(a) else a)


def beside(X, a, dtype=None):
    """Return a NumPy array as an array of X's kind, on X's device."""
    return array_namespace(X).asarray(np.ascontiguousarray(a), dtype=dtype, device=device(X))
