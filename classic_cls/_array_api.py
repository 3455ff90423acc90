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
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import assert_all_finite, validate_data

from ._arrays import device_of


def read_rows(estimator, X, *, reset, takes_sparse, others="float64"):
    """Return X as float32 or float64 rows without NaN: of `estimator`'s training data if `reset`, else as wide as they.

    `others` is what other numbers become. `takes_sparse` names the estimator for sparse X, which is refused here.
    """
    refuse_sparse(X, takes_sparse)
    if not elsewhere(X):
        return validate_data(estimator, X, reset=reset, dtype=_dtypes(others))
    xp = array_namespace(X)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X has shape {tuple(X.shape)}; expected (n, n_features), and neither of them 0.")
    with device_of(X):
        if X.dtype not in (xp.float32, xp.float64):
            X = xp.astype(X, getattr(xp, others))
        if not bool(xp.all(xp.isfinite(X))):
            raise ValueError("X contains NaN or infinity.")
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    return X


def read_labelled_rows(estimator, X, y, *, takes_sparse, others="float64", multi_output=False):
    """Return training data as ``read_rows`` does, and their labels as a NumPy array; two-dimensional if allowed."""
    y = to_numpy(y)
    if not elsewhere(X):
        refuse_sparse(X, takes_sparse)
        return validate_data(estimator, X, y, dtype=_dtypes(others), multi_output=multi_output)
    X = read_rows(estimator, X, reset=True, takes_sparse=takes_sparse, others=others)
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y") if multi_output else column_or_1d(y, warn=True)
    assert_all_finite(y, input_name="y")
    if len(y) != X.shape[0]:
        raise ValueError(f"X has {X.shape[0]} samples and y has {len(y)} labels; expected as many.")
    return X, y


def _dtypes(others):
    """Return those that stay as they are; scikit-learn makes all others the first."""
    return [np.float64, np.float32] if others == "float64" else [np.float32, np.float64]


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
