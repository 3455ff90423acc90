"""Would the tests of the CUDA kernels notice? Each barrier is left out in turn, and indices are made wrong."""

from pathlib import Path

import cuda_on_cpu
import fake_cupy
import numpy as np
import pytest
from gpu_cases import SOURCE_OF, SOURCES, on_gpu, small_runs

from classic_cls import _arrays

BARRIER = "__syncthreads();"
BROKEN = {
    "_array_kmeans.cu": [
        ("k < n_columns", "k < n_columns - 1"),
        ("apart > 0; apart /= 2", "apart > 1; apart /= 2"),
        ("other == least && its < column", "other == least && its > column"),
        ("distance < least", "distance <= least"),
        ("edge[1] - edge[0]", "edge[1] - edge[0] - 1"),
        ("count * part / n_parts", "count / n_parts * part"),
        ("i < end", "i < end - 1"),
        ("k < width", "k < width - 1"),
    ],
    "features/color_histogram.cu": [
        ("image_height, rows) - top", "image_height, rows) - top - 1"),
        ("row < cell.height", "row <= cell.height"),
        ("++row, col -= across", "col -= across"),
        ("counters[k] = 0;", ""),
    ],
    "features/dense_sift.cu": [
        ("return 2 * inside(row, col) - inside(next_row, next_col);", "return inside(row, col);"),
        ("right > plan.width ? bottom - top : 0", "0"),
        ("x < width; x += threads", "x < width - 1; x += threads"),
        ("(k * down < count) there", "(k * down < count - 1) there"),
        ("within(x + place, plan.width)", "x + place"),
        ("within(first + row, plan.height)", "first + row"),
        ("(REACH - k) * SPACING", "(REACH - k) * SPACING - 1"),
        ("last - k >= 0", "last - k > 0"),
        ("min(SPACING - at, rows - row)", "SPACING - at"),
        ("at = 0, ++last", "++last"),
    ],
    "features/hog.cu": [
        ("x > 0 ? -1", "x >= 0 ? -1"),
        ("x + RUN < WIDTH", "x + RUN <= WIDTH"),
        ("last ? at - beyond", "last ? at"),
        ("row - pitch : row + beyond", "row - pitch : row"),
        ("THREADS + run - first;", "THREADS + run;"),
        ("Compass::bin(k) == 0) sum", "Compass::bin(k) == 1) sum"),
        ("whole || begin == cell * RUNS ? 0", "true ? 0"),
        ("run < end; ++run", "run <= end; ++run"),
        ("vote.near ? 0 : ", ""),
        ("k + (__float_as_int(more) >> 31)", "k"),
        ("levels_in >> which & 1", "levels_in & 1"),
        ("lane() >= distance ? before", "lane() > distance ? before"),
        ("until, owner + step - 1) <= item", "until, owner + step - 1) < item"),
        ("; rank > 0; --rank", "; rank > 1; --rank"),
        ("end = min(until, first + 32)", "end = min(until, first + 31)"),
        ("if (stronger) x", "if (!stronger) x"),
        ("of_levels ? rint(x * 255) / 255 : x", "x"),
    ],
    "features/patch_kmeans.cu": [
        ("distance > 0; distance /= 2", "distance > 1; distance /= 2"),
        ("(row + 1) * down / grid_rows", "row * down / grid_rows + 1"),
        ("its_score == score && its < best", "its_score == score && its > best"),
        ("int warp = 1; warp < blockDim.x / warpSize", "int warp = 1; warp < 1"),
        ("int warp = 0; warp < blockDim.x / warpSize", "int warp = 0; warp < 1"),
        ("turn ^= 1", "turn ^= 0"),
        ("? lengths[i] : 0", "? lengths[0] : 0"),
        ("i < depth; i += warpSize) sum", "i < depth - 1; i += warpSize) sum"),
        ("(width - patch_width) / step + 1", "(width - patch_width) / step"),
    ],
}
WITHOUT_BARRIER = [
    (source, i) for source in SOURCES for i in range((Path(_arrays._PACKAGE) / source).read_text().count(BARRIER))
]


def is_noticed(source, change, small, monkeypatch):
    """Tell whether the kernels give an error or something else, under some seed, once their text is changed."""
    complete = _arrays.kernel_code
    monkeypatch.setattr(_arrays, "kernel_code", lambda *args, **types: change(complete(*args, **types)))
    runs = [run for run in small_runs(small) if SOURCE_OF[run[0]] == source]
    runs = [run for run in runs if run[1].dtype != np.float64]  # each is compiled anew
    wait = "features/color_histogram.cu", "features/patch_kmeans.cu"  # whose warps have to wait for each other
    threads = 64 if source in wait else 32
    return any(
        _differs(fake_cupy.install(monkeypatch, threads=threads, seed=seed), *run) for run in runs for seed in range(3)
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
