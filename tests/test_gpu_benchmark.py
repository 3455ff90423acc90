"""The benchmark of the GPU, on CuPy without one: times mean nothing, what is timed is right."""

import json
import math
import sys
from pathlib import Path

import fake_cupy
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not installed with the package")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    return gpu


@pytest.fixture
def run(gpu, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick", *map(str, arguments)])
        gpu.main()

    return run


def test_rows_are_complete(gpu, run, monkeypatch, tmp_path, capsys):
    fake_cupy.install(monkeypatch)
    run("--json", tmp_path / "figures.json")
    figures, printed = json.loads((tmp_path / "figures.json").read_text()), capsys.readouterr().out
    assert "No GPU at all, CUDA 13.0" in printed
    assert [row["kernel"] for row in figures["kernels"]] == list(gpu.CASES)
    assert [row["model"] for row in figures["models"]] == list(gpu.MODELS)
    for row in (*figures["kernels"], *figures["sending"], *figures["models"]):
        assert f"| {next(iter(row.values()))} |" in printed
        numbers = [value for value in row.values() if isinstance(value, int | float)]
        assert len(numbers) >= 3
        assert all(math.isfinite(value) and value > 0 for value in numbers)
    without_peer = [row["kernel"] for row in figures["kernels"] if row["peer, images/s"] is None]
    assert without_peer == ["color-hsv", "patches", "bag", "vlad", "fisher"]
    assert all(row["kornia on the GPU, images/s"] is None for row in figures["kernels"])
    assert all(row["same labels"] > 0.9 for row in figures["models"])


def test_bytes_are_those_of_images_and_features(gpu, monkeypatch):
    cupy = fake_cupy.install(monkeypatch)
    monkeypatch.setattr(gpu, "event_seconds", lambda *_: 2.0)
    row = gpu.measure_kernel(cupy, "color-joint", gpu.CASES["color-joint"](True), 1e6, True)
    assert row["GB/s"] * 1e9 == pytest.approx((8 * 32 * 32 * 3 + 8 * 512 * 4) / 2)
    assert row["share of copying"] == pytest.approx(row["GB/s"] * 1e9 / 1e6)
    assert row["images/s"] == 4


def test_wrong_features_are_told(gpu, run, monkeypatch):
    fake_cupy.install(monkeypatch)
    case = gpu.Case(lambda images, **how: images[:, 0] if isinstance(images, np.ndarray) else images[:, 1], np.eye(9))
    monkeypatch.setattr(gpu, "CASES", {"broken": lambda quick: case})
    with pytest.raises(SystemExit, match="broken: GPU and CPU disagree"):
        run()


def test_without_a_gpu(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    run()
    assert "Nothing was measured, for there is no GPU to use. Arrays on a GPU are CuPy's" in capsys.readouterr().out
