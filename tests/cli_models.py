"""What the tests of the commands that fit and use models share: pictures, a model of them, and calls."""

import shutil
from pathlib import Path

from classic_cls.cli import main

TEXTURES = Path(__file__).parents[1] / "data" / "textures"
TEST_FILES = sorted(map(str, TEXTURES.glob("test/*/*.png")))


def fit_textures(folder):
    """Fit a model of the textures by the command, and return its file."""
    path = folder / "m.skops"
    assert main(["fit", str(TEXTURES), "-o", str(path), "--pipeline", "hog-svm", "--size", "32", "--n-jobs", "1"]) == 0
    return str(path)


def make_mixed(folder):
    """Return a folder of classes with two pictures that cannot be read; the second class is all right."""
    for name in ("brick", "grass"):
        shutil.copytree(TEXTURES / "test" / name, folder / name)
    (folder / "brick" / "03.png").write_bytes((folder / "brick" / "02.png").read_bytes()[:300])
    (folder / "brick" / "zz.jpg").write_text("no picture")
    return folder


def training_files():
    files = sorted(TEXTURES.glob("train/*/*.png"))
    return [str(file) for file in files], [file.parent.name for file in files]


def predicted(capsys, *arguments):
    """Return the status, the lines of stdout and stderr."""
    status = main(["predict", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err


def one_error(capsys, arguments):
    """Return the only line of stderr."""
    assert main(list(map(str, arguments))) == 2
    err = capsys.readouterr().err
    assert err.startswith("classic-cls: error: ")
    assert err.count("\n") == 1
    return err
