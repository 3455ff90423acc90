import json
import math
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "benchmarks" / "peers.py"
CASES = [
    "hog-32",
    "dense-sift-128",
    "rgb-histogram-32",
    "hsv-histogram-32",
    "assign-1000-words",
    "soft-256-words",
    "llc-256-words",
    "vlad-64-words",
    "fisher-64",
    "fisher-64-tuned",
    "fisher-64-scikit-image",
    "patches-1600",
    "bag-transform",
]


def run(tmp_path, *arguments):
    command = [sys.executable, SCRIPT, "--quick", "--limits", tmp_path / "none", *arguments]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=240)


@pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not installed with the package")
def test_rows_are_complete(tmp_path):
    done = run(tmp_path, "--json", tmp_path / "rows.json", "--only", ",".join(CASES))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["case"] for row in rows] == CASES
    for row in rows:
        assert f"| {row['case']}" in done.stdout
        assert row["items"] > 0
        assert row["turns"] >= 3
        assert row["peer"]
        assert (row["fraction_of_limit"] is None) == (row["case"] != "patches-1600")
        for value in (row["ours_us"], row["peer_us"], *row["ratio"]):
            assert math.isfinite(value)
            assert value > 0
        assert row["ratio"] == sorted(row["ratio"])


@pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not installed with the package")
def test_unknown_case(tmp_path):
    done = run(tmp_path, "--only", "hog-32,hop-32")
    assert done.returncode == 2
    assert "no case hop-32" in done.stderr


@pytest.mark.skipif(not SCRIPT.exists() or sys.platform != "linux", reason="needs the benchmarks, and g++ on Linux")
def test_limits_do_not_change_how_the_others_count(tmp_path):
    (tmp_path / "limits.py").write_text(
        "import ctypes, pathlib, subprocess\n"
        "here = pathlib.Path(__file__).parent\n"
        "(here / 'empty.cpp').write_text('')\n"
        "options = ['-shared', '-fPIC', '-ffast-math', '-o', here / 'empty.so']\n"
        "subprocess.run(['g++', here / 'empty.cpp', *options], check=True)\n"
        "ctypes.CDLL(here / 'empty.so')\n"
    )
    program = (
        "import pathlib, sys, numpy as np, peers\n"
        "assert peers.load_limits(pathlib.Path(sys.argv[1])).here\n"
        "print(np.float32(1e-40) * np.ones(4, np.float32))\n"
    )
    command = [sys.executable, "-c", program, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parent)
    assert done.stdout.strip() == "[1.e-40 1.e-40 1.e-40 1.e-40]", done.stderr
