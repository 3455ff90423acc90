"""A pipeline fitted through the disk is the pipeline that `fit` gives."""

import os
import tracemalloc

import numpy as np
import pytest
from joblib import Memory
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classic_cls import (
    HOG,
    PIPELINES,
    BagOfVisualWords,
    DenseSIFT,
    FeatureStore,
    FlipAverage,
    LinearSVC,
    ReadImages,
    RidgeLOOClassifier,
    fit_out_of_core,
    load_textures,
    read_pictures,
)


@pytest.fixture(scope="module")
def textures():
    """Ninety images, every class in turn, and their classes."""
    found = load_textures()
    chosen = np.arange(0, 768, 256)[None] + np.arange(30)[:, None]
    return found.images[chosen.ravel()], found.target_names[found.target[chosen.ravel()]]


@pytest.fixture
def pictures(textures, tmp_path):
    """Paths of those images as files."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(textures[0]):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return sorted(map(str, folder.iterdir()))


def hog_svm(*steps, **options):
    return make_pipeline(HOG(), *steps, LinearSVC(), **options)


def words_svm():
    words = BagOfVisualWords(DenseSIFT(), n_words=16, pyramid_levels=1, random_state=0)
    return make_pipeline(words, StandardScaler(), LinearSVC())


def flips_ridge():
    return make_pipeline(FlipAverage(HOG(), random_state=0), RidgeLOOClassifier(random_state=0))


def chosen_svm():
    return hog_svm(SelectKBest(k=50), PCA(20, random_state=0))


# --- The model is the same --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [hog_svm, words_svm, flips_ridge, chosen_svm, PIPELINES["hog-color-svm"]])
@pytest.mark.parametrize("chunk_size", [7, 1024])
def test_it_is_what_fit_gives(make, chunk_size, textures, tmp_path):
    X, y = textures
    options = {"random_state": 0} if make in PIPELINES.values() else {}
    model, expected = make(**options), make(**options).fit(X, y)
    assert fit_out_of_core(model, X, y, tmp_path, chunk_size=chunk_size) is model
    np.testing.assert_allclose(model.decision_function(X), expected.decision_function(X), rtol=1e-4, atol=1e-4)
    assert model.predict(X).tolist() == expected.predict(X).tolist()
    assert list(model.named_steps) == list(expected.named_steps)


def test_hog_and_svm_are_the_same_to_the_bit(textures, tmp_path):
    model = fit_out_of_core(hog_svm(), *textures, tmp_path, chunk_size=11, n_jobs=2)
    np.testing.assert_array_equal(model[-1].coef_, hog_svm().fit(*textures)[-1].coef_)


def test_paths_become_classes(pictures, textures, tmp_path):
    y = textures[1]
    model = make_pipeline(ReadImages(24, color="gray"), *hog_svm())
    fit_out_of_core(model, pictures, y, tmp_path / "store", chunk_size=13)
    expected = make_pipeline(ReadImages(24, color="gray"), *hog_svm()).fit(pictures, y)
    np.testing.assert_array_equal(model[-1].coef_, expected[-1].coef_)
    assert model.predict(pictures).tolist() == expected.predict(pictures).tolist()


def test_an_array_in_a_file_and_several_labels(textures, tmp_path):
    X, y = textures
    np.save(tmp_path / "X.npy", X)
    labels = y[:, None] == np.unique(y)[:2]
    model = fit_out_of_core(
        flips_ridge(), np.load(tmp_path / "X.npy", mmap_mode="r"), labels, tmp_path / "store", chunk_size=20
    )
    assert model.predict(X).tolist() == flips_ridge().fit(X, labels).predict(X).tolist()


def test_a_pipeline_with_a_memory(textures, tmp_path):
    options = {"memory": Memory(tmp_path / "cache", verbose=0)}
    model = fit_out_of_core(hog_svm(PCA(5, random_state=0), **options), *textures, tmp_path / "store")
    assert (
        model.predict(textures[0]).tolist()
        == hog_svm(PCA(5, random_state=0)).fit(*textures).predict(textures[0]).tolist()
    )


# --- The sample -------------------------------------------------------------------------------------------------------


def test_the_steps_learn_from_a_seeded_sample_and_the_classifier_from_all(textures, tmp_path):
    def components(seed, folder):
        model = fit_out_of_core(
            hog_svm(StandardScaler()), *textures, tmp_path / folder, max_images=40, random_state=seed
        )
        assert model[1].n_samples_seen_ == 40
        return model[1].mean_

    np.testing.assert_array_equal(components(0, "a"), components(0, "b"))
    assert not np.array_equal(components(0, "a"), components(1, "c"))
    assert len(FeatureStore.open(tmp_path / "a")) == 90


def test_the_sample_has_its_labels(textures, tmp_path):
    X, y = textures
    model = make_pipeline(HOG(), LinearDiscriminantAnalysis(n_components=2), LinearSVC())
    fit_out_of_core(model, X, y, tmp_path, max_images=60)
    chosen = np.sort(np.random.RandomState(0).permutation(90)[:60])
    expected = LinearDiscriminantAnalysis(n_components=2).fit(HOG().fit_transform(X[chosen]), y[chosen])
    np.testing.assert_allclose(model[1].means_, expected.means_)


class Recorder(ClassifierMixin, BaseEstimator):
    """Remembers what it was given."""

    def fit(self, X, y):
        self.kind_, self.file_, self.there_ = type(X), X.filename, os.path.exists(X.filename)
        self.rows_, self.classes_ = np.array(X), np.unique(y)
        return self


def test_the_classifier_reads_a_file_that_goes_afterwards(textures, tmp_path):
    recorder = fit_out_of_core(make_pipeline(HOG(), Recorder()), *textures, tmp_path, chunk_size=50)[-1]
    assert recorder.kind_ is np.memmap
    assert recorder.there_
    assert not os.path.exists(recorder.file_)
    np.testing.assert_array_equal(recorder.rows_, HOG().fit_transform(textures[0]))
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "classifier", [LinearSVC(C=0.01), RidgeLOOClassifier(max_left_out=256), SGDClassifier(max_iter=5, tol=None)]
)
def test_these_classifiers_copy_no_features(classifier, tmp_path):
    X = np.random.default_rng(0).random((50_000, 100), np.float32)
    X.tofile(tmp_path / "X")
    mapped, y = np.memmap(tmp_path / "X", np.float32, "r", shape=X.shape), X[:, 0] > 0.5
    tracemalloc.start()
    try:
        classifier.fit(mapped, y)
        assert tracemalloc.get_traced_memory()[1] < X.nbytes * 0.8
    finally:
        tracemalloc.stop()


# --- Whatever happens on the way --------------------------------------------------------------------------------------


def test_pictures_are_left_out_with_their_labels(pictures, textures, tmp_path):
    for i in (3, 4, 50, 89):
        with open(pictures[i], "wb") as file:
            file.write(b"no picture")
    y = textures[1]
    model = make_pipeline(ReadImages(24), *hog_svm(SelectKBest(k=50)))
    with pytest.raises(ValueError, match=r"03\.png cannot be read"):
        fit_out_of_core(model, pictures, y, tmp_path / "store")
    with pytest.warns(UserWarning, match="4 of 90 pictures are left out"):
        fit_out_of_core(model, pictures, y, tmp_path / "store", errors="skip", chunk_size=20)
    kept, images, _ = read_pictures(pictures, 24, errors="skip")
    expected = hog_svm(SelectKBest(k=50)).fit(images, y[kept])
    np.testing.assert_allclose(model[-1].coef_, expected[-1].coef_, rtol=1e-4, atol=1e-5)


class Interrupted(LinearSVC):
    """Doesn't get to the end."""

    def fit(self, X, y):
        raise KeyboardInterrupt


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("chunk-*.npy")}


def test_an_interrupted_fit_goes_on(textures, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit_out_of_core(make_pipeline(HOG(), Interrupted()), *textures, tmp_path, chunk_size=20)
    before = times(tmp_path)
    assert len(before) == 5
    assert not list(tmp_path.glob("*.part"))
    (tmp_path / "rows.1.part").write_bytes(b"what a kill leaves there")
    model = fit_out_of_core(hog_svm(), *textures, tmp_path, chunk_size=20)
    assert times(tmp_path) == before
    assert not list(tmp_path.glob("*.part"))
    np.testing.assert_array_equal(model[-1].coef_, hog_svm().fit(*textures)[-1].coef_)


@pytest.mark.parametrize("make", [words_svm, chosen_svm])
def test_seeded_steps_learn_the_same_again(make, textures, tmp_path):
    fit_out_of_core(make(), *textures, tmp_path, max_images=50)
    before = times(tmp_path)
    fit_out_of_core(make(), *textures, tmp_path, max_images=50)
    assert times(tmp_path) == before
    with pytest.raises(ValueError, match="fitted to something else"):
        fit_out_of_core(make(), *textures, tmp_path, max_images=49)
    fit_out_of_core(make(), *textures, tmp_path, max_images=49, overwrite=True)
    assert not set(times(tmp_path).values()) & set(before.values())


def test_progress_names_the_stages(textures, tmp_path):
    calls = []
    fit_out_of_core(hog_svm(), *textures, tmp_path, chunk_size=40, progress=lambda *call: calls.append(call))
    assert calls == [
        ("learning features from 90 images", 0, None),
        *(("computing features", n_done, 90) for n_done in (0, 40, 80, 90)),
        ("fitting LinearSVC", 0, None),
    ]


# --- Bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "X", "options", "error", "message"),
    [
        (hog_svm(), ["a.png", "b.png"], {}, TypeError, r"X holds paths, .* put ReadImages\(size\) before"),
        (make_pipeline(ReadImages(8), *hog_svm()), np.zeros((2, 8, 8)), {}, TypeError, "starts with ReadImages"),
        (make_pipeline(LinearSVC()), np.zeros((2, 8, 8)), {}, ValueError, "has no step from images to features"),
        (make_pipeline(ReadImages(8), LinearSVC()), ["a.png", "b.png"], {}, ValueError, "has no step from images"),
        (hog_svm(), [], {}, ValueError, "no images and no paths"),
        (hog_svm(), np.zeros((3, 8, 8)), {}, ValueError, r"y has shape \(2,\); expected \(3,\)"),
        (hog_svm(), np.zeros((2, 8, 8)), {"max_images": 0}, ValueError, "max_images=0; expected a positive int"),
        (hog_svm(), np.zeros((2, 8, 8)), {"errors": "warn"}, ValueError, "errors='warn'; expected one of"),
        (
            make_pipeline(ReadImages(8), *hog_svm()),
            ["no.png", "b.png"],
            {"errors": "skip"},
            ValueError,
            "No picture of the sample could be read; the first, no.png, cannot be opened",
        ),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(pipeline, X, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        fit_out_of_core(pipeline, X, ["a", "b"], tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()
