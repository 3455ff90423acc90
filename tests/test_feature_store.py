"""A store holds what the transformer would give at once, whatever happened on the way, or says what is wrong."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import crops
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from classic_cls import (
    HOG,
    BagOfVisualWords,
    ColorHistogram,
    DenseSIFT,
    FeatureStore,
    LinearSVC,
    ReadImages,
    _store_files,
    compute_features,
    load,
    save,
)
from classic_cls._fingerprint import fingerprint


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (23, 16, 16), dtype=np.uint8)


@pytest.fixture(scope="module")
def hog(images):
    return HOG(cells_per_block=1).fit(images)


@pytest.fixture
def pictures(tmp_path):
    """Paths of seven pictures of different sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(7):
        Image.fromarray(crops(1, 20 + i, 24)[0]).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


def chunk_files(folder):
    return sorted(folder.glob("chunk-*.npy"))


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in chunk_files(folder)}


# --- What is in it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [1, 5, 22, 23, 100])
def test_the_features_are_those_of_all_at_once(chunk_size, images, hog, tmp_path):
    store = compute_features(hog, images, tmp_path / "deep" / "store", chunk_size=chunk_size)
    expected = hog.transform(images)
    assert store.shape == expected.shape
    assert len(store) == 23
    assert store.dtype == np.float32
    np.testing.assert_array_equal(store.array(), expected)
    np.testing.assert_array_equal(np.asarray(store), expected)
    chunks = list(store.chunks())
    assert len(chunks) == -(-23 // chunk_size)
    assert all(isinstance(rows, np.memmap) and not rows.flags.writeable for rows in chunks)
    np.testing.assert_array_equal(np.concatenate(chunks), expected)
    assert store.verify() == []
    assert store.labels is None
    assert store.skipped == ()
    np.testing.assert_array_equal(store.indices, np.arange(23))


def test_the_format_is_ordinary(images, hog, tmp_path):
    compute_features(hog, images, tmp_path, np.arange(23), chunk_size=10)
    names = ["chunk-000000.npy", "chunk-000001.npy", "chunk-000002.npy", "inputs.npy", "manifest.json", "y.npy"]
    assert sorted(os.listdir(tmp_path)) == names
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["format"], manifest["n_inputs"], manifest["n_features"], manifest["dtype"]) == (1, 23, 36, "<f4")
    assert manifest["transformer"] == "HOG(cells_per_block=1)"
    assert [manifest["chunks"][name]["rows"] for name in names[:3]] == [10, 10, 3]
    np.testing.assert_array_equal(np.load(tmp_path / names[2]), hog.transform(images[20:]))


ROWS = [
    0,
    -1,
    np.int64(22),
    slice(None),
    slice(3, 17),
    slice(20, 2, -3),
    slice(5, 5),
    [21, 0, 0, 9, -2],
    np.arange(23) % 3 == 0,
]


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_rows_are_found_in_their_chunks(rows, images, hog, tmp_path):
    store = compute_features(hog, images, tmp_path, chunk_size=4)
    np.testing.assert_array_equal(store[rows], hog.transform(images)[rows])


def test_a_row_beyond_the_last_is_an_error(images, hog, tmp_path):
    with pytest.raises(IndexError, match="23"):
        compute_features(hog, images, tmp_path)[23]


@pytest.mark.parametrize("y", [np.arange(23) % 2, list("abcdefghijklmnopqrstuvw"), np.eye(23, 3, dtype=bool)])
def test_labels_are_stored(y, images, hog, tmp_path):
    compute_features(hog, images, tmp_path, y, chunk_size=9)
    np.testing.assert_array_equal(FeatureStore.open(tmp_path).labels, y)
    y = np.asarray(y)[::-1]
    np.testing.assert_array_equal(compute_features(hog, images, tmp_path, y, chunk_size=9).labels, y)


def test_object_strings_are_labels(images, hog, tmp_path):
    y = np.array(["cat", "dog"] * 12, object)[:23]
    assert compute_features(hog, images, tmp_path, y).labels.tolist() == y.tolist()


def test_classifiers_learn_from_it(images, hog, tmp_path):
    y = np.arange(23) % 2
    store = compute_features(hog, images, tmp_path, y, chunk_size=7)
    np.testing.assert_array_equal(LinearSVC().fit(store.array(), y).coef_, LinearSVC().fit(store, y).coef_)
    model, start = SGDClassifier(random_state=0), 0
    for rows in store.chunks():
        model.partial_fit(rows, store.labels[start : start + len(rows)], classes=[0, 1])
        start += len(rows)
    assert model.t_ == 24


def test_a_list_of_images_of_any_size(tmp_path):
    images = [crop for size in (9, 14, 31) for crop in crops(3, size, 20)]
    histogram = ColorHistogram(bins=3).fit(images)
    store = compute_features(histogram, images, tmp_path, chunk_size=4)
    np.testing.assert_array_equal(store.array(), histogram.transform(images))


def test_a_pipeline_and_a_memory_map(images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    pipeline = make_pipeline(HOG(cells_per_block=1), StandardScaler(), PCA(5, random_state=0)).fit(images)
    store = compute_features(pipeline, mapped, tmp_path / "store", chunk_size=6, n_jobs=2)
    np.testing.assert_allclose(store.array(), pipeline.transform(images), rtol=1e-5, atol=1e-6)


def test_flat_rows(images, tmp_path):
    hog = HOG(cells_per_block=1, image_shape=(16, 16)).fit(images.reshape(23, -1))
    store = compute_features(hog, images.reshape(23, -1), tmp_path, chunk_size=8)
    np.testing.assert_array_equal(store.array(), hog.transform(images.reshape(23, -1)))


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda paths: list(map(str, paths))])
def test_paths(kind, pictures, tmp_path):
    hog = HOG(cells_per_block=1).fit(np.zeros((1, 16, 16, 3), np.uint8))
    store = compute_features(hog, kind(pictures), tmp_path / "store", chunk_size=3, size=16, n_jobs=2)
    np.testing.assert_array_equal(store.array(), hog.transform(ReadImages(16).fit_transform(pictures)))


def test_progress_counts_inputs(images, hog, tmp_path):
    calls = []
    compute_features(hog, images, tmp_path, chunk_size=10, progress=lambda done, n: calls.append((done, n)))
    assert calls == [(10, 23), (20, 23), (23, 23)]


# --- Whatever happens on the way --------------------------------------------------------------------------------------


def compute_until_killed(n_calls, transformer, images, folder):
    """Compute in another process, which dies of signal 9 after so many flushes and renamings; return how it ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    calls = iter(range(n_calls))

    def killed_before(function):
        return lambda *args: os.kill(os.getpid(), signal.SIGKILL) if next(calls, None) is None else function(*args)

    try:
        os.replace, os.fsync = killed_before(os.replace), killed_before(os.fsync)
        compute_features(transformer, images, folder, chunk_size=5)
    finally:
        os._exit(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks and kills like that")
def test_a_kill_costs_no_finished_chunk(images, hog, tmp_path):
    # Each file is a flush and a renaming: the manifest, the inputs, then a chunk and the manifest, again and again.
    for calls in range(2, 24):
        folder = tmp_path / str(calls)
        assert os.WTERMSIG(compute_until_killed(calls, hog, images, folder)) == signal.SIGKILL
        with pytest.raises(ValueError, match="have not been computed"):
            FeatureStore.open(folder)
        finished = json.loads((folder / "manifest.json").read_text())["chunks"]
        assert len(finished) == max(0, (calls - 4) // 4)
        before = times(folder)
        store = compute_features(hog, images, folder, chunk_size=5)
        assert all(times(folder)[name] == before[name] for name in finished)
        np.testing.assert_array_equal(store.array(), hog.transform(images))
        assert store.verify() == []
        assert not list(folder.glob("*.part"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only POSIX forks and kills like that")
@pytest.mark.parametrize("calls", [0, 1])
def test_a_kill_before_the_manifest_leaves_room(calls, images, hog, tmp_path):
    assert os.WTERMSIG(compute_until_killed(calls, hog, images, tmp_path)) == signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    assert len(compute_features(hog, images, tmp_path)) == 23
    assert not list(tmp_path.glob("*.part"))


def cut(path):
    os.truncate(path, path.stat().st_size - 7)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip_a_bit, os.unlink, lambda path: path.write_bytes(b"")])
def test_a_torn_chunk_is_found_and_computed_again(damage, images, hog, tmp_path):
    store = compute_features(hog, images, tmp_path, chunk_size=5)
    before = times(tmp_path)
    damage(chunk_files(tmp_path)[2])
    assert store.verify() == ["chunk-000002.npy"]
    if damage is not flip_a_bit:
        with pytest.raises(ValueError, match=r"chunk-000002.npy is missing or cut short"):
            FeatureStore.open(tmp_path)
    again = compute_features(hog, images, tmp_path, chunk_size=5)
    np.testing.assert_array_equal(again.array(), hog.transform(images))
    after = times(tmp_path)
    assert {name for name in after if after[name] != before[name]} == {"chunk-000002.npy"}


@pytest.mark.parametrize("lucky", [1, 3, 6])
def test_a_full_disk_leaves_no_torn_file(lucky, images, hog, tmp_path, monkeypatch):
    flushes = iter(range(100))

    def full(file):
        if next(flushes) >= lucky:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_store_files.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            compute_features(hog, images, tmp_path, chunk_size=5)
    assert not list(tmp_path.glob("*.part"))
    before = times(tmp_path)
    np.testing.assert_array_equal(compute_features(hog, images, tmp_path, chunk_size=5).array(), hog.transform(images))
    assert before.items() <= times(tmp_path).items() or lucky == 3  # written, but not yet in the manifest


def test_nothing_is_computed_twice(images, hog, tmp_path):
    compute_features(hog, images, tmp_path, chunk_size=5)
    before = times(tmp_path)
    compute_features(HOG(cells_per_block=1, n_jobs=2).fit(images), images.copy(), tmp_path, chunk_size=5)
    assert times(tmp_path) == before
    compute_features(hog, images, tmp_path, chunk_size=5, overwrite=True)
    assert not set(times(tmp_path).values()) & set(before.values())


def test_a_store_of_nothing_yet_gives_way(images, hog, tmp_path):
    with pytest.raises(ValueError, match="fitted on images of shape"):
        compute_features(HOG(cells_per_block=1).fit(images[:, :8]), images, tmp_path)
    assert len(compute_features(hog, images, tmp_path)) == 23


# --- Other features ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda hog, X: (HOG(orientations=8, cells_per_block=1).fit(X), X, {}),
            r"of HOG\(cells_per_block=1\), not HOG\(.*orientations=8\)",
        ),
        (lambda hog, X: (hog, X[:20], {}), "of 23 inputs, not 20"),
        (lambda hog, X: (hog, np.concatenate([X[:4], X[5:3:-1], X[6:]]), {}), "2 of 23 inputs .* first at index 4"),
        (lambda hog, X: (hog, X / 255, {}), "23 of 23 inputs have changed since, the first at index 0"),
        (lambda hog, X: (hog, X, {"chunk_size": 4}), "chunk_size=5, not 4"),
    ],
)
def test_other_features_are_refused(other, message, images, hog, tmp_path):
    compute_features(hog, images, tmp_path, np.arange(23), chunk_size=5)
    before = times(tmp_path)
    transformer, X, options = other(hog, images)
    options = {"chunk_size": 5} | options
    with pytest.raises(ValueError, match=f"{message}. Give another folder, or overwrite=True"):
        compute_features(transformer, X, tmp_path, **options)
    assert times(tmp_path) == before
    store = compute_features(transformer, X, tmp_path, overwrite=True, **options)
    np.testing.assert_array_equal(store.array(), transformer.transform(X))
    assert store.labels is None


def test_what_was_learned_is_part_of_the_key(photos, tmp_path):
    first, second = (
        BagOfVisualWords(DenseSIFT(), n_words=8, pyramid_levels=1, random_state=seed).fit(photos) for seed in (0, 1)
    )
    second.random_state = 0
    compute_features(first, photos, tmp_path)
    with pytest.raises(ValueError, match="fitted to something else"):
        compute_features(second, photos, tmp_path)


def test_the_key_outlasts_a_file(photos, tmp_path):
    model = make_pipeline(BagOfVisualWords(DenseSIFT(), n_words=8, random_state=0), StandardScaler()).fit(photos)
    save(model, tmp_path / "model.skops")
    assert fingerprint(load(tmp_path / "model.skops")) == fingerprint(model)


def test_the_key_is_the_same_in_other_processes():
    value = '[{"some", "words", "in", "a", "set"}, {"b": 1, "a": 2.5}, len, (None, b"x")]'
    code = f"from classic_cls._fingerprint import fingerprint; print(fingerprint({value}))"
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == fingerprint(eval(value))


VALUES = [
    1,
    1.0,
    True,
    "1",
    b"1",
    None,
    (1,),
    [1],
    [[1]],
    {1},
    {"1": 1},
    {1: "1"},
    np.int64(1),
    np.ones(1),
    np.ones(1, int),
]
VALUES += [
    np.ones((1, 1)),
    np.array([1], object),
    np.sum,
    np.mean,
    HOG,
    HOG(),
    HOG(1),
    ColorHistogram(),
    ["1", "1"],
    "11",
]
VALUES += [np.random.RandomState(0), np.random.RandomState(1), slice(1), slice(2), np.array(["1"])]


def test_all_values_have_their_own_fingerprints():
    assert len({fingerprint(value) for value in VALUES}) == len(VALUES)


def test_equal_values_have_one_fingerprint():
    array = np.arange(6.0).reshape(2, 3)
    shared = [array, array, {"a": 1, "b": 2}]
    assert fingerprint(shared) == fingerprint([array.copy(), np.asfortranarray(array), {"b": 2, "a": 1}])
    assert fingerprint(HOG(n_jobs=3)) == fingerprint(HOG())


# --- Paths ------------------------------------------------------------------------------------------------------------


def test_a_changed_file_is_an_error(pictures, tmp_path):
    histogram = ColorHistogram(bins=2).fit(crops(1, 8, 8))
    compute_features(histogram, pictures, tmp_path / "store", chunk_size=3)
    Image.new("RGB", (9, 9)).save(pictures[4])
    with pytest.raises(ValueError, match="1 of 7 inputs have changed since, the first at index 4"):
        compute_features(histogram, pictures, tmp_path / "store", chunk_size=3)
    with pytest.raises(ValueError, match="reading="):
        compute_features(histogram, pictures, tmp_path / "store", chunk_size=3, color="gray")


def test_a_file_that_changes_meanwhile_is_an_error(pictures, tmp_path):
    histogram = ColorHistogram(bins=2).fit(crops(1, 8, 8))

    def change(done, n):
        Image.new("RGB", (9, 9)).save(pictures[5])

    with pytest.raises(ValueError, match=r"5.png has changed since compute_features was called"):
        compute_features(histogram, pictures, tmp_path / "store", chunk_size=3, progress=change)
    assert len(chunk_files(tmp_path / "store")) == 1


def test_what_cannot_be_read_is_recorded(pictures, tmp_path):
    for i in (0, 3, 4, 5):
        pictures[i].write_bytes(b"no picture")
    histogram = ColorHistogram(bins=2).fit(crops(1, 8, 8))
    good = [1, 2, 6]
    expected = histogram.transform(ReadImages().fit_transform([pictures[i] for i in good]))
    options = {"chunk_size": 3, "errors": "skip"}
    for _ in range(2):  # computed, and found again
        with pytest.warns(UserWarning, match=r"4 of 7 pictures are left out; the first, .*0.png, cannot be read"):
            store = compute_features(histogram, pictures, tmp_path / "store", list("abcdefg"), **options)
        np.testing.assert_array_equal(store.array(), expected)
        assert store.indices.tolist() == good
        assert store.labels.tolist() == ["b", "c", "g"]
        assert [each.path for each in store.skipped] == [str(pictures[i]) for i in (0, 3, 4, 5)]
        assert [len(rows) for rows in store.chunks()] == [2, 1]  # nothing in the second could be read
        assert store[2].tolist() == expected[2].tolist()
    with pytest.raises(ValueError, match=r"0.png cannot be read"):
        compute_features(histogram, pictures, tmp_path / "other", chunk_size=3)


def test_a_missing_file_is_skipped_and_nothing_left_is_an_error(tmp_path):
    histogram = ColorHistogram(bins=2).fit(crops(1, 8, 8))
    with pytest.raises(ValueError, match=r"No picture could be read; the first, .*no.png, cannot be opened"):
        compute_features(histogram, [tmp_path / "no.png"], tmp_path / "store", errors="skip")
    with pytest.raises(FileNotFoundError, match=r"no.png"):
        compute_features(histogram, [tmp_path / "no.png"], tmp_path / "other")


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "options", "error", "message"),
    [
        ([], {}, ValueError, "no images and no paths"),
        (np.empty((0, 16, 16)), {}, ValueError, "no images and no paths"),
        ("a.png", {}, TypeError, "one path; expected several"),
        (3, {}, TypeError, "X=array.3.; expected images, or paths"),
        (["a.png", np.zeros((8, 8))], {}, TypeError, "ndarray at index 1"),
        (None, {"chunk_size": 0}, ValueError, "chunk_size=0; expected a positive int"),
        (None, {"errors": "warn"}, ValueError, "errors='warn'; expected one of 'raise', 'skip'"),
        (None, {"size": 8}, ValueError, "size: only for paths"),
        (None, {"sizes": 8}, TypeError, "sizes"),
        (["a.png"], {"size": -1}, ValueError, "size=-1"),
        (["a.png"], {"color": "blue"}, ValueError, "color='blue'"),
        (None, {"y": [1, 2]}, ValueError, r"y has shape \(2,\); expected \(23,\)"),
        (None, {"y": [1, "a", *[None] * 21]}, TypeError, "y holds other things"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(X, options, error, message, images, hog, tmp_path):
    with pytest.raises(error, match=message):
        compute_features(hog, images if X is None else X, tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


def nan(X):
    return np.full((len(X), 2), np.nan)


def one_row(X):
    return np.zeros((1, 2))


def varying(X):
    return np.zeros((len(X), len(X)))


@pytest.mark.parametrize(
    ("function", "message"),
    [(nan, "hold NaN"), (one_row, r"have shape \(1, 2\)"), (varying, "inputs 20 to 22 are 3 numbers")],
)
def test_bad_features_are_refused(function, message, images, tmp_path):
    with pytest.raises(ValueError, match=message):
        compute_features(FunctionTransformer(function).fit(images), images, tmp_path, chunk_size=10)


@pytest.mark.parametrize(
    ("transformer", "error", "message"),
    [
        (HOG(), NotFittedError, "not fitted"),
        (LinearSVC(), TypeError, r"LinearSVC has no transform; .* model\[:-1\]"),
        (FunctionTransformer(lambda X: X), TypeError, "top level"),
        (FunctionTransformer(kw_args={"file": sys.stderr}), TypeError, "has no lasting identity"),
    ],
)
def test_bad_transformers_are_refused(transformer, error, message, images, tmp_path):
    with pytest.raises(error, match=message):
        compute_features(transformer, images, tmp_path / "store")


def test_a_folder_of_other_things_is_left_alone(images, hog, tmp_path):
    (tmp_path / "y.npy").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"holds 'y.npy' and is no feature store"):
        compute_features(hog, images, tmp_path, overwrite=True)
    assert os.listdir(tmp_path) == ["y.npy"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 1}', '{"format": 2}'])
def test_a_damaged_manifest_is_told(content, images, hog, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no manifest.json"):
        FeatureStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    for use in (FeatureStore.open, lambda folder: compute_features(hog, images, folder)):
        with pytest.raises(ValueError, match=r"manifest.json (is damaged|was written by a newer)"):
            use(tmp_path)
    assert len(compute_features(hog, images, tmp_path, overwrite=True)) == 23
