import fake_cupy
import numpy as np
import pytest
from scipy.linalg import LinAlgError

from classic_cls import _linalg
from classic_cls._array_api import to_numpy


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


def spd(size, dtype=np.float64):
    half = np.random.default_rng(size).normal(size=(size, size))
    return (half @ half.T + np.eye(size)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 40])
def test_factors_in_any_array_kind(arrays, size, dtype):
    there = arrays.asarray(spd(size, dtype))
    factor = _linalg.cholesky(there)
    assert type(factor) is type(there)
    rounding = {"rtol": 1e-4, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-11}
    np.testing.assert_allclose(to_numpy(factor), np.linalg.cholesky(spd(size)), **rounding)
    np.testing.assert_array_equal(to_numpy(there), spd(size, dtype))


@pytest.mark.parametrize("row", [0, 1, 8])
def test_indefinite_matrices_in_any_array_kind(arrays, row):
    matrix = spd(9)
    matrix[row, row] = -1 if row == 0 else 0
    for dtype in ("float32", "float64"):
        with pytest.raises(LinAlgError):
            _linalg.cholesky(arrays.asarray(matrix.astype(dtype)))


@pytest.mark.parametrize("left", [np.nan, 0.0, 1.0])
def test_whatever_a_failure_leaves_is_no_factor(monkeypatch, left):
    cupy = fake_cupy.install(monkeypatch)
    broken = np.linalg.cholesky(spd(9))
    broken[5, 5] = left
    monkeypatch.setattr(cupy.linalg, "cholesky", lambda matrix: cupy.asarray(broken))
    with pytest.raises(LinAlgError, match="not positive definite"):
        _linalg.cholesky(cupy.asarray(spd(9)))


@pytest.mark.parametrize("overwrite_b", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_triangular_systems_in_any_array_kind(arrays, order, dtype, transposed, overwrite_b):
    factor, b = np.tril(spd(9, dtype)), np.asarray(np.random.default_rng(0).normal(size=(9, 4)), dtype, order)
    expected = np.linalg.solve(factor.T if transposed else factor, b)
    options = {"transposed": transposed, "overwrite_b": overwrite_b}
    for xp in (np, arrays):
        there = xp.asarray(b.copy(order))
        solution = _linalg.solve_triangular(xp.asarray(factor), there, **options)
        assert type(solution) is type(there)
        np.testing.assert_allclose(to_numpy(solution), expected, atol=2e-3 if dtype == "float32" else 1e-10)
        assert overwrite_b or np.array_equal(to_numpy(there), b)


def test_the_diagonal_is_changed_in_place(arrays):
    matrix = arrays.asarray(spd(5))
    diagonal = _linalg.diagonal_view(matrix)
    diagonal += 2.0
    np.testing.assert_array_equal(to_numpy(matrix), spd(5) + 2 * np.eye(5))
