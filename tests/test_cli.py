import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from functools import partial

import numpy as np
import pytest

import classic_cls
from classic_cls import cli
from classic_cls.commands import info
from classic_cls.pipelines import PIPELINES

RUN = [sys.executable, "-c", "import sys; from classic_cls.cli import main; sys.exit(main())"]


def run(*arguments, **options):
    return subprocess.run([*RUN, *arguments], capture_output=True, text=True, timeout=60, **options)


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "small.npz"
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16), dtype=np.uint8)
    np.savez(path, X_train=images, y_train=[0, 1] * 4, X_test=images, y_test=[0, 1] * 4)
    return str(path)


def status_of_exit(arguments):
    with pytest.raises(SystemExit) as error:
        cli.main(arguments)
    return error.value.code


def test_benchmark_prints_a_table_and_writes_json(tmp_path, capsys):
    path = tmp_path / "results.json"
    assert cli.main(["benchmark", "digits", "--pipelines", "hog-svm", "--seed", "5", "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(r"digits: 1347 images to train, 450 to test", out)
    assert re.search(r"^hog-svm +0\.\d{3} +0\.\d{3}-0\.\d{3}", out, re.MULTILINE)
    assert re.search(r"^majority +0\.1", out, re.MULTILINE)
    records = json.loads(path.read_text())
    assert [record["pipeline"] for record in records] == ["hog-svm", "pixels-svm", "majority"]
    assert {record["seed"] for record in records} == {5}
    assert os.listdir(tmp_path) == ["results.json"]


def test_several_data_sets_in_one_json(npz, tmp_path, capsys):
    path = tmp_path / "results.json"
    assert cli.main(["benchmark", "faces", npz, "--pipelines", "hog-svm", "--json", str(path)]) == 0
    assert list(dict.fromkeys(record["dataset"] for record in json.loads(path.read_text()))) == ["faces", npz]


def test_a_failing_pipeline_is_reported_and_the_status_is_1(npz, tmp_path, capsys, monkeypatch):
    def make_broken(image_shape=None, n_jobs=None, random_state=None):
        raise RuntimeError("no\nluck")

    monkeypatch.setitem(PIPELINES, "broken", make_broken)
    path = tmp_path / "results.json"
    assert cli.main(["benchmark", npz, "--pipelines", "broken", "--json", str(path)]) == 1
    out = capsys.readouterr().out
    assert "broken failed: RuntimeError: no luck\n" in out
    assert "pixels-svm" in out
    assert json.loads(path.read_text())[0]["error"] == "RuntimeError: no\nluck"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmark", "digit"], "'digit' is neither a data set (digits, faces, textures) nor"),
        (["benchmark", "digits", "--pipelines", "hog-svm,hog"], "no pipeline 'hog'; choose from"),
        (["benchmark", "digits", "--json", "nowhere/results.json"], "there is no folder 'nowhere'"),
        (["benchmark", "digits", "--json", "."], "--json . is not a file"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(capsys, arguments, message):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("classic-cls: error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "benchmark,fit,predict,evaluate,pipelines,info"),
        (["train"], "'train'"),
        (["benchmark", "--seed", "-1"], "'-1'; expected a whole number, from 0"),
        (["benchmark", "--n-jobs", "0"], "'0'; expected a whole number, 1 or more, or -1"),
        (["benchmark", "--size", "big"], "'big'; expected a whole number, 1 or more"),
    ],
)
def test_wrong_options_are_one_line_and_status_2(capsys, arguments, message):
    assert status_of_exit(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_damaged_picture_is_named(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(2):
            (tmp_path / name / f"{k}.png").write_bytes(b"")
    assert cli.main(["benchmark", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path / "a" / "0.png") in err
    assert err.count("\n") == 1


def test_pictures_of_different_sizes(tmp_path, capsys, monkeypatch):
    from PIL import Image

    def make_broken(image_shape=None, n_jobs=None, random_state=None):
        raise ValueError("Put Resize(size) before this step.")

    monkeypatch.setitem(PIPELINES, "broken", make_broken)
    for k, name in enumerate(["a/1.png", "a/2.png", "b/1.png", "b/2.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20 + k, 30), (100 * k, 0, 0)).save(tmp_path / name)
    assert cli.main(["benchmark", str(tmp_path), "--pipelines", "broken"]) == 1
    assert "--size N" in capsys.readouterr().err
    assert cli.main(["benchmark", str(tmp_path), "--pipelines", "hog-svm", "--size", "32"]) == 0


def test_interruption_leaves_nothing_behind(npz, tmp_path, capsys, monkeypatch):
    def make_interrupted(image_shape=None, n_jobs=None, random_state=None):
        raise KeyboardInterrupt

    monkeypatch.setitem(PIPELINES, "interrupted", make_interrupted)
    path = tmp_path / "results.json"
    assert cli.main(["benchmark", npz, "--pipelines", "interrupted", "--json", str(path)]) == 130
    out, err = capsys.readouterr()
    assert (out, err) == ("", "classic-cls: interrupted\n")
    assert os.listdir(tmp_path) == ["small.npz"]


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_control_c(npz, tmp_path):
    """A pipeline that waits: say so on stdout, then wait for the signal."""
    code = (
        "import sys, time\n"
        "from classic_cls import cli, pipelines\n"
        "def wait(**options):\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(30)\n"
        "pipelines.PIPELINES['wait'] = wait\n"
        f"sys.exit(cli.main(['benchmark', {npz!r}, '--pipelines', 'wait', '--json', 'results.json']))\n"
    )
    started = time.monotonic()
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
    heeded = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell runs in the background ignores it
    with subprocess.Popen([sys.executable, "-c", code], preexec_fn=heeded, **options) as process:
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "classic-cls: interrupted\n"
    assert os.listdir(tmp_path) == ["small.npz"]
    assert time.monotonic() - started < 25


def test_pipelines_are_listed_with_their_descriptions(capsys):
    assert cli.main(["pipelines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PIPELINES)
    assert all(len(line.split()) > 2 for line in lines)


def test_info_names_versions_kernels_and_gpu(capsys):
    assert cli.main(["info"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["numpy"] == np.__version__
    assert lines["classic_cls"] == classic_cls.__version__
    assert "CPUs" in lines["processor"]
    assert "baseline" in lines["kernels"]
    assert lines["GPU"]


def test_gpu_is_found_missing_or_broken(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert info._gpu() == "none: CuPy is not installed"
    cupy = types.SimpleNamespace(__version__="14.0", is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert info._gpu() == "none: CuPy 14.0 finds no CUDA device"
    properties = types.SimpleNamespace(getDeviceProperties=lambda device: {"name": b"H200"})
    cupy.is_available, cupy.cuda = lambda: True, types.SimpleNamespace(runtime=properties)
    assert info._gpu() == "H200 (CuPy 14.0)"


def test_version_and_help(capsys):
    assert status_of_exit(["--version"]) == 0
    assert capsys.readouterr().out == f"classic-cls {classic_cls.__version__}\n"
    for arguments in (["--help"], ["benchmark", "--help"]):
        assert status_of_exit(arguments) == 0
        assert "examples:\n  classic-cls benchmark" in capsys.readouterr().out


def test_command_in_a_pipe():
    done = run("benchmark", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    done = run("benchmark", "faces", "--pipelines", "hog-svm", env=os.environ | {"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_import_is_light():
    heavy = {"cupy", "cv2", "matplotlib", "pandas", "rich", "skimage", "sklearn"}
    code = f"import sys, classic_cls; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
