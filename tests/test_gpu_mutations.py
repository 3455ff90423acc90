"""Would the tests of the CUDA kernels notice? Each barrier is left out in turn, and indices are made wrong."""

from pathlib import Path

import cuda_on_cpu
import fake_cupy
import numpy as np
import pytest
from gpu_cases import SOURCES, on_gpu, small_runs

from classic_cls import _arrays

BARRIER = "__syncthreads();"
BROKEN = {
    "features/color_histogram.cu": [
        ("int((i + 1) * height / rows) - top", "int((i + 1) * height / rows) - top - 1"),
        ("i < cell.height * cell.width", "i <= cell.height * cell.width"),
        ("counters[k] = 0;", ""),
    ],
    "features/dense_sift.cu": [
        ("min(x + 1, width - 1)", "min(x + 1, width)"),
        ("max(y - 1, 0)", "y - 1"),
        ("int(threadIdx.x), 0), width - 1)", "int(threadIdx.x), 0), width)"),
        ("x < min(start + span,", "x <= min(start + span,"),
        ("min(max(y, 0), n_rows - 1)", "min(max(y, 0), n_rows)"),
        ("item < size_t(n_images) * rows * cols", "item <= size_t(n_images) * rows * cols"),
    ],
    "features/hog.cu": [
        ("x + 1 < picture.width", "x + 0 < picture.width"),
        ("y > 0 && y + 1", "y >= 0 && y + 1"),
        ("k * stride + x - first", "k * stride + x"),
        ("(left == cell * cell_cols ? 0.f : *to) +", ""),
        ("x < right; ++x", "x <= right; ++x"),
        ("value += __shfl_xor", "value -= __shfl_xor"),
    ],
    "features/patch_kmeans.cu": [
        ("distance > 0; distance /= 2", "distance > 1; distance /= 2"),
        ("(row + 1) * down / grid_rows", "row * down / grid_rows + 1"),
        ("other == score && its < best", "other == score && its > best"),
        ("item < n_patches", "item <= n_patches"),
        ("(width - patch_width) / step + 1", "(width - patch_width) / step"),
    ],
}
WITHOUT_BARRIER = [
    (source, i) for source in SOURCES for i in range((Path(_arrays._PACKAGE) / source).read_text().count(BARRIER))
]


def is_noticed(source, change, small, monkeypatch):
    """Tell whether the kernels give an error or something else, under some seed, once their text is changed."""
    complete = _arrays.kernel_code
    monkeypatch.setattr(_arrays, "kernel_code", lambda name, **types: change(complete(name, **types)))
    stem = Path(source).stem
    runs = [run for run in small_runs(small) if Path(run[0].__code__.co_filename).stem == stem]
    return any(
        _differs(fake_cupy.install(monkeypatch, threads=32, seed=seed), *run) for run in runs for seed in range(3)
    )


def _differs(cupy, function, images, *arguments):
    try:
        ours = on_gpu(cupy, function, images, *arguments)
    except cuda_on_cpu.CudaError:
        return True
    return not np.allclose(ours, function(images, *arguments), atol=1e-4)


def replaced(code, good, bad, which=0):
    """Replace one occurrence."""
    parts = code.split(good)
    assert len(parts) > which + 1
    return good.join(parts[: which + 1]) + bad + good.join(parts[which + 1 :])


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_noticed_where_nothing_is_wrong(source, small, monkeypatch):
    assert not is_noticed(source, lambda code: code, small, monkeypatch)


@pytest.mark.parametrize(("source", "which"), WITHOUT_BARRIER)
def test_a_missing_barrier_is_noticed(source, which, small, monkeypatch):
    assert is_noticed(source, lambda code: replaced(code, BARRIER, "", which), small, monkeypatch)


@pytest.mark.parametrize(("source", "good", "bad"), [(s, *pair) for s, pairs in BROKEN.items() for pair in pairs])
def test_a_wrong_index_is_noticed(source, good, bad, small, monkeypatch):
    assert is_noticed(source, lambda code: replaced(code, good, bad), small, monkeypatch)
