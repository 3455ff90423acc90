import csv
import os

import numpy as np
import pytest
from PIL import Image
from sklearn.utils import Bunch

from classic_cls import load_digits, load_faces, load_image_folder, load_textures
from classic_cls.benchmark import _prediction_files
from classic_cls.benchmark.predictions import Predictions, read_predictions, split_fingerprint, write_predictions


def bunch(names=("cat", "dog", "owl"), n_test=6, seed=0):
    rng = np.random.default_rng(seed)
    n = 4 + n_test
    return Bunch(
        images=rng.integers(0, 256, (n, 5, 4), dtype=np.uint8),
        target=np.arange(n) % len(names),
        target_names=np.array(names),
        train=np.arange(4),
        test=rng.permutation(np.arange(4, n)),
    )


def guesses(dataset, seed=1):
    """Predictions with scores, as a model would make them."""
    classes = np.arange(len(dataset.target_names))
    scores = np.random.default_rng(seed).dirichlet(np.ones(len(classes)), len(dataset.test))
    return Predictions(scores.argmax(1), scores, classes)


def same(first, second):
    if first.scores is not None:
        np.testing.assert_allclose(first.scores, second.scores, rtol=1e-14)
        np.testing.assert_array_equal(first.classes, second.classes)
    return np.array_equal(first.labels, second.labels) and (first.scores is None) == (second.scores is None)


def csv_file(path, *rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder of pictures of different sizes, whose classes are numbers that sort as text."""
    rng = np.random.default_rng(0)
    for k in range(11):
        (tmp_path / "pictures" / str(k)).mkdir(parents=True)
        for j in range(4):
            pixels = rng.integers(0, 256, (6 + j, 5 + k, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / str(k) / f"{j}, really.png")
    return load_image_folder(tmp_path / "pictures")


# Predictions


def test_columns_are_sorted_with_the_classes():
    said = Predictions(["b"], [[0.5, 0.2, 0.3]], ["c", "a", "b"])
    assert said.classes.tolist() == ["a", "b", "c"]
    assert said.scores.tolist() == [[0.2, 0.3, 0.5]]


def test_rows_are_divided_by_their_sum():
    said = Predictions([0], np.array([[0.333, 0.333, 0.333]], np.float16), [0, 1, 2])
    assert said.scores.dtype == np.float64
    assert said.scores.sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[0.1, np.nan]], "NaN or infinity in 1 rows, 0;"),
        ([[0.1, np.inf]], "NaN or infinity"),
        ([[-1.0, 2.0]], "apply softmax"),
        ([[3.0, 2.0]], "apply softmax"),
        ([np.log([0.3, 0.7])], "apply exp"),
        ([[0.9, 0.8]], "sigmoids"),
        ([[0.2, 0.3, 0.5]], r"shape \(1, 3\); expected \(1, 2\)"),
        ([0.2, 0.8], r"shape \(2,\)"),
        ([["many", "few"]], "can't be read as numbers"),
    ],
)
def test_scores_that_are_no_probabilities(scores, message):
    with pytest.raises(ValueError, match=message):
        Predictions([0], scores, [0, 1])


def test_labels_and_classes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"shape \(1, 2\) and dtype float64"):
        Predictions([[0.1, 0.9]])
    with pytest.raises(ValueError, match="no classes"):
        Predictions([0], [[0.1, 0.9]])
    with pytest.raises(ValueError, match="name 7 twice"):
        Predictions([7], [[0.1, 0.9]], [7, 7])
    with pytest.raises(ValueError, match="expected the same of both"):
        Predictions(["7"], [[0.1, 0.9]], [6, 7])


# Files


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".CSV"])
@pytest.mark.parametrize("load", [load_digits, load_faces, load_textures])
@pytest.mark.parametrize("with_scores", [True, False])
def test_reads_what_it_writes(tmp_path, suffix, load, with_scores):
    dataset = load()
    said = guesses(dataset)
    said = said if with_scores else Predictions(said.labels)
    path = tmp_path / f"said{suffix}"
    write_predictions(path, said, dataset)
    found = read_predictions(str(path), dataset)
    assert same(found, said)
    assert found.labels.dtype == dataset.target.dtype
    assert os.listdir(tmp_path) == [path.name]


def test_file_names_are_ids(tmp_path, folder):
    said = guesses(folder)
    write_predictions(tmp_path / "said.npz", said, folder)
    with np.load(tmp_path / "said.npz") as file:
        content = dict(file)
    assert content["ids"].tolist() == folder.filenames[folder.test].tolist()
    order = np.random.default_rng(2).permutation(len(said.labels))
    content |= {key: content[key][order] for key in ("ids", "y_pred", "scores")}
    np.savez(tmp_path / "shuffled.npz", **content)
    assert same(read_predictions(tmp_path / "shuffled.npz", folder), said)
    content["ids"] = order
    np.savez(tmp_path / "positions.npz", **content)
    assert same(read_predictions(tmp_path / "positions.npz", folder), said)


def test_names_that_are_other_labels_are_refused_as_numbers(tmp_path, folder):
    assert folder.target_names.tolist()[:3] == ["0", "1", "10"]
    labels = folder.target[folder.test]
    np.savez(tmp_path / "strings.npz", y_pred=folder.target_names[labels])
    assert read_predictions(tmp_path / "strings.npz", folder).labels.tolist() == labels.tolist()
    np.savez(tmp_path / "numbers.npz", y_pred=labels)
    with pytest.raises(ValueError, match=r"numbers that are labels and, with another meaning, names.*np[yz].*strings"):
        read_predictions(tmp_path / "numbers.npz", folder)
    with pytest.raises(ValueError, match="would not be read as written"):
        write_predictions(tmp_path / "said.csv", Predictions(labels), folder)
    assert not (tmp_path / "said.csv").exists()
    np.savez(tmp_path / "unequivocal.npz", y_pred=np.ones(len(labels), int))  # label 1 is called "1"
    assert set(read_predictions(tmp_path / "unequivocal.npz", folder).labels) == {1}


def test_classes_in_any_order_and_by_label_or_name(tmp_path):
    dataset = bunch()
    said, order = guesses(dataset), [2, 0, 1]
    for classes in (np.array(order), dataset.target_names[order], np.array(["2", "0", "1"])):
        np.savez(tmp_path / "said.npz", scores=said.scores[:, order], classes=classes)
        assert same(read_predictions(tmp_path / "said.npz", dataset), said)
        csv_file(tmp_path / "said.csv", classes, *said.scores[:, order])
        assert same(read_predictions(tmp_path / "said.csv", dataset), said)


def test_csv_by_id(tmp_path):
    dataset = bunch()
    path = csv_file(
        tmp_path / "said.csv",
        ["label", "id"],
        *zip(["cat", "dog", "owl", "owl", "cat", "owl"], range(5, -1, -1), strict=True),
    )
    assert read_predictions(path, dataset).labels.tolist() == [2, 0, 2, 2, 1, 0]


def test_labels_that_are_strings(tmp_path):
    dataset = bunch()
    dataset.target = dataset.target_names[dataset.target]
    said = Predictions(np.array(["owl", "cat"] * 3))
    write_predictions(tmp_path / "said.csv", said, dataset)
    assert same(read_predictions(tmp_path / "said.csv", dataset), said)


def test_y_pred_beside_scores_wins_unless_it_contradicts_them(tmp_path):
    dataset = bunch()
    scores = np.full((6, 3), 0.2) + 0.4 * np.eye(3)[[0, 1, 2, 0, 1, 2]]
    np.savez(tmp_path / "said.npz", y_pred=[0, 1, 2, 0, 1, 1], scores=scores, classes=[0, 1, 2])
    assert read_predictions(tmp_path / "said.npz", dataset).labels.tolist() == [0, 1, 2, 0, 1, 1]
    np.savez(tmp_path / "said.npz", y_pred=[0, 1, 2, 0, 1, 2], scores=scores, classes=[1, 2, 0])
    with pytest.raises(ValueError, match=r"highest score in only 0 of 6 rows"):
        read_predictions(tmp_path / "said.npz", dataset)


SOME = ["cat", "dog", "owl", "cat", "dog", "owl"]
THIRD = np.full((6, 3), 1 / 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"y_pred": SOME[:5]}, "has 5 rows; expected 6"),
        ({"y_pred": [*SOME[:5], "cow"]}, "y_pred has cow; expected classes of the data set, cat, dog, owl"),
        ({"y_pred": [0, 1, 2, 0, 1, 3]}, "y_pred has 3; expected classes"),
        ({"y_pred": np.zeros(6)}, "dtype float64; expected"),
        ({"y_pred": THIRD}, r"shape \(6, 3\)"),
        ({"y_pred": np.array(SOME, object)}, "cannot be read as .* plain arrays"),
        ({"y_pred": SOME, "ids": [0, 1, 2, 3, 4, 4]}, "1 doubled, 4; expected each test image once, 0, 1, 2"),
        ({"y_pred": SOME, "ids": [0, 1, 2, 3, 4, 6]}, "1 unknown, 6"),
        ({"y_pred": SOME[:4], "ids": [0, 1, 2, 3]}, "2 missing, 4, 5"),
        ({"y_pred": SOME, "ids": [0, 1]}, r"shape \(2,\).*expected \(6,\)"),
        ({"y_pred": SOME, "fingerprint": "0123456789abcdef"}, "has the fingerprint 0123456789abcdef, but"),
        ({"scores": THIRD}, "no column for cat, dog, owl"),
        ({"scores": THIRD[:, :2], "classes": SOME[:2]}, "no column for owl"),
        ({"scores": THIRD, "classes": ["cat", "dog", "cow"]}, "classes has cow"),
        ({"scores": THIRD, "classes": [0, 1, 0]}, "no column for owl"),
        ({"scores": np.full((6, 4), 0.25), "classes": [0, 1, 2, 2]}, "two columns for 2"),
        ({"scores": THIRD[:, :2], "classes": [0, 1, 2]}, r"shape \(6, 2\); expected \(6, 3\)"),
        ({"scores": THIRD * 7 - 5, "classes": [0, 1, 2]}, "apply softmax"),
        ({"scores": THIRD[:5], "classes": [0, 1, 2], "y_pred": SOME}, r"shape \(5, 3\); expected \(6, 3\)"),
        ({"scores": THIRD[:5], "classes": [0, 1, 2]}, "has 5 rows"),
        ({"scores": np.float64(3), "classes": [0, 1, 2]}, r"shape \(\)"),
        ({"predictions": SOME}, "has predictions; expected y_pred, or scores"),
        ({}, "has nothing; expected y_pred"),
        ({"y_pred": np.zeros(0, int)}, "has 0 rows"),
        ({"scores": np.zeros((0, 3)), "classes": [0, 1, 2]}, "has 0 rows"),
    ],
)
def test_npz_that_does_not_fit(tmp_path, content, message):
    np.savez(tmp_path / "said.npz", **content)
    with pytest.raises(ValueError, match=f"(?s)said.npz: .*{message}"):
        read_predictions(tmp_path / "said.npz", bunch())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "with a header"),
        ("\n", ""),
        ("y_pred\n", "has 0 rows"),
        ("y_pred,label\ncat,cat\n", "expected y_pred or label, nothing twice"),
        ("y_pred,y_pred\ncat,cat\n", "nothing twice"),
        ("y_pred\ncat\ndog,dog\n", "line 3 has 2 fields; expected 1"),
        ("id,y_pred\n0,cat\n1", "line 3 has 1 fields; expected 2"),
        ('y_pred\n"cat\n', "cannot be read as a .csv file"),
        ("id,confidence\n0,0.3\n", "classes has confidence"),
        ("cat,dog\n0.5,0.5\n", "no column for owl"),
        ("cat,dog,owl\n0.5,0.5,\n", "can't be read as numbers"),
        ("cat,dog,owl\n0.5,0.5,nan\n", "NaN or infinity"),
        ("cat,dog,owl,cat\n0.2,0.3,0.2,0.3\n", "two columns"),
        ("id\n0\n", "has ids; expected y_pred"),
        ("y_pred,fingerprint\ncat,a\ncat,b\n", "has the fingerprint a, b"),
    ],
)
def test_csv_that_does_not_fit(tmp_path, text, message):
    (tmp_path / "said.csv").write_text(text)
    with pytest.raises(ValueError, match=f"said.csv: .*{message}"):
        read_predictions(tmp_path / "said.csv", bunch())


@pytest.mark.parametrize("name", ["said.csv", "said.npz"])
def test_truncated_files(tmp_path, name):
    dataset = load_textures()
    write_predictions(tmp_path / name, guesses(dataset), dataset)
    whole = (tmp_path / name).read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=name):
            read_predictions(tmp_path / name, dataset)


def test_not_a_file_of_predictions(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_predictions(tmp_path / "none.npz", bunch())
    with pytest.raises(ValueError, match=r"ends in '\.json'"):
        read_predictions(tmp_path / "said.json", bunch())
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.zeros(3))
    (tmp_path / "text.npz").write_text("y_pred\ncat\n")
    (tmp_path / "binary.csv").write_bytes(b"y_pred\n\xff\xfe\n")
    for name in ("array.npz", "text.npz", "binary.csv"):
        with pytest.raises(ValueError, match="cannot be read as"):
            read_predictions(tmp_path / name, bunch())


def test_several_labels_per_image_are_refused(tmp_path):
    dataset = bunch()
    dataset.target = np.eye(3, dtype=int)[dataset.target]
    for call in (lambda p: read_predictions(p, dataset), lambda p: write_predictions(p, Predictions([0] * 6), dataset)):
        with pytest.raises(ValueError, match="indicator matrix"):
            call(tmp_path / "said.npz")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (Predictions([0, 1]), "There are 2 predictions; expected 6"),
        (Predictions([0, 1, 2, 3, 4, 5]), "have 3, 4, 5; expected labels of the data set, 0, 1, 2"),
        (Predictions(SOME), "have cat, dog, owl; expected labels"),
        (Predictions([0] * 6, THIRD[:, :2] * 1.5, [0, 1]), "no column for owl"),
        (Predictions([0] * 6, THIRD, [0, 1, 5]), "have 5"),
    ],
)
def test_predictions_of_other_data_are_not_written(tmp_path, said, message):
    with pytest.raises(ValueError, match=message):
        write_predictions(tmp_path / "said.npz", said, bunch())
    assert os.listdir(tmp_path) == []


def test_a_class_called_like_a_column(tmp_path):
    dataset = bunch(("label", "other"))
    said = guesses(dataset)
    with pytest.raises(ValueError, match=r"An \.npz file would"):
        write_predictions(tmp_path / "said.csv", said, dataset)
    write_predictions(tmp_path / "said.npz", said, dataset)
    assert same(read_predictions(tmp_path / "said.npz", dataset), said)


@pytest.mark.parametrize("name", ["said.csv", "said.npz"])
def test_an_older_file_is_replaced_only_by_a_whole_one(tmp_path, name, monkeypatch):
    dataset = bunch()
    write_predictions(tmp_path / name, guesses(dataset), dataset)
    before = (tmp_path / name).read_bytes()

    def fails(path, content):
        path.write_text("half")
        raise OSError("disk full")

    for writer in ("_write_npz", "_write_csv"):
        monkeypatch.setattr(_prediction_files, writer, fails)
    with pytest.raises(OSError, match="disk full"):
        write_predictions(tmp_path / name, guesses(dataset, seed=2), dataset)
    assert (tmp_path / name).read_bytes() == before
    assert os.listdir(tmp_path) == [name]


# Fingerprint


def test_fingerprint_is_the_same_everywhere():
    assert split_fingerprint(bunch()) == "7c4e1ff2d3e620b9"


def test_fingerprint_of_a_list_of_images(folder):
    assert isinstance(folder.images, list)
    assert len(split_fingerprint(folder)) == 16
    as_array, as_list = bunch(), bunch()
    as_list.images = list(as_list.images)
    assert split_fingerprint(as_list) == split_fingerprint(as_array)
    as_list.images[0] = as_list.images[0][:2]  # a training image
    assert split_fingerprint(as_list) == split_fingerprint(as_array)


def test_fingerprint_tells_splits_apart():
    changed = [bunch() for _ in range(6)]
    changed[0].images[changed[0].test[2], 1, 1] ^= 1
    changed[1].target[changed[1].test[0]] += 1
    changed[2].test = changed[2].test[::-1]
    changed[3].test = changed[3].test[:-1]
    changed[4].images = changed[4].images.reshape(-1, 4, 5)
    changed[5].images = changed[5].images.astype(np.int16)
    assert len({split_fingerprint(dataset) for dataset in [bunch(), *changed]}) == 7
    swapped = bunch()
    swapped.images = swapped.images.astype(">i2")
    assert split_fingerprint(swapped) == split_fingerprint(changed[5])


def test_files_of_other_splits_are_refused(tmp_path):
    write_predictions(tmp_path / "said.csv", guesses(bunch()), bunch())
    with pytest.raises(ValueError, match=r"has the fingerprint .* but this test split has"):
        read_predictions(tmp_path / "said.csv", bunch(seed=1))
