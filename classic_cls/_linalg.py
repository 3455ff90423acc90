"""Cholesky factorisation of large matrices."""

from scipy.linalg import cholesky as cholesky_of_block
from scipy.linalg import solve_triangular

_BLOCK = 4096  # OpenBLAS 0.3.30, in SciPy's wheels, crashes on 16,000 rows in double precision


def cholesky(matrix):
    """Overwrite a symmetric, positive definite matrix with its lower triangular Cholesky factor, and return it.

    Raises scipy.linalg.LinAlgError if rounding has left the matrix indefinite.
    """
    for start in range(0, len(matrix), _BLOCK):
        stop = min(start + _BLOCK, len(matrix))
        left, below = matrix[start:stop, :start], matrix[stop:, start:stop]
        block = matrix[start:stop, start:stop]
        block -= left @ left.T
        block[:] = cholesky_of_block(block, lower=True, check_finite=False)
        below -= matrix[stop:, :start] @ left.T
        below[:] = solve_triangular(block, below.T, lower=True, check_finite=False).T
        matrix[start:stop, stop:] = 0
    return matrix
