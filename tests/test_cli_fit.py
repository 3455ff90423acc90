import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_models import TEST_FILES, TEXTURES, fit_textures, make_mixed, one_error, predicted, training_files
from PIL import Image
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from classic_cls import (
    HOG,
    PIPELINES,
    ColorHistogram,
    ReadImages,
    inspect_model,
    load,
    load_image_folder,
    make_hog_svm,
    read_pictures,
)
from classic_cls.benchmark import forecast
from classic_cls.cli import main
from classic_cls.commands import fit_files, saved_model, training_data

TREE = "sklearn.tree._tree.Tree"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return fit_textures(tmp_path_factory.mktemp("model"))


@pytest.fixture
def mixed(tmp_path):
    return make_mixed(tmp_path / "mixed")


# --- In memory --------------------------------------------------------------------------------------------------------


def test_a_saved_model_goes_from_paths_to_class_names(model):
    files, labels = training_files()
    own = make_pipeline(ReadImages(32), *(step for _, step in make_hog_svm(random_state=0).steps)).fit(files, labels)
    assert load(model).predict(TEST_FILES).tolist() == own.predict(TEST_FILES).tolist()
    assert set(load(model).classes_) == {"brick", "grass", "gravel"}


def test_metadata_says_where_a_model_comes_from(model):
    about = inspect_model(model).metadata["user"]
    assert about["classes"] == ["brick", "grass", "gravel"]
    assert {name: about[name] for name in ("pipeline", "seed", "n_train", "n_test", "n_skipped", "size", "color")} == {
        "pipeline": "hog-svm",
        "seed": 0,
        "n_train": 36,
        "n_test": 18,
        "n_skipped": 0,
        "size": [32, 32],
        "color": "rgb",
    }
    right = load(model).predict(TEST_FILES) == np.array([Path(file).parent.name for file in TEST_FILES])
    assert about["accuracy"] == right.mean()
    assert about["accuracy_low"] < about["accuracy"] < about["accuracy_high"]


def test_fit_reports_and_leaves_one_file(tmp_path, capsys):
    assert main(["fit", str(TEXTURES), "-o", str(tmp_path / "m.skops"), "--pipeline", "hog-svm"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"{TEXTURES}: 36 images of 3 classes to train, 18 to test\n" in out
    assert "on 18 test images\n" in out
    assert f"saved to {tmp_path / 'm.skops'}" in out
    assert os.listdir(tmp_path) == ["m.skops"]


def test_a_folder_without_parts_is_learned_whole(tmp_path, capsys):
    path = tmp_path / "m.skops"
    assert main(["fit", str(TEXTURES / "test"), "-o", str(path), "--pipeline", "hog-svm"]) == 0
    assert "18 images of 3 classes to train, no test part\n" in capsys.readouterr().out
    about = inspect_model(path).metadata["user"]
    assert about["n_train"] == 18
    assert "accuracy" not in about


def test_the_fingerprint_is_that_of_the_training_data(tmp_path, model):
    def fingerprint(size, seed=0):
        arguments = ["--pipeline", "hog-svm", "--seed", str(seed), "--size", str(size)]
        main(["fit", str(TEXTURES), "-o", str(tmp_path / "m.skops"), *arguments])
        return inspect_model(tmp_path / "m.skops").metadata["user"]["fingerprint"]

    first = inspect_model(model).metadata["user"]["fingerprint"]
    assert len(first) == 64
    assert fingerprint(32, seed=1) == first
    assert fingerprint(31) != first
    dataset = load_image_folder(TEXTURES, 32)
    labels = dataset.target_names[dataset.target[dataset.train]]
    assert training_data._fingerprint(list(dataset.images[dataset.train]), labels) == first
    assert training_data._fingerprint(dataset.images[dataset.train], labels[::-1]) != first


@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "rgb"])
def test_a_model_of_arrays_reads_pictures_at_their_size(tmp_path, capsys, channels):
    images = np.random.default_rng(0).integers(0, 256, (12, 20, 16, *channels), dtype=np.uint8)
    images[::2] //= 2
    y = np.tile([20, 3], 6)
    np.savez(tmp_path / "a.npz", X_train=images, y_train=y, X_test=images, y_test=y)
    model = tmp_path / "m.skops"
    assert main(["fit", str(tmp_path / "a.npz"), "-o", str(model), "--pipeline", "hog-svm"]) == 0
    about = inspect_model(model).metadata["user"]
    assert (about["size"], about["color"]) == ([20, 16], "rgb" if channels else "gray")
    assert about["accuracy"] == 1
    for k, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{k:02}.png")
    capsys.readouterr()
    status, lines, _ = predicted(capsys, model, tmp_path)
    assert status == 0
    assert [line.split("\t")[1] for line in lines] == ["20", "3"] * 6
    assert main(["evaluate", str(model), str(tmp_path / "a.npz")]) == 0
    assert "accuracy           1.000" in capsys.readouterr().out


def test_fit_skips_and_lists_what_cannot_be_read(mixed, tmp_path, capsys):
    path, report = tmp_path / "m.skops", tmp_path / "m.skipped.csv"
    arguments = ["fit", str(mixed), "-o", str(path), "--pipeline", "hog-svm"]
    assert str(mixed / "brick" / "03.png") in one_error(capsys, arguments)
    assert os.listdir(tmp_path) == ["mixed"]
    assert main([*arguments, "--errors", "skip"]) == 3
    out, err = capsys.readouterr()
    assert "11 images of 2 classes to train, no test part\n" in out
    assert f"2 of 13 pictures are left out, see {report}" in err
    assert err.count("cannot be read as a picture") == 2
    rows = list(csv.DictReader(report.open()))
    assert [row["path"] for row in rows] == [str(mixed / "brick" / name) for name in ("03.png", "zz.jpg")]
    assert inspect_model(path).metadata["user"]["n_skipped"] == 2
    good = sorted(map(str, [*mixed.glob("brick/0[01245].png"), *mixed.glob("grass/*")]))
    own = make_hog_svm(random_state=0).fit(read_pictures(good)[1], [Path(file).parent.name for file in good])
    assert np.array_equal(load(path)[-1].coef_, own[-1].coef_)
    with pytest.raises(ValueError, match=r"zz\.jpg"):  # the deployed model leaves nothing out
        load(path).predict([str(mixed / "brick" / "zz.jpg")])


def test_an_earlier_list_of_skipped_pictures_is_replaced(tmp_path, capsys):
    (tmp_path / "m.skipped.csv").write_text("path,reason\nold.png,gone.\n")
    arguments = ["-o", str(tmp_path / "m.skops"), "--pipeline", "hog-svm", "--errors", "skip"]
    assert main(["fit", str(TEXTURES), *arguments]) == 0
    assert (tmp_path / "m.skipped.csv").read_text() == "path,reason\n"


def test_skipped_test_pictures_do_not_shift_the_parts(mixed, tmp_path, capsys):
    folder = tmp_path / "parts"
    shutil.copytree(mixed, folder / "train")
    shutil.copytree(mixed, folder / "test")
    path = tmp_path / "m.skops"
    assert main(["fit", str(folder), "-o", str(path), "--pipeline", "hog-svm", "--errors", "skip"]) == 3
    about = inspect_model(path).metadata["user"]
    assert (about["n_train"], about["n_test"], about["n_skipped"]) == (11, 11, 4)
    assert about["accuracy"] == 1  # the same pictures


def test_a_class_of_which_nothing_can_be_read(mixed, tmp_path, capsys):
    for file in (mixed / "brick").iterdir():
        file.write_bytes(b"")
    arguments = ["fit", mixed, "-o", tmp_path / "m.skops", "--pipeline", "hog-svm", "--errors", "skip"]
    assert "No picture of the class 'brick' can be read" in one_error(capsys, arguments)
    assert os.listdir(tmp_path) == ["mixed"]


@pytest.mark.parametrize("size", [None, 16])
def test_pictures_that_do_not_fit_into_memory(tmp_path, capsys, monkeypatch, size):
    needed = load_image_folder(TEXTURES, size).images.nbytes
    arguments = ["fit", str(TEXTURES), "-o", str(tmp_path / "m.skops"), "--pipeline", "hog-svm"]
    arguments += ["--size", str(size)] if size else []
    monkeypatch.setattr(training_data, "available_bytes", lambda: needed - 1)
    monkeypatch.setattr(training_data, "iter_pictures", None)  # nothing may be read
    assert "The 54 pictures take about" in one_error(capsys, arguments)
    monkeypatch.undo()
    monkeypatch.setattr(training_data, "available_bytes", lambda: needed + 1)
    assert main(arguments) == 0


def test_available_memory(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:   7 kB\n")
    assert training_data.available_bytes(tmp_path / "meminfo") == 7 * 1024
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\n")
    assert training_data.available_bytes(tmp_path / "meminfo") == float("inf")


def test_a_long_fit_is_announced(tmp_path, capsys, monkeypatch):
    arguments = ["fit", str(TEXTURES), "-o", str(tmp_path / "m.skops"), "--pipeline", "hog-svm"]
    monkeypatch.setattr(forecast, "_MANY_IMAGES", 36)
    assert main(arguments) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(forecast, "_LONG", 0)
    assert main(arguments) == 0
    announced = rf"{TEXTURES}: hog-svm will take about \d+ s and 0\.0 GiB for 36 images\n"
    assert re.fullmatch(announced, capsys.readouterr().err)


def test_a_forest_says_what_using_it_takes(tmp_path, capsys, monkeypatch):
    def make_small_forest(**options):
        return make_pipeline(ColorHistogram(), RandomForestClassifier(20, random_state=0))

    path = tmp_path / "f.skops"
    monkeypatch.setitem(PIPELINES, "forest", make_small_forest)
    assert main(["fit", str(TEXTURES), "-o", str(path), "--pipeline", "forest"]) == 0
    assert f"to use it takes --trust {TREE}\n" in capsys.readouterr().out
    refused = one_error(capsys, ["predict", path, TEST_FILES[0]])
    assert TREE in refused
    assert f"add --trust {TREE}\n" in refused
    status, lines, _ = predicted(capsys, path, *TEST_FILES, "--trust", TREE, "--proba")
    assert status == 0
    assert [line.split("\t")[1] for line in lines] == load(path, trusted=[TREE]).predict(TEST_FILES).tolist()


# --- fit --store ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hog-svm", "hog-color-svm"])
def test_a_model_fitted_through_a_store_answers_the_same(name, tmp_path, capsys):
    options = ["--pipeline", name, "--size", "32"]
    assert main(["fit", str(TEXTURES), "-o", str(tmp_path / "a.skops"), *options]) == 0
    out = capsys.readouterr().out
    assert main(["fit", str(TEXTURES), "-o", str(tmp_path / "b.skops"), *options, "--store", str(tmp_path / "s")]) == 0
    through, err = capsys.readouterr()
    assert err == ""
    assert f"{TEXTURES}: 36 pictures of 3 classes to train, 18 to test\n" in through
    (accuracy,) = (line for line in out.splitlines() if line.startswith("accuracy"))
    assert accuracy in through
    first, second = load(tmp_path / "a.skops"), load(tmp_path / "b.skops")
    assert list(first.named_steps) == list(second.named_steps)
    train = training_files()[0]
    scores = first.decision_function(train)
    np.testing.assert_allclose(second.decision_function(train), scores, atol=0.06 * abs(scores).max())
    assert first.predict(TEST_FILES).tolist() == second.predict(TEST_FILES).tolist()
    about = [inspect_model(tmp_path / name).metadata["user"] for name in ("a.skops", "b.skops")]
    assert about[1].pop("features") == json.loads((tmp_path / "s" / "manifest.json").read_text())["key"]
    del about[0]["fingerprint"]
    assert about[0] == about[1]


@pytest.mark.parametrize(("name", "few"), [("hog-svm", (53, 2**28)), ("color-forest", (5000, 54 * 3 * 32**2 - 1))])
def test_many_pictures_go_through_a_store_by_themselves(name, few, tmp_path, capsys, monkeypatch):
    options = ["fit", str(TEXTURES), "--pipeline", name, "--size", "32"]
    assert main([*options, "-o", str(tmp_path / "few.skops")]) == 0
    monkeypatch.setattr(training_data, "_read", None)  # which would have all of them in memory
    monkeypatch.setattr(fit_files, "_FEW", few[0])
    monkeypatch.setattr(fit_files, "_FEW_BYTES", few[1])
    assert main([*options, "-o", str(tmp_path / "many.skops")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"few.skops", "many.skops"}
    trusted = ["sklearn.tree._tree.Tree"]
    few, many = (load(tmp_path / f"{which}.skops", trusted=trusted) for which in ("few", "many"))
    assert few.predict(TEST_FILES).tolist() == many.predict(TEST_FILES).tolist()


@pytest.mark.parametrize("name", ["bovw-svm", "fast"])
def test_what_learns_features_learns_from_all(name, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_files, "_FEW", 1)
    monkeypatch.setattr(fit_files, "fit_files", None)
    assert main(["fit", str(TEXTURES), "-o", str(tmp_path / "m.skops"), "--pipeline", name, "--size", "32"]) == 0


def test_an_interrupted_fit_leaves_no_store(tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_files, "_FEW", 1)
    monkeypatch.setattr(fit_files, "predict_files", interrupted)
    assert main(["fit", str(TEXTURES), "-o", str(tmp_path / "m.skops"), "--pipeline", "hog-svm", "--size", "32"]) == 130
    assert not list(tmp_path.iterdir())


def test_a_store_skips_and_lists_what_cannot_be_read(mixed, tmp_path, capsys):
    folder, path = tmp_path / "parts", tmp_path / "m.skops"
    shutil.copytree(mixed, folder / "train")
    shutil.copytree(mixed, folder / "test")
    (folder / "test" / "brick" / "zz.jpg").unlink()
    (folder / "train" / "grass" / "folder.jpg").mkdir()
    arguments = ["fit", str(folder), "-o", str(path), "--pipeline", "hog-svm", "--store", str(tmp_path / "s")]
    assert str(folder / "train" / "brick" / "03.png") in one_error(capsys, arguments)
    assert main([*arguments, "--errors", "skip"]) == 3
    assert f"3 of 25 pictures are left out, see {tmp_path / 'm.skipped.csv'}" in capsys.readouterr().err
    rows = list(csv.DictReader((tmp_path / "m.skipped.csv").open()))
    bad = ["train/brick/03.png", "train/brick/zz.jpg", "test/brick/03.png"]
    assert [row["path"] for row in rows] == [str(folder / name) for name in bad]
    about = inspect_model(path).metadata["user"]
    assert (about["n_train"], about["n_test"], about["n_skipped"]) == (11, 11, 3)


def test_an_interrupted_store_goes_on(tmp_path, capsys, monkeypatch):
    arguments = ["fit", str(TEXTURES / "train"), "-o", str(tmp_path / "m.skops"), "--pipeline", "hog-svm"]
    arguments += ["--size", "32", "--store", str(tmp_path / "s")]
    monkeypatch.setattr(fit_files, "_CHUNK", 5)
    with monkeypatch.context() as patch:
        patch.setattr(fit_files.LinearSVC, "fit", _interrupted)
        assert main(arguments) == 130
    chunks = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("chunk-*.npy")}
    assert len(chunks) == 8
    assert main(arguments) == 0
    assert chunks == {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("chunk-*.npy")}
    capsys.readouterr()
    arguments[arguments.index("32")] = "31"
    assert "overwrite=True to delete them" in one_error(capsys, arguments)
    assert main([*arguments, "--overwrite"]) == 0


def _interrupted(self, X, y):
    raise KeyboardInterrupt


def test_stages_are_shown_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    arguments = ["fit", str(TEXTURES), "-o", str(tmp_path / "m.skops"), "--pipeline", "hog-svm"]
    assert main([*arguments, "--store", str(tmp_path / "s")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{TEXTURES}: 36 pictures")
    for shown in ("learning features from 36 images", "computing features", "36/36", "fitting LinearSVC", "testing"):
        assert shown in err


def test_a_sample_that_does_not_fit_into_memory(tmp_path, capsys, monkeypatch):
    arguments = ["fit", TEXTURES, "-o", tmp_path / "m.skops", "--store", tmp_path / "s", "--size", "32"]
    monkeypatch.setattr(fit_files, "available_bytes", lambda: 3 * 32**2 * 20)
    assert "The 36 pictures that features are learned from take" in one_error(capsys, arguments)
    assert not (tmp_path / "s").exists()
    arguments += ["--max-images", 20, "--pipeline", "hog-svm"]
    assert main(list(map(str, arguments))) == 0


def test_a_class_of_which_a_store_can_read_nothing(mixed, tmp_path, capsys):
    shutil.copytree(mixed / "grass", mixed / "lawn")
    for file in (mixed / "brick").iterdir():
        file.write_bytes(b"")
    arguments = ["fit", mixed, "-o", tmp_path / "m.skops", "--pipeline", "hog-svm", "--errors", "skip"]
    assert "No picture of the class 'brick' can be" in one_error(capsys, [*arguments, "--store", tmp_path / "s"])


@pytest.mark.parametrize("store", [[], ["--store", "s"]])
def test_a_draft_is_read_as_it_was_learned(tmp_path, capsys, monkeypatch, store):
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", TEXTURES, "-o", "m.skops", "--pipeline", "hog-svm", *store, "--draft"]
    assert "--draft shrinks pictures to no less than --size N" in one_error(capsys, arguments)
    assert main([*map(str, arguments), "--size", "16"]) == 0
    assert load("m.skops")[0].draft is True
    assert saved_model.load_saved_model(Path("m.skops"), []).options["draft"] is True


def test_an_interrupted_fit_leaves_nothing(tmp_path, capsys, monkeypatch):
    class Interrupted(LinearSVC):
        def fit(self, X, y):
            raise KeyboardInterrupt

    monkeypatch.setitem(PIPELINES, "interrupted", lambda **options: make_pipeline(HOG(), Interrupted()))
    path = tmp_path / "m.skops"
    assert main(["fit", str(TEXTURES), "-o", str(path), "--pipeline", "interrupted", "--errors", "skip"]) == 130
    assert os.listdir(tmp_path) == []
