import pickle

import fake_cupy
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from test_pipelines import two_kinds

from classic_cls import HOG, HostPredictions, LinearSVC, RBFNystroem, RidgeLOOClassifier, ToDevice, make_hog_svm

LABELS = [[3, 7, -2], [0.0, 1.0, 2.0], ["cat", "dog", "bird"], [False, True]]


def problem(labels):
    y = np.array(labels)[np.arange(60) % len(labels)]
    X = np.random.default_rng(0).normal(size=(60, 4))
    X[:, 0] += np.arange(60) % len(labels)
    return X, y


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("classifier", [LinearSVC(), RidgeLOOClassifier()], ids=lambda c: type(c).__name__)
def test_all_answers_lie_on_the_host(arrays, classifier, labels):
    X, y = problem(labels)
    model = HostPredictions(classifier).fit(arrays.asarray(X), y)
    plain = clone(classifier).fit(X, y)
    for method in ("predict", "decision_function", "predict_proba"):
        if not hasattr(classifier, method):
            continue
        answer, expected = getattr(model, method)(arrays.asarray(X)), getattr(plain, method)(X)
        assert type(answer) is np.ndarray
        assert answer.dtype == expected.dtype
        if method == "predict":
            np.testing.assert_array_equal(answer, expected)
        else:
            np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(model.classes_, np.unique(y))
    assert model.score(arrays.asarray(X), y) == plain.score(X, y)


def test_labels_may_come_from_a_gpu(arrays):
    X, y = problem([3, 7, -2])
    model = HostPredictions(RidgeLOOClassifier()).fit(arrays.asarray(X), arrays.asarray(y))
    assert type(model.classes_) is np.ndarray
    assert model.predict(arrays.asarray(X)).dtype == y.dtype


def test_several_labels(arrays):
    X, y = problem([0, 1, 2])
    Y = np.column_stack([y == 0, y != 1]).astype(int)
    model = HostPredictions(RidgeLOOClassifier()).fit(arrays.asarray(X), Y)
    np.testing.assert_array_equal(model.predict(arrays.asarray(X)), RidgeLOOClassifier().fit(X, Y).predict(X))
    assert get_scorer("average_precision")(model, arrays.asarray(X), Y) > 0.5


def test_the_estimator_is_not_changed_and_says_what_it_can():
    X, y = problem(["cat", "dog", "bird"])
    frame = pd.DataFrame(X).rename(columns="f{}".format)
    estimator = RidgeClassifier()
    model = HostPredictions(estimator)
    assert is_classifier(model)
    assert not hasattr(model, "predict_proba")
    assert hasattr(model, "decision_function")
    model.fit(frame, y, sample_weight=np.ones(60))
    assert not hasattr(estimator, "coef_")
    assert list(model.feature_names_in_) == ["f0", "f1", "f2", "f3"]
    assert model.n_features_in_ == 4
    assert str(clone(model).set_params(estimator__alpha=2.0)) == "HostPredictions(estimator=RidgeClassifier(alpha=2.0))"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(frame), model.predict(frame))
    logs = HostPredictions(LogisticRegression()).fit(X, y).predict_log_proba(X)
    np.testing.assert_allclose(np.exp(logs).sum(1), 1)


def test_weights_reach_the_estimator():
    X, y = problem([0, 1])
    weights = np.where(y == 0, 1.0, 100.0)
    weighted, plain = (HostPredictions(LinearSVC(0.1)).fit(X, y, **k) for k in ({"sample_weight": weights}, {}))
    assert weighted.predict(X).mean() > plain.predict(X).mean()


@pytest.mark.parametrize(
    "scoring", ["accuracy", "balanced_accuracy", "f1_macro", "matthews_corrcoef", "roc_auc", "average_precision"]
)
@pytest.mark.parametrize("device", [None, "cuda"])
def test_any_metric_of_a_pipeline(monkeypatch, device, scoring):
    fake_cupy.install(monkeypatch)
    images, kinds = two_kinds(12, 24, 24)
    y = (kinds == "upright").astype(int)
    model = HostPredictions(make_hog_svm(device=device))
    assert cross_val_score(model, images, y, cv=2, scoring=scoring, error_score="raise").min() > 0.9


def test_any_metric_of_a_search_over_a_pipeline(monkeypatch):
    fake_cupy.install(monkeypatch)
    images, kinds = two_kinds(12, 24, 24)
    y = (kinds == "upright").astype(int)
    model = make_pipeline(ToDevice(), HOG(), RBFNystroem(8, random_state=0), RidgeLOOClassifier(random_state=0))
    grid = {"estimator__ridgelooclassifier__class_weight": [None, "balanced"]}
    metrics = ["accuracy", "f1", "neg_log_loss", "roc_auc", "neg_brier_score", "d2_log_loss_score"]
    options = {"cv": 2, "scoring": metrics, "refit": "roc_auc", "error_score": "raise"}
    search = GridSearchCV(HostPredictions(model), grid, **options).fit(images, y)
    assert all(np.isfinite(search.cv_results_[f"mean_test_{name}"]).all() for name in metrics)
    assert type(search.predict_proba(images)) is np.ndarray
    assert search.predict(images).dtype == y.dtype


def test_calibration_of_a_pipeline(monkeypatch):
    fake_cupy.install(monkeypatch)
    images, kinds = two_kinds(12, 24, 24)
    images = images.reshape(12, -1)
    model = HostPredictions(make_hog_svm(image_shape=(24, 24, 3), device="cuda"))
    calibrated = CalibratedClassifierCV(model, cv=2).fit(images, kinds)
    assert calibrated.predict_proba(images).shape == (12, 2)
    assert (calibrated.predict(images) == kinds).all()


def test_images_of_different_sizes(monkeypatch):
    fake_cupy.install(monkeypatch)
    images, kinds = two_kinds(6, 24, 20)
    several = [image[: 24 - i] for i, image in enumerate(images)]
    model = HostPredictions(make_hog_svm(device="cuda")).fit(several, kinds)
    assert type(model.decision_function(several)) is np.ndarray
    assert model.score(several, kinds) == 1


@pytest.mark.parametrize("estimator", [LogisticRegression(), RidgeClassifier(), RidgeLOOClassifier()], ids=str)
def test_scikit_learns_checks(estimator):
    results = check_estimator(HostPredictions(estimator), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) >= 40
    skipped = [result["check_name"] for result in results if result["status"] != "passed"]
    assert all("array_api" in name or "predict_proba" in name for name in skipped), skipped
