import pickle

import cuda_on_cpu
import fake_cupy
import numpy as np
import pytest
from conftest import crops
from sklearn.base import clone, is_clusterer
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from classic_cls import PIPELINES, LinearSVC, ToDevice, make_baseline, make_hog_svm, make_kmeans_clusters

# "best" is "balanced" with larger numbers, and takes longer.
CLASSIFIERS = [name for name in PIPELINES if name != "best" and not is_clusterer(PIPELINES[name]())]


def two_kinds(n, height, width, colour=True, seed=0):
    """Crops of a photograph, upright and lying: any descriptor of directions tells them apart."""
    images = crops(n, max(height, width), max(height, width), seed)[:, :height, :width]
    images[::2, :, :, :] //= 2
    images[::2, ::2] = 255
    images[1::2, :, ::2] = 0
    labels = np.array(["lying", "upright"])[np.arange(n) % 2]
    return (images if colour else images[..., 0]), labels


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("size", [(8, 8), (31, 64), (150, 90)])
@pytest.mark.parametrize("colour", [False, True])
def test_any_size(name, size, colour):
    images, labels = two_kinds(24, *size, colour)
    model = PIPELINES[name](random_state=0).fit(images[:16], labels[:16])
    assert isinstance(model, Pipeline)
    assert model.score(images[16:], labels[16:]) > 0.8


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_images_of_different_sizes_and_three_integer_classes(name):
    images = [image[: 40 + i] for i, image in enumerate(crops(12, 60, 50))]
    labels = np.arange(12) % 3 + 7
    predicted = PIPELINES[name](random_state=0).fit(images, labels).predict(images)
    assert predicted.dtype == labels.dtype
    assert set(predicted) <= {7, 8, 9}


@pytest.mark.parametrize("name", PIPELINES)
def test_flat_rows_clone_pickle_and_seed(name):
    images, labels = two_kinds(20, 20, 24)
    rows = images.reshape(20, -1)
    model = PIPELINES[name](image_shape=(20, 24, 3), random_state=0)
    expected = clone(model).fit(rows, labels).predict(rows)
    other = PIPELINES[name](random_state=0, n_jobs=2).fit(images, labels)
    np.testing.assert_array_equal(other.predict(images), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(other)).predict(images), expected)
    assert "Pipeline" in model._repr_html_()


def test_baseline_presets_are_plain_pipelines_and_others_refused():
    for preset in ("fast", "balanced", "best"):
        assert list(make_baseline(preset).named_steps) == ["features", "ridge"]
    with pytest.raises(ValueError, match="preset='quick'; expected one of 'fast', 'balanced', 'best'"):
        make_baseline("quick")


def test_baseline_learns_several_labels_of_an_image():
    images, kinds = two_kinds(60, 32, 32)
    images = images.copy()
    images[::3, 8:24, 8:24] = (255, 0, 0)
    labels = np.column_stack([kinds == "lying", np.arange(60) % 3 == 0]).astype(int)
    model = make_baseline("fast", random_state=0).fit(images[:40], labels[:40])
    assert (model.predict(images[40:]) == labels[40:]).mean() > 0.9
    assert model.predict_proba(images[40:]).shape == (20, 2)


def test_baseline_finds_a_rare_class_when_weighted():
    images, kinds = two_kinds(100, 32, 32)
    rare = np.flatnonzero(kinds == "lying")[:4]
    kept = np.concatenate([rare, np.flatnonzero(kinds == "upright")])
    model = make_baseline("fast", random_state=0).set_params(ridge__class_weight="balanced")
    model.fit(images[kept], kinds[kept])
    others = np.setdiff1d(np.flatnonzero(kinds == "lying"), rare)
    assert model.score(images[others], kinds[others]) > 0.8


def test_baseline_with_many_classes_of_two_images():
    images = crops(100, 40, 40, seed=3)
    shifted = np.roll(images, 1, axis=2)
    names = np.array([f"place {k}" for k in range(100)])
    model = make_baseline("fast", random_state=0).fit(np.concatenate([images, images]), np.tile(names, 2))
    assert model.score(shifted, names) > 0.9


def test_search_over_a_pipeline():
    images, labels = two_kinds(24, 32, 32)
    search = GridSearchCV(make_hog_svm(), {"svm__C": [0.1, 1], "hog__orientations": [6, 9]}, cv=3)
    assert search.fit(images, labels).score(images, labels) == 1


def test_labels_of_another_length_are_refused():
    images, labels = two_kinds(10, 32, 32)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make_hog_svm().fit(images, labels[:-1])


def test_clusters():
    images, labels = two_kinds(30, 32, 32)
    clusters = make_kmeans_clusters(2, random_state=0).fit_predict(images)
    assert len(set(zip(clusters, labels, strict=True))) == 2


# --- On a GPU ---------------------------------------------------------------------------------------------------------

# What the kernels are called that a pipeline runs.
KERNELS = {
    "bovw-svm": {"cluster", "dense", "nearest"},
    "color-forest": {"color"},
    "balanced": {"hog", "patch", "dense"},
    "fast": {"hog", "patch"},
    "hog-color-svm": {"color", "hog"},
    "hog-svm": {"hog"},
    "kmeans-clusters": {"hog"},
}
QUICK = {"n_clusters": 4, "n_components": 4, "n_words": 9, "n_estimators": 9}


def quick(pipeline):
    """Return a pipeline that learns less than is good."""
    return pipeline.set_params(
        **{k: QUICK[k.split("__")[-1]] for k in pipeline.get_params() if k.split("__")[-1] in QUICK}
    )


@pytest.mark.parametrize("name", KERNELS)
def test_on_a_gpu(name, monkeypatch):
    fake_cupy.install(monkeypatch)
    monkeypatch.setattr(cuda_on_cpu.RawModule, "launched", launched := [])
    images, labels = two_kinds(6, 24, 20)
    there = quick(PIPELINES[name](random_state=0, device="cuda:1")).fit(images, labels)
    here = quick(PIPELINES[name](random_state=0)).fit(images, labels)
    assert {kernel.split("_")[0] for _, kernel in launched} == KERNELS[name]
    predicted, expected = there.predict(images), here.predict(images)
    assert adjusted_rand_score(predicted, expected) == 1  # clusters are numbered as rounding has it
    assert is_clusterer(here) or (predicted == expected).all()
    assert predicted.dtype == expected.dtype
    launched.clear()
    moved = pickle.loads(pickle.dumps(there)).set_params(to_device="passthrough")
    np.testing.assert_array_equal(moved.predict(images), predicted)
    assert launched == []


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_only_scores_of_a_baseline_leave_the_gpu(preset, monkeypatch):
    fake_cupy.install(monkeypatch)
    images, labels = two_kinds(6, 24, 20)
    there = quick(make_baseline(preset, random_state=0, device="cuda")).fit(images, labels)
    here = quick(make_baseline(preset, random_state=0)).fit(images, labels)
    assert there["ridge"].alpha_ == here["ridge"].alpha_
    assert there["features"].flips_ == here["features"].flips_
    left, get = [], fake_cupy.ndarray.get
    monkeypatch.setattr(fake_cupy.ndarray, "get", lambda a: left.append(a.shape) or get(a))
    shares = there.predict_proba(images)
    assert left == []
    assert there.predict(images).dtype == labels.dtype
    assert left == [(6,)]
    np.testing.assert_allclose(shares.get(), here.predict_proba(images), atol=1e-3)
    np.testing.assert_allclose(there[:-1].transform(images).get(), here[:-1].transform(images), atol=1e-4)


def test_several_labels_of_an_image_on_a_gpu(monkeypatch):
    fake_cupy.install(monkeypatch)
    images, kinds = two_kinds(6, 24, 20)
    labels = np.column_stack([kinds == "lying", kinds != "lying", np.arange(6) < 3]).astype(int)
    there, here = (quick(make_baseline("fast", random_state=0, device=d)).fit(images, labels) for d in ("cuda", None))
    assert type(there.predict(images)) is np.ndarray
    np.testing.assert_array_equal(there.predict(images), here.predict(images))


def test_lists_and_flat_rows_on_a_gpu(monkeypatch):
    fake_cupy.install(monkeypatch)
    images, labels = two_kinds(6, 24, 20)
    model = make_hog_svm(image_shape=(24, 20, 3), device="cuda").fit(images.reshape(6, -1), labels)
    assert model.score(images.reshape(6, -1), labels) == 1
    several = [image[: 24 - i] for i, image in enumerate(images)]
    assert make_hog_svm(device="cuda").fit(several, labels).score(several, labels) == 1


def test_search_on_a_gpu(monkeypatch):
    fake_cupy.install(monkeypatch)
    images, labels = two_kinds(6, 24, 24)
    search = GridSearchCV(make_hog_svm(device="cuda"), {"svm__C": [0.1, 1]}, cv=2, error_score="raise")
    assert search.fit(images, labels).best_score_ == 1
    assert search.predict(images).dtype == labels.dtype
    assert isinstance(search.best_estimator_.named_steps["svm"], LinearSVC)


@pytest.mark.parametrize("name", PIPELINES)
def test_devices_have_names(name):
    assert not [step for step in PIPELINES[name]() if isinstance(step, ToDevice)]
    assert PIPELINES[name](device="cuda:3").get_params()["to_device__device"] == "cuda:3"  # made without a GPU
    for device in ("cpu", "gpu", "cuda:", 0, ""):
        with pytest.raises(ValueError, match=f"device={device!r}; expected 'cuda', or 'cuda:1'"):
            PIPELINES[name](device=device)
