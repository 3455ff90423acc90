"""On two worker processes: the numbers of one process, whoever dies meanwhile, or an error that names the block."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import dask
import dask.array as da
import dask.bag as db
import joblib
import numpy as np
import pytest
from distributed import Client, KilledWorker, LocalCluster
from PIL import Image
from skimage.data import chelsea
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from classic_cls import (
    HOG,
    BagOfVisualWords,
    ColorHistogram,
    DenseSIFT,
    LinearSVC,
    PatchKMeans,
    ReadImages,
    Resize,
    RidgeLOOClassifier,
    _dask,
    compute_blocks,
    fit_blocks,
    hog,
    predict_blocks,
    sample_images,
    transform_blocks,
)


@pytest.fixture(scope="module")
def client():
    with two_workers() as client:
        yield client


@contextmanager
def two_workers():
    """Start two processes, and let them import what takes long where processors are busy."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": ":0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        client.run(hog, np.zeros((1, 24, 24), np.uint8))
        yield client


@pytest.fixture
def here():
    """Compute in this thread, without a cluster."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def images():
    cat = chelsea()  # conftest.py has crops, but the workers import this file, and might find another conftest.py
    return np.stack([cat[6 * k : 6 * k + 24, 9 * k : 9 * k + 28] for k in range(40)])


@pytest.fixture(scope="module")
def labels():
    return np.array(["left", "right", "centre", "right"] * 10)


@pytest.fixture(scope="module")
def paths(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("pictures")
    for i, image in enumerate(images[:9]):
        Image.fromarray(image).save(folder / f"{i}.png")
    return sorted(map(str, folder.iterdir()))


def cut(images, size=7):
    return da.from_array(images, chunks=(size, *(-1,) * (images.ndim - 1)))


def of_unknown_length(X):
    return X[da.ones(len(X), dtype=bool, chunks=X.chunks[0])]


class Slow(HOG):
    def transform(self, X):
        time.sleep(0.2)
        return super().transform(X)


class Deadly(FunctionTransformer):
    """Kills the process in which it meets a black image among others."""

    def transform(self, X):
        if len(X) > 1 and not all(image.any() for image in X):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().transform(X)


# --- In one process ---------------------------------------------------------------------------------------------------

TRANSFORMERS = {
    "hog": HOG(),
    "threads": HOG(n_jobs=2),
    "color": ColorHistogram(),
    "sift": DenseSIFT(),
    "words": BagOfVisualWords(n_words=5, random_state=0),
    "patches": PatchKMeans(n_clusters=6, random_state=0),
    "resize": Resize(16),
    "pandas": HOG().set_output(transform="pandas"),
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_features_are_those_in_memory(name, images, here):
    transformer = clone(TRANSFORMERS[name]).fit(images)
    features = transform_blocks(transformer, cut(images))
    expected = np.asarray(transformer.transform(images))
    assert (features.shape, features.dtype, features._meta.dtype) == (expected.shape, expected.dtype, expected.dtype)
    assert features.chunks[0] == (7, 7, 7, 7, 7, 5)
    np.testing.assert_array_equal(features.compute(), expected)
    np.testing.assert_array_equal(compute_blocks(features), expected)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_predictions_are_those_in_memory(method, images, labels, here):
    model = make_pipeline(HOG(), LogisticRegression()).fit(images, labels)
    predictions = predict_blocks(model, cut(images), method)
    expected = getattr(model, method)(images)
    assert (predictions.shape, predictions.dtype) == (expected.shape, expected.dtype)
    equal = np.testing.assert_array_equal if method == "predict" else np.testing.assert_allclose
    equal(compute_blocks(predictions), expected, **({} if method == "predict" else {"rtol": 1e-4}))


@pytest.mark.parametrize("chunks", [(7, 5, 20, 3), (40, 24, 6, 1), (1, -1, -1, -1), ((3, 0, 37), -1, -1, -1)])
def test_any_chunks(chunks, images, here):
    model = HOG().fit(images)
    features = transform_blocks(model, da.from_array(images, chunks=chunks))
    np.testing.assert_array_equal(compute_blocks(features), model.transform(images))


def test_an_unknown_number_of_images(images, here):
    model = HOG().fit(images)
    features = transform_blocks(model, of_unknown_length(cut(images)))
    assert np.isnan(features.shape[0])
    assert features.shape[1] == model.transform(images[:1]).shape[1]
    np.testing.assert_array_equal(compute_blocks(features), model.transform(images))


def test_paths(paths, images, here):
    model = make_pipeline(ReadImages(), HOG()).fit(paths)
    expected = model.transform(paths)
    contents = [Path(path).read_bytes() for path in paths]
    for X in (
        db.from_sequence(paths, partition_size=4),
        db.from_sequence(contents, partition_size=4),
        db.from_sequence(paths, partition_size=4).filter(str),  # whose blocks are iterators
        da.from_array(np.array(paths), chunks=4),
    ):
        features = transform_blocks(model, X)
        assert (features.shape[1], features.dtype) == (expected.shape[1], np.float32)
        np.testing.assert_array_equal(compute_blocks(features), expected)
    read = transform_blocks(ReadImages(16), db.from_sequence(paths, partition_size=4))
    assert read.shape[1:] == (16, 16, 3)
    np.testing.assert_array_equal(compute_blocks(read), ReadImages(16).transform(paths))


def test_a_broken_picture_is_an_error(paths, tmp_path, here):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"broken\.png"):
        compute_blocks(transform_blocks(ReadImages(8), db.from_sequence([*paths, str(broken)], partition_size=4)))


def test_nothing_runs_before_it_is_asked_for(images):
    def refuse(*_, **__):
        raise AssertionError("A task ran.")

    with dask.config.set(scheduler=refuse):
        features = transform_blocks(HOG().fit(images), of_unknown_length(cut(images)))
        predict_blocks(LinearSVC().fit(np.eye(features.shape[1])[:2], [0, 1]), features)
        with pytest.raises(AssertionError, match="A task ran"):
            compute_blocks(features)


def test_a_model_that_is_fitted_anew_meanwhile(images, here):
    words = BagOfVisualWords(n_words=5, random_state=0).fit(images)
    expected = words.transform(images)
    features = transform_blocks(words, cut(images))
    words.fit(255 - images[:20])
    np.testing.assert_array_equal(compute_blocks(features), expected)


def test_the_same_call_has_the_same_name(images):
    model, X = HOG().fit(images), cut(images)
    name = transform_blocks(model, X).name
    assert name.startswith("HOG-transform-")
    assert transform_blocks(clone(model).fit(images), X).name == name
    assert transform_blocks(HOG(orientations=8).fit(images), X).name != name


def test_what_is_refused(images, labels, paths):
    model, X = HOG().fit(images), cut(images)
    for wrong in (images, paths, 3, da.from_array(np.float32(3))):
        with pytest.raises(TypeError, match=r"expected a dask array or bag, as dask\.array\.from_array"):
            transform_blocks(model, wrong)
    with pytest.raises(NotFittedError):
        transform_blocks(HOG(), X)
    with pytest.raises(ValueError, match="HOG was fitted on images of shape"):
        transform_blocks(model, X[:, :, :20])
    with pytest.raises(TypeError, match=r"takes none; expected a Pipeline that begins with ReadImages\(size\)"):
        transform_blocks(model, db.from_sequence(paths))
    with pytest.raises(AttributeError, match="LinearSVC has no predict_proba"):
        predict_blocks(LinearSVC().fit(np.eye(4), [0, 1, 0, 1]), X, "predict_proba")
    with pytest.raises(ValueError, match="method='transform'; expected one of 'predict'"):
        predict_blocks(model, X, "transform")
    with pytest.raises(ValueError, match="no more than the number of images is unknown"):
        transform_blocks(model, X[:, X[0, :, 0, 0] > 0])


def test_blocks_that_differ_from_the_blank_image(images, here):
    odd = FunctionTransformer(lambda X: X.astype(float) if X.any() else X)
    odd.fit(images)
    with pytest.raises(ValueError, match=r"gave rows of shape \(24, 28, 3\), float64, and for a blank image"):
        compute_blocks(transform_blocks(odd, cut(images)))


# --- Samples ----------------------------------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_the_blocks(images, labels, here):
    expected = sample_images(cut(images), 11, random_state=3)
    assert expected.shape == (11, 24, 28, 3)
    rows = [np.flatnonzero((images == image).all((1, 2, 3)))[0] for image in expected]
    assert rows == sorted(set(rows))
    for X in (cut(images, 1), cut(images, 40), of_unknown_length(cut(images)), cut(images).rechunk((9, 3, 4, 1))):
        np.testing.assert_array_equal(sample_images(X, 11, random_state=3), expected)
    np.testing.assert_array_equal(sample_images(cut(labels), 11, random_state=3), labels[rows])
    assert not np.array_equal(sample_images(cut(images), 11, random_state=4), expected)
    np.testing.assert_array_equal(sample_images(cut(images), 40), images)


def test_every_image_is_as_likely(here):
    X = da.arange(20, chunks=(1, 12, 7))
    counts = np.bincount(np.concatenate([sample_images(X, 5, random_state=i) for i in range(300)]), minlength=20)
    assert 40 < counts.min() < 75 < counts.max() < 115


def test_a_sample_of_paths(paths, here):
    sample = sample_images(db.from_sequence(paths, partition_size=2), 5, random_state=0)
    assert isinstance(sample, list)
    assert sample == sorted(set(sample) & set(paths))
    assert len(sample) == 5


def test_a_sample_larger_than_the_set_is_refused(images, here):
    with pytest.raises(ValueError, match="n_images=41, and X holds 40"):
        sample_images(cut(images), 41)
    with pytest.raises(ValueError, match="n_images=0; expected a positive int"):
        sample_images(cut(images), 0)


# --- Least squares ----------------------------------------------------------------------------------------------------


def rows(n, d, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) * 3 + 100
    return X.astype(dtype), X[:, 0] + 2 * X[:, 1] + rng.normal(size=n)


@pytest.mark.parametrize("targets", ["two", "three", "strings", "labels"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize(("shape", "dtype"), [((300, 8), np.float32), ((300, 8), np.float64), ((25, 40), np.float64)])
def test_ridge_is_that_of_all_rows(shape, dtype, class_weight, targets, here):
    X, score = rows(*shape, dtype)
    y = np.digitize(score, np.quantile(score, [0.4] if targets == "two" else [0.3, 0.6]))
    y = {"strings": np.array(["a", "b", "c"])[y % 3], "labels": np.eye(3, dtype=int)[y % 3]}.get(targets, y)
    options = {"class_weight": class_weight, "max_left_out": 100, "random_state": 0}
    expected = RidgeLOOClassifier(**options).fit(X, y)
    ridge = fit_blocks(RidgeLOOClassifier(**options), cut(X, 11), y)
    assert vars(ridge).keys() == vars(expected).keys()
    assert (ridge.alpha_, ridge.n_features_in_) == (expected.alpha_, shape[1])
    tolerance = {"rtol": 2e-3, "atol": 2e-4} if dtype == np.float32 else {"rtol": 1e-8, "atol": 1e-10}
    for name in ("coef_", "loo_error_", "scale_"):
        np.testing.assert_allclose(getattr(ridge, name), getattr(expected, name), **tolerance)
    assert ridge.coef_.dtype == dtype
    np.testing.assert_array_equal(ridge.predict(X), expected.predict(X))
    np.testing.assert_allclose(ridge.predict_proba(X), expected.predict_proba(X), rtol=5e-3, atol=5e-4)


def test_ridge_of_features_of_any_kind(here):
    X, score = rows(60, 5)
    y = score > np.median(score)
    expected = fit_blocks(RidgeLOOClassifier(random_state=0), cut(X), y).coef_
    for features in (
        of_unknown_length(cut(X)),
        cut(X).rechunk((7, 2)),
        da.from_array(X, chunks=((7,) * 8 + (4, 0), 5)),
    ):
        np.testing.assert_array_equal(
            fit_blocks(RidgeLOOClassifier(random_state=0), features, cut(y, 9)).coef_, expected
        )
    whole = np.rint(X).astype(int)
    ridge = fit_blocks(RidgeLOOClassifier(random_state=0), cut(whole), y)
    np.testing.assert_array_equal(ridge.predict(whole), RidgeLOOClassifier(random_state=0).fit(whole, y).predict(whole))


def test_what_ridge_refuses(here):
    X, score = rows(60, 5)
    y = score > np.median(score)
    with pytest.raises(TypeError, match=r"LogisticRegression is not fitted by sums.*sample_images"):
        fit_blocks(LogisticRegression(), cut(X), y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fit_blocks(RidgeLOOClassifier(), cut(X), y[1:])
    with pytest.raises(ValueError, match="one class only"):
        fit_blocks(RidgeLOOClassifier(), cut(X), y * 0)
    with pytest.raises(ValueError, match=r"expected a dask array of features, \(n, n_features\)"):
        fit_blocks(RidgeLOOClassifier(), cut(np.zeros((4, 4, 4))), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="y contains NaN"):
        fit_blocks(RidgeLOOClassifier(), cut(X), np.where(y, np.nan, 1))
    for spoiled in (np.nan, np.inf):
        X[30, 2] = spoiled
        with pytest.raises(ValueError, match="NaN or infinity in block 4"):
            fit_blocks(RidgeLOOClassifier(), cut(X), y)


# --- On two workers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_workers_give_the_same_features(name, images, client):
    transformer = clone(TRANSFORMERS[name]).fit(images)
    features = transform_blocks(transformer, cut(images))
    np.testing.assert_array_equal(compute_blocks(features), np.asarray(transformer.transform(images)))


def test_images_that_the_workers_hold(images, client):
    X = cut(images).persist()
    for _ in range(2):  # holding them still
        np.testing.assert_array_equal(compute_blocks(transform_blocks(HOG().fit(images), X)), hog(images))
        np.testing.assert_array_equal(compute_blocks(X), images)


def test_from_paths_to_predictions(paths, client):
    y = np.arange(9) % 3
    bag = db.from_sequence(paths, partition_size=2)
    words = BagOfVisualWords(n_words=8, random_state=0)
    describe = make_pipeline(ReadImages(24), words).fit(sample_images(bag, 6, random_state=0))
    ridge = fit_blocks(RidgeLOOClassifier(random_state=0), transform_blocks(describe, bag).persist(), y)
    expected = RidgeLOOClassifier(random_state=0).fit(describe.transform(paths), y)
    np.testing.assert_allclose(ridge.coef_, expected.coef_, rtol=1e-3, atol=1e-5)
    model = make_pipeline(*(step for _, step in describe.steps), ridge)
    np.testing.assert_array_equal(
        compute_blocks(predict_blocks(model, bag)), expected.predict(describe.transform(paths))
    )


def test_an_error_in_a_block_arrives(client, paths):
    with pytest.raises(FileNotFoundError, match="no_such"):
        compute_blocks(transform_blocks(ReadImages(8), db.from_sequence([*paths, "no_such.png"], partition_size=3)))


def test_joblib_on_the_cluster(images, client):
    with joblib.parallel_config(backend="dask", n_jobs=2):
        features = HOG().fit_transform(images)
    np.testing.assert_array_equal(features, HOG().fit_transform(images))


def test_a_worker_that_dies_midway(images, client):
    model = Slow().fit(images)
    features = transform_blocks(model, cut(images, 2))
    pid = next(iter(client.run(os.getpid).values()))
    threading.Timer(1, os.kill, (pid, signal.SIGKILL)).start()
    np.testing.assert_array_equal(compute_blocks(features), model.transform(images))
    assert pid not in client.run(os.getpid).values()


def test_a_cluster_without_workers_is_no_endless_wait(images, client):
    client.cluster.scale(0)
    with (
        dask.config.set({"distributed.scheduler.no-workers-timeout": "2s"}),
        pytest.raises(RuntimeError, match=r"has had no worker for 2s; expected one or more\..*no-workers-timeout"),
    ):
        compute_blocks(transform_blocks(HOG().fit(images), cut(images)))


@pytest.mark.parametrize("kind", ["images", "paths"])
def test_a_block_that_kills_is_named(kind, images, paths, tmp_path):
    deadly = make_pipeline(*[ReadImages(24)] * (kind == "paths"), Deadly(), HOG())
    black = images[:9].copy()
    black[7] = 0
    X = cut(black, 2)
    if kind == "paths":
        Image.fromarray(black[7]).save(tmp_path / "black.png")
        paths = [*paths[:7], str(tmp_path / "black.png"), *paths[8:]]
        X = db.from_sequence(paths, partition_size=2)
    deadly.fit(images[:1] if kind == "images" else paths[:1])
    named = "images 6 to 7" if kind == "images" else r"paths '\S*6\.png' to '\S*black\.png'"
    with two_workers(), pytest.raises(RuntimeError, match=rf"Block 3 \({named}, task .*Pipeline-transform"):
        compute_blocks(transform_blocks(deadly, X))


# --- Whom dask blames -------------------------------------------------------------------------------------------------


class Cluster:
    """A client whose one worker is given all tasks that are left, and dies of some."""

    def __init__(self, deadly):
        self.deadly, self.retried = deadly, []

    def sync(self, function, client, futures):
        blamed = [future for future in futures if future.status == "error"]
        if blamed:
            raise blamed[-1].exception()
        return [future.key for future in futures]

    def retry(self, futures):
        for future in futures:
            self.retried.append(future.key)
            future.status = "error" if future.key in self.deadly else "finished"


def future(key):
    return SimpleNamespace(key=key, status="error", exception=lambda: KilledWorker(key, None, 3))


def test_a_block_is_tried_alone_before_it_is_blamed():
    futures = {key: future(key) for key in "abcd"}
    cluster = Cluster(deadly="c")
    with pytest.raises(KilledWorker) as error:
        _dask._gather_or_blame(cluster, futures)
    assert error.value.task == "c"
    assert cluster.retried == ["a", "b", "c"]


def test_the_only_one_that_can_be_blamed_kills_no_further_worker():
    cluster = Cluster(deadly="")
    with pytest.raises(KilledWorker) as error:
        _dask._gather_or_blame(cluster, {"b": future("b")})
    assert error.value.task == "b"
    assert cluster.retried == []


def test_who_may_have_killed_the_last_workers():
    tasks = {("name", i): None for i in range(9)}
    deaths = [[0, 3, 5], [5, 3], [7, 5, 3], range(9)]
    events = [
        {"action": "remove-worker", "expected": False, "processing-tasks": [("name", i) for i in d]} for d in deaths
    ]
    retired = {"action": "remove-worker", "expected": True, "processing-tasks": [("name", 7)]}
    events += [retired] * 5 + [{"action": "add-worker"}]
    client = SimpleNamespace(get_events=lambda _: [(0, event) for event in events])
    values = [SimpleNamespace(dask=tasks)]
    blamed = _dask._blamed(client, values)
    assert blamed == [("name", 3), ("name", 5)]
    message = _dask._abandoned("9s", blamed, values, [10] * 9)
    assert "Block 3 (images 30 to 39, task ('name', 3)) or Block 5 (images 50 to 59" in message
    assert ", or one of 5 others killed" in _dask._abandoned("9s", list(tasks), values, None)


# --- The package ------------------------------------------------------------------------------------------------------


def test_dask_is_imported_when_it_is_needed():
    code = "import sys, classic_cls, classic_cls.distributed; assert not {'dask', 'distributed'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("missing", ["dask", "distributed"])
def test_without_dask(missing, monkeypatch, images):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r'need dask: pip install "classic_cls\[distributed\]"'):
        transform_blocks(HOG().fit(images), None)
