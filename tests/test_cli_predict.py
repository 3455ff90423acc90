import csv
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from cli_models import TEST_FILES, TEXTURES, fit_textures, make_mixed, one_error, predicted, training_files
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from classic_cls import (
    HOG,
    ReadImages,
    RidgeLOOClassifier,
    inspect_model,
    load,
    make_hog_svm,
    read_pictures,
    save,
)
from classic_cls.cli import main
from classic_cls.commands import predict, saved_model
from classic_cls.commands.common import new_text


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return fit_textures(tmp_path_factory.mktemp("model"))


@pytest.fixture
def mixed(tmp_path):
    return make_mixed(tmp_path / "mixed")


@pytest.fixture(scope="module")
def probable(tmp_path_factory):
    """A model with probabilities, saved without the command."""
    path = tmp_path_factory.mktemp("probable") / "p.skops"
    files, labels = training_files()
    steps = ReadImages((24, 32), color="gray"), HOG(), RidgeLOOClassifier(random_state=0)
    save(make_pipeline(*steps).fit(files, labels), path)
    return str(path)


# --- predict ----------------------------------------------------------------------------------------------------------


def test_lines_csv_and_json_say_the_same(probable, capsys):
    labels = load(probable).predict(TEST_FILES).tolist()
    proba = load(probable).predict_proba(TEST_FILES)
    _, lines, err = predicted(capsys, probable, *TEST_FILES)
    assert err == ""
    assert lines == [f"{file}\t{label}" for file, label in zip(TEST_FILES, labels, strict=True)]
    _, lines, _ = predicted(capsys, probable, *TEST_FILES, "--proba")
    assert [line.split("\t") for line in lines] == [
        [file, label, f"{row.max():.4f}"] for file, label, row in zip(TEST_FILES, labels, proba, strict=True)
    ]
    _, lines, _ = predicted(capsys, probable, *TEST_FILES, "--csv", "--proba")
    assert lines[0] == "path,label,proba_brick,proba_grass,proba_gravel"
    table = [line.split(",") for line in lines[1:]]
    assert [row[:2] for row in table] == [list(pair) for pair in zip(TEST_FILES, labels, strict=True)]
    assert np.allclose([list(map(float, row[2:])) for row in table], proba, atol=1e-5)
    _, lines, _ = predicted(capsys, probable, *TEST_FILES, "--json", "--proba")
    records = [json.loads(line) for line in lines]
    assert [(record["path"], record["label"]) for record in records] == list(zip(TEST_FILES, labels, strict=True))
    assert np.array_equal([[row["proba"][name] for name in load(probable).classes_] for row in records], proba)


def test_output_goes_to_a_file(model, tmp_path, capsys):
    _, lines, _ = predicted(capsys, model, *TEST_FILES)
    status, printed, err = predicted(capsys, model, *TEST_FILES, "-o", tmp_path / "out.tsv")
    assert (status, printed, err) == (0, [], "")
    assert (tmp_path / "out.tsv").read_text().splitlines() == lines
    assert os.listdir(tmp_path) == ["out.tsv"]


def test_folders_are_searched(model, tmp_path, capsys):
    for name in ("b/c/1.PNG", "b/0.png", ".hidden/2.png", "b/.3.png", "a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TEST_FILES[0], tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    status, lines, _ = predicted(capsys, model, tmp_path, TEST_FILES[-1])
    assert status == 0
    found = [line.split("\t")[0] for line in lines]
    assert found == [str(tmp_path / name) for name in ("a.png", "b/0.png", "b/c/1.PNG")] + [TEST_FILES[-1]]


def test_paths_on_stdin(model, capsys, monkeypatch):
    text = f"{TEST_FILES[0]}\n\n{TEXTURES / 'test' / 'grass'}\r\n{TEST_FILES[1]}".encode()
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(text)))
    _, lines, _ = predicted(capsys, model, "-")
    assert [line.split("\t")[0] for line in lines] == [TEST_FILES[0], *TEST_FILES[6:12], TEST_FILES[1]]
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO()))
    assert "no paths on stdin" in one_error(capsys, ["predict", model, "-"])


@pytest.mark.parametrize("arguments", [[], ["--csv"], ["--json"]])
def test_a_batch_is_in_memory_at_a_time(probable, mixed, capsys, monkeypatch, arguments):
    arguments = [probable, mixed, "--errors", "skip", *arguments]
    whole = predicted(capsys, *arguments)[:2]
    sizes, read = [], saved_model.read_pictures

    def counted(paths, **options):
        sizes.append(len(paths))
        return read(paths, **options)

    monkeypatch.setattr(saved_model, "read_pictures", counted)
    monkeypatch.setattr(saved_model, "_PICTURES", 1)  # a batch with nothing in it that can be read, too
    assert predicted(capsys, *arguments)[:2] == whole
    assert sizes == [1] * 13


@pytest.mark.parametrize("n_jobs", [1, 3])
def test_pictures_of_any_size_are_read_a_few_at_a_time(model, mixed, monkeypatch, n_jobs):
    reader = saved_model.SavedModel("m.skops", load(model)[1:], {"size": None, "color": "rgb", "n_jobs": n_jobs})
    paths = [path for path in sorted(mixed.glob("*/*")) for _ in range(3)]
    kept, images, skipped = read_pictures(paths, errors="skip")
    monkeypatch.setattr(saved_model, "_ANY_SIZE", 4)
    for most, pixels, n_batches in ((4, 1 << 24, 10), (16, 1 << 24, 3), (16, 1, 10)):
        monkeypatch.setattr(saved_model, "_PICTURES", most)
        monkeypatch.setattr(saved_model, "_PIXELS", pixels)
        found = list(reader.read(iter(paths), "skip"))
        assert len(found) == n_batches
        assert [path for batch in found for path in batch[0]] == paths
        starts = np.cumsum([0, *(len(batch[0]) for batch in found)])
        found_kept = np.concatenate([start + batch[1] for start, batch in zip(starts[:-1], found, strict=True)])
        assert found_kept.tolist() == kept.tolist()
        assert all(np.array_equal(a, b) for a, b in zip([i for batch in found for i in batch[2]], images, strict=True))
        assert [each for batch in found for each in batch[3]] == list(skipped)


@pytest.mark.parametrize(("ahead", "n_jobs", "expected"), [(True, 2, 2), (False, 2, 1), (True, 1, 1), (True, None, 1)])
def test_the_next_batch_is_read_meanwhile(model, monkeypatch, ahead, n_jobs, expected):
    reader = saved_model.SavedModel("m.skops", load(model)[1:], {"size": 32, "color": "rgb", "n_jobs": n_jobs})
    monkeypatch.setattr(saved_model, "_PICTURES", 4)
    asked = []
    batches = reader.read((asked.append(path) or path for path in TEST_FILES), "raise", ahead)
    next(batches)
    deadline = time.monotonic() + 10
    while len(asked) < 4 * expected and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(asked) == 4 * expected
    batches.close()


@pytest.mark.parametrize(("size", "n"), [(None, 32), (32, 256), ((512, 1024), 32), (8192, 1)])
def test_batches_of_large_pictures_are_small(size, n):
    assert saved_model._batch_size(size) == n


def test_pictures_that_cannot_be_read_are_left_out(model, mixed, tmp_path, capsys):
    bad = [str(mixed / "brick" / name) for name in ("03.png", "zz.jpg")]
    missing = str(tmp_path / "missing.png")
    arguments = [model, mixed, missing, "--errors", "skip"]
    status, lines, err = predicted(capsys, *arguments)
    assert (status, len(lines)) == (3, 11)
    assert err.startswith("classic-cls: 3 of 14 pictures are left out:\n")
    assert err.count("\n") == 4
    status, lines, _ = predicted(capsys, *arguments, "--csv")
    table = list(csv.DictReader(lines))
    assert list(table[0]) == ["path", "label", "error"]
    assert [row["path"] for row in table if row["error"]] == [*bad, missing]
    assert all((row["label"] == "") == bool(row["error"]) for row in table)
    status, lines, _ = predicted(capsys, *arguments, "--json")
    records = [json.loads(line) for line in lines]
    assert status == 3
    assert [record["path"] for record in records if "error" in record] == [*bad, missing]
    assert [record["path"] for record in records][:5] == [row["path"] for row in table][:5]
    assert all(("error" in record) != ("label" in record) for record in records)


def test_many_skipped_pictures_are_counted(model, tmp_path, capsys):
    for k in range(9):
        (tmp_path / f"{k}.png").write_bytes(b"")
    status, lines, err = predicted(capsys, model, tmp_path, "--errors", "skip")
    assert (status, lines) == (3, [])
    assert err.splitlines()[-1] == "  and 4 more"
    assert err.count("\n") == 7


def test_an_error_leaves_an_older_file_as_it_is(model, mixed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(saved_model, "_PICTURES", 2)
    (tmp_path / "out.csv").write_text("old")
    arguments = ["predict", model, mixed, "-o", tmp_path / "out.csv"]
    assert str(mixed / "brick" / "03.png") in one_error(capsys, arguments)
    assert (tmp_path / "out.csv").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["mixed", "out.csv"]


@pytest.mark.skipif(os.name != "posix", reason="file names of bytes")
def test_odd_file_names(model, tmp_path, capsys):
    odd = os.fsencode(tmp_path) + b"/\xff\t,.png"
    try:
        shutil.copy(TEST_FILES[0], odd)
    except OSError:
        pytest.skip("this file system has Unicode names only")
    _, lines, _ = predicted(capsys, model, tmp_path, "--json")
    assert json.loads(lines[0])["path"] == os.fsdecode(odd)
    assert predicted(capsys, model, tmp_path, "--csv", "-o", tmp_path / "out.csv")[0] == 0
    assert b'"' + odd + b'",brick' in (tmp_path / "out.csv").read_bytes()


def test_other_versions_are_warned_of_in_one_line(model, capsys, monkeypatch):
    monkeypatch.setattr("sklearn.__version__", "0.1")
    status, lines, err = predicted(capsys, model, TEST_FILES[0])
    assert (status, len(lines)) == (0, 1)
    assert err.startswith(f"classic-cls: warning: {model} was written with scikit-learn")
    assert err.count("\n") == 1


def test_bars_do_not_touch_the_output(model, capsys, monkeypatch):
    _, lines, err = predicted(capsys, model, *TEST_FILES)
    assert err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for Rich
    status, with_bar, err = predicted(capsys, model, *TEST_FILES)
    assert (status, with_bar) == (0, lines)
    assert "predicting" in err
    assert "18/18" in err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert predicted(capsys, model, *TEST_FILES) == (0, lines, "")


def test_what_is_printed_below_a_bar_stays_on_stdout(capsys, monkeypatch):
    from classic_cls.commands.progress import counted

    monkeypatch.setenv("FORCE_COLOR", "1")
    with counted("reading", 2) as advance:
        print("a line")
        advance(2)
    out, err = capsys.readouterr()
    assert out == "a line\n"
    assert "reading" in err


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_evaluate_prints_and_writes_scores(model, tmp_path, capsys):
    path = tmp_path / "scores.json"
    assert main(["evaluate", model, str(TEXTURES), "--json", str(path)]) == 0
    out = capsys.readouterr().out
    scores = json.loads(path.read_text())
    about = inspect_model(model).metadata["user"]
    for name in ("accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy"):
        assert scores[name] == about[name]
    right = load(model).predict(TEST_FILES) == np.repeat(["brick", "grass", "gravel"], 6)
    expected = dict(zip(["brick", "grass", "gravel"], right.reshape(3, 6).mean(1).tolist(), strict=True))
    assert len(set(expected.values())) > 1  # or exchanged classes would not be seen
    assert scores["recall"] == expected
    assert scores["n_images_per_class"] == {"brick": 6, "grass": 6, "gravel": 6}
    assert (scores["n_images"], scores["skipped"]) == (18, [])
    assert f"accuracy           {about['accuracy']:.3f}  95 % interval {about['accuracy_low']:.3f}-" in out
    for name, recall in expected.items():
        assert f"{name:<19} {recall:.3f}       6\n" in out
    assert os.listdir(tmp_path) == ["scores.json"]


def test_evaluate_skips(model, mixed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(saved_model, "_PICTURES", 3)  # indices count from the first of all
    path = tmp_path / "scores.json"
    assert str(mixed / "brick" / "03.png") in one_error(capsys, ["evaluate", model, mixed, "--json", path])
    assert main(["evaluate", model, str(mixed), "--errors", "skip", "--json", str(path)]) == 3
    assert f"2 of 13 pictures are left out, see {path}" in capsys.readouterr().err
    scores = json.loads(path.read_text())
    assert scores["n_images_per_class"] == {"brick": 5, "grass": 6}
    assert [Path(each["path"]).name for each in scores["skipped"]] == ["03.png", "zz.jpg"]


def test_evaluate_takes_some_of_the_classes(model, tmp_path, capsys):
    shutil.copytree(TEXTURES / "test" / "grass", tmp_path / "grass")
    assert main(["evaluate", model, str(tmp_path)]) == 0
    assert "gravel" not in capsys.readouterr().out
    shutil.copytree(TEXTURES / "test" / "grass", tmp_path / "lawn")
    assert "has the classes lawn, which" in one_error(capsys, ["evaluate", model, tmp_path])


# --- Wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere", "-o", "m.skops"], "'nowhere' is neither a data set"),
        (["fit", "empty", "-o", "m.skops"], "empty needs a subfolder of pictures for each of two or more classes"),
        (["fit", "single", "-o", "m.skops"], "it has only one ('grass')"),
        (["fit", "digits", "-o", "no/m.skops"], "-o no/m.skops: there is no folder 'no'"),
        (["fit", "digits", "-o", "empty"], "-o empty is not a file"),
        (["fit", "digits", "-o", "m.skops", "--pipeline", "hog"], "no pipeline 'hog'; choose from fast"),
        (["fit", "digits", "-o", "m.skops", "--pipeline", "kmeans-clusters"], "gives no classes, but clusters"),
        (["fit", "digits", "-o", "m.skops", "--size", "9"], "--size is for folders of pictures"),
        (["fit", "digits", "-o", "m.skops", "--store", "s"], "--store is for folders of pictures, and digits is none"),
        (["predict", "nowhere.skops", "good.png"], "No such file or directory: 'nowhere.skops'"),
        (["predict", "good.png", "good.png"], "good.png is damaged or no model"),
        (["predict", "pickled.skops", "good.png"], "pickled.skops is damaged or no model"),
        (["predict", "hog.skops", "good.png"], "holds a HOG that is no classifier"),
        (["predict", "bare.skops", "good.png"], "does not say what size and colour its images are to have"),
        (["predict", "forged.skops", "good.png"], "size='ab'; expected a positive int"),
        (["predict", "model.skops", "nowhere.png"], "There is no picture or folder 'nowhere.png'"),
        (["predict", "model.skops", "empty"], "The folder 'empty' has no pictures (.bmp"),
        (["predict", "model.skops", "text.txt"], "text.txt cannot be read as a picture"),
        (["predict", "model.skops", "good.png", "--proba"], "LinearSVC gives none"),
        (["predict", "model.skops", "good.png", "-o", "no/out"], "there is no folder 'no'"),
        (["evaluate", "model.skops", "nowhere"], "'nowhere' is neither a data set"),
        (["evaluate", "model.skops", "empty"], "empty has no pictures (.bmp"),
        (["evaluate", "model.skops", "digits"], "has the classes 0, 1, 2"),
        (["evaluate", "bare.skops", "single"], "does not say what size"),
        (["evaluate", "model.skops", "single", "--json", "."], "--json . is not a file"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(model, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    os.mkdir("empty")
    shutil.copytree(TEXTURES / "test" / "grass", "single/grass")
    shutil.copy(TEST_FILES[0], "good.png")
    shutil.copy(model, "model.skops")
    Path("text.txt").write_text("no picture")
    Path("pickled.skops").write_bytes(pickle.dumps(make_hog_svm()))
    images = np.random.default_rng(0).random((4, 32, 32))
    save(HOG().fit(images), "hog.skops")
    bare = make_pipeline(HOG(), LinearSVC()).fit(images, ["grass", "b"] * 2)
    save(bare, "bare.skops")
    save(bare, "forged.skops", metadata={"size": "ab", "color": "rgb"})
    before = sorted(os.listdir())
    assert message in one_error(capsys, arguments)
    assert sorted(os.listdir()) == before


def test_an_output_that_cannot_be_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    arguments = ["fit", "digits", "-o", tmp_path / "m.skops"]
    assert "may not be written to" in one_error(capsys, arguments)


def test_a_file_is_whole_or_not_there(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), new_text(tmp_path / "a") as file:
        file.write(1 / 0)
    assert (tmp_path / "a").read_text() == "old"
    with new_text(tmp_path / "a") as file:
        file.write("new")
    assert (tmp_path / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


# --- Signals ----------------------------------------------------------------------------------------------------------


def test_an_interrupted_prediction_leaves_nothing(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(saved_model, "_PICTURES", 2)
    answers, calls = predict._answers, []

    def interrupted(*arguments):
        calls.append(os.listdir(tmp_path))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answers(*arguments)

    monkeypatch.setattr(predict, "_answers", interrupted)
    status, _, err = predicted(capsys, model, *TEST_FILES, "-o", tmp_path / "out.tsv")
    assert (status, err) == (130, "classic-cls: interrupted\n")
    assert [name.endswith(".part") for name in calls[1]] == [True]
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_reader_that_goes_away(model):
    """As in `| head -1`: one line is read, then no one listens."""
    code = (
        "import sys\n"
        "from classic_cls.cli import main\n"
        "from classic_cls.commands import saved_model\n"
        "saved_model._PICTURES = 1\n"
        f"sys.exit(main(['predict', {model!r}, '-']))\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        process.stdin.write(f"{TEST_FILES[0]}\n")
        process.stdin.flush()
        assert process.stdout.readline() == f"{TEST_FILES[0]}\tbrick\n"
        process.stdout.close()
        process.stdin.write("\n".join(TEST_FILES))
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141
