"""The accuracy benchmark reads what it says it reads, and runs from end to end."""

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import crops
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "accuracy.py"


@pytest.fixture(scope="module")
def accuracy():
    spec = importlib.util.spec_from_file_location("accuracy", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def labelled(n, seed):
    """Upright and lying crops of a photograph."""
    images = crops(n, 32, 32, seed)
    images[::2] = images[::2].transpose(0, 2, 1, 3)
    images[::2, ::2] = 255
    images[1::2, :, ::2] = 0
    return images, np.arange(n) % 2


def test_cifar10_as_distributed(accuracy, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    images, labels = crops(60, 32, 32), np.arange(60) % 10
    rows = np.column_stack([labels.astype(np.uint8), images.transpose(0, 3, 1, 2).reshape(60, -1)])
    for k, name in enumerate([*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]):
        rows[10 * k : 10 * k + 10].tofile(folder / name)
    X, y, X_test, y_test = accuracy.load("cifar10", tmp_path)
    np.testing.assert_array_equal(np.concatenate([X, X_test]), images)
    np.testing.assert_array_equal(np.concatenate([y, y_test]), labels)
    assert len(X_test) == 10


def test_fashion_mnist_as_distributed(accuracy, tmp_path):
    images, labels = crops(9, 28, 28)[..., 0], np.arange(9, dtype=np.uint8)
    for part, rows in (("train", slice(0, 6)), ("t10k", slice(6, 9))):
        for kind, header, content in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            packed = gzip.compress(bytes(header) + content[rows].tobytes())
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(packed)
    X, y, X_test, y_test = accuracy.load("fashion_mnist", tmp_path)
    np.testing.assert_array_equal(np.concatenate([X, X_test]), images)
    np.testing.assert_array_equal(np.concatenate([y, y_test]), labels)


@pytest.mark.parametrize("gray", [False, True])
def test_contact_sheets(accuracy, tmp_path, gray):
    folder = tmp_path / "mine"
    folder.mkdir()
    images = crops(7, 8, 6)
    images = np.repeat(images[..., :1], 3, axis=3) if gray else images
    tiles = np.zeros((2, 2, 2, 8, 6, 3), np.uint8)  # sheet, row, column
    tiles.reshape(8, 8, 6, 3)[:7] = images
    for k, sheet in enumerate(tiles.swapaxes(2, 3).reshape(2, 16, 12, 3)):
        Image.fromarray(sheet).save(folder / f"{k}.png")
    part = {"n": 7, "shape": [8, 6], "sheets": ["0.png", "1.png"], "per_sheet": 4, "columns": 2}
    (folder / "meta.json").write_text(json.dumps({"gray": gray, "parts": {"train": part, "test": part}}))
    for name in ("train", "test"):
        np.save(folder / f"{name}-labels.npy", np.arange(7))
    X, y, _, _ = accuracy.load("mine", tmp_path)
    np.testing.assert_array_equal(X, images[..., 0] if gray else images)
    assert y.tolist() == list(range(7))


def test_few_labels_are_of_every_class_and_another_choice_for_each_seed(accuracy):
    y = np.repeat(["a", "b"], [30, 50])
    chosen = accuracy._labelled(y, 5, seed=0)
    assert [sum(y[chosen] == label) for label in "ab"] == [5, 5]
    assert len(set(chosen)) == 10
    assert set(chosen) != set(accuracy._labelled(y, 5, seed=1))
    assert len(accuracy._labelled(y, None, seed=0)) == 80


def test_runs_from_end_to_end(tmp_path):
    X, y = labelled(60, 0)
    X_test, y_test = labelled(40, 1)
    np.savez(tmp_path / "data.npz", X_train=X, y_train=y, X_test=X_test, y_test=y_test)
    command = [sys.executable, SCRIPT, "--data", tmp_path / "data.npz", "--preset", "fast,hog-svm", "--seeds", "1"]
    done = subprocess.run([*command, "--json", tmp_path / "out.json"], capture_output=True, text=True, check=True)
    records = json.loads((tmp_path / "out.json").read_text())
    assert [record["preset"] for record in records] == ["fast", "hog-svm"]
    assert all(record["accuracy"] > 0.9 and record["n_labelled"] == 60 for record in records)
    assert all(0.05 < record["peak_gib"] < 8 and record["fit_seconds"] > 0 for record in records)
    assert "hog-svm" in done.stdout.splitlines()[-1]
    for record in records:
        record["accuracy"] = 0.5  # which no run gives
    (tmp_path / "out.json").write_text(json.dumps(records))
    command[-1] = "2"
    subprocess.run([*command, "--preset", "hog-svm", "--json", tmp_path / "out.json"], check=True)
    again = json.loads((tmp_path / "out.json").read_text())
    assert again[:2] == records
    assert [(record["preset"], record["seed"], record["accuracy"] > 0.9) for record in again[2:]] == [
        ("hog-svm", 1, True)
    ]
    done = subprocess.run(
        [*command, "--train-size", "8", "--preset", "fast", "--validation"], capture_output=True, text=True, check=True
    )
    record = json.loads(done.stdout.splitlines()[1])
    assert (record["n_labelled"], record["n_test"]) == (16, 6)
    assert record["accuracy"] > 0.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "quick"], "there is no preset 'quick'"),
        (["--preset", "fast,hog-svm", "--train-size", "5"], "--train-size is for the baselines"),
    ],
)
def test_unknown_presets_are_refused(arguments, message):
    done = subprocess.run([sys.executable, SCRIPT, "--data", "digits", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
