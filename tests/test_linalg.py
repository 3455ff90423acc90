import numpy as np
import pytest
from scipy.linalg import LinAlgError

from classic_cls import _linalg


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 6, 7, 8, 14, 20])
def test_blocks_give_numpys_factor(monkeypatch, size, dtype):
    monkeypatch.setattr(_linalg, "_BLOCK", 7)
    half = np.random.default_rng(size).normal(size=(size, size))
    matrix = (half @ half.T + np.eye(size)).astype(dtype)
    expected = np.linalg.cholesky(matrix.astype(float))
    factor = _linalg.cholesky(matrix)
    assert factor is matrix
    np.testing.assert_allclose(factor, expected, atol=1e-4 if dtype == np.float32 else 1e-12)


def test_indefinite_matrices_are_refused(monkeypatch):
    monkeypatch.setattr(_linalg, "_BLOCK", 4)
    matrix = np.eye(9)
    matrix[8, 7] = matrix[7, 8] = 2
    with pytest.raises(LinAlgError):
        _linalg.cholesky(matrix)
