"""Cholesky factors of large matrices, and triangular systems, wherever the arrays lie."""

from scipy.linalg import LinAlgError
from scipy.linalg import cholesky as cholesky_of_block
from scipy.linalg import solve_triangular as solve_on_host
from sklearn.externals.array_api_compat import array_namespace, is_cupy_array

from ._array_api import elsewhere

_BLOCK = 4096  # OpenBLAS 0.3.30, in SciPy's wheels, crashes on 16,000 rows in double precision


def cholesky(matrix):
    """Return the lower triangular Cholesky factor of a symmetric, positive definite matrix, overwritten if NumPy's.

    Raises scipy.linalg.LinAlgError if rounding has left the matrix indefinite.
    """
    return _cholesky_elsewhere(matrix) if elsewhere(matrix) else _cholesky_in_blocks(matrix)


def _cholesky_in_blocks(matrix):
    for start in range(0, len(matrix), _BLOCK):
        stop = min(start + _BLOCK, len(matrix))
        left, below = matrix[start:stop, :start], matrix[stop:, start:stop]
        block = matrix[start:stop, start:stop]
        block -= left @ left.T
        block[:] = cholesky_of_block(block, lower=True, check_finite=False)
        below -= matrix[stop:, :start] @ left.T
        below[:] = solve_on_host(block, below.T, lower=True, check_finite=False).T
        matrix[start:stop, stop:] = 0
    return matrix


def _cholesky_elsewhere(matrix):
    """Return the factor, if it is one: CuPy says nothing of a failure, and leaves NaN or a part of the matrix."""
    xp = array_namespace(matrix)
    try:
        factor = xp.linalg.cholesky(matrix)
    except getattr(xp.linalg, "LinAlgError", LinAlgError) as error:  # torch has its own
        raise LinAlgError(str(error)) from error
    diagonal, rounding = xp.linalg.diagonal(matrix), float(xp.finfo(matrix.dtype).eps) ** 0.5
    if not bool(xp.all(xp.abs(xp.sum(factor * factor, axis=1) - diagonal) <= rounding * diagonal)):
        raise LinAlgError("The matrix is not positive definite.")
    return factor


def solve_triangular(factor, b, *, transposed=False, overwrite_b=False):
    """Return x with ``factor @ x = b``, or ``factor.T @ x = b`` if `transposed`, for a lower triangular factor."""
    if not elsewhere(factor):
        options = {"lower": True, "overwrite_b": overwrite_b, "check_finite": False}
        return solve_on_host(factor, b, trans="T" if transposed else "N", **options)
    if is_cupy_array(factor):
        from cupyx.scipy.linalg import solve_triangular as solve_on_device

        # cuBLAS reads columns: the transpose of rows goes there without a copy.
        return solve_on_device(factor.T, b, trans="N" if transposed else "T", overwrite_b=overwrite_b)
    return array_namespace(factor).linalg.solve(factor.T if transposed else factor, b)


def diagonal_view(matrix):
    """Return the diagonal of a square matrix, contiguous by rows, to be changed in place."""
    return array_namespace(matrix).reshape(matrix, (-1,))[:: matrix.shape[0] + 1]
