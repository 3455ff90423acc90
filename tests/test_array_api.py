"""scikit-learn's estimators on device arrays, and labels on the host.

SciPy reads SCIPY_ARRAY_API when it is imported: without it this file runs itself again in a process that has it.
"""

import os
import subprocess
import sys
import warnings

import fake_cupy
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import accuracy_score, get_scorer, get_scorer_names
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version

from classic_cls import HOG, HostPredictions, LinearSVC, RBFNystroem, RidgeLOOClassifier, ToDevice, ToHost, load_digits

if os.environ.get("SCIPY_ARRAY_API") != "1":

    def test_with_scipys_support():
        command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-p", "no:cacheprovider", __file__]
        done = subprocess.run(command, env=os.environ | {"SCIPY_ARRAY_API": "1"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        assert " passed" in done.stdout

else:
    digits = load_digits()
    images, target = digits.images[:150], digits.target[:150]
    hog = HOG(pixels_per_cell=4, cells_per_block=2)
    pytestmark = pytest.mark.skipif(
        parse_version(sklearn.__version__) < parse_version("1.9"), reason="LogisticRegression on a device"
    )
    LABELS = {"ints": target, "strings": np.array([f"digit {k}" for k in target]), "two": target > 4}
    CLASSIFIERS = [LinearSVC(0.1), LogisticRegression(), RidgeClassifier(solver="svd"), RidgeLOOClassifier()]
    STEPS = [StandardScaler(), PCA(20), PCA(0.9)]

    @pytest.fixture(autouse=True)
    def _dispatch():
        with sklearn.config_context(array_api_dispatch=True):
            yield

    def to_host(a):
        a = ToHost().transform(a)
        return a if isinstance(a, np.ndarray) else np.asarray(a)

    @pytest.mark.parametrize("step", STEPS, ids=str)
    def test_transformers(arrays, step):
        features = hog.fit_transform(images)
        there = step.fit_transform(arrays.asarray(features))
        assert type(there) is type(arrays.asarray(features))
        np.testing.assert_allclose(np.abs(to_host(there)), np.abs(step.fit_transform(features)), atol=2e-3)

    @pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: type(c).__name__)
    @pytest.mark.parametrize("kind", LABELS)
    def test_classifiers(arrays, classifier, kind):
        X, y = arrays.asarray(hog.fit_transform(images)), LABELS[kind]
        model = make_pipeline(StandardScaler(), classifier).fit(X, y)
        predicted = model.predict(X)
        if kind == "strings" or isinstance(classifier, (LinearSVC, RidgeLOOClassifier)):
            assert type(predicted) is np.ndarray
        predicted = to_host(predicted)
        assert predicted.dtype == y.dtype
        assert float(model.score(X, y)) == pytest.approx(accuracy_score(y, predicted))
        assert accuracy_score(y, predicted) > 0.8

    @pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: type(c).__name__)
    @pytest.mark.parametrize("kind", LABELS)
    def test_any_metric_of_predictions_on_the_host(monkeypatch, classifier, kind):
        arrays, X, y = fake_cupy.install(monkeypatch), hog.fit_transform(images), LABELS[kind]
        here = make_pipeline(StandardScaler(), classifier)
        fitted = clone(here).fit(X, y)
        names = [name for name in get_scorer_names() if judges(name, fitted, X, y)]
        assert len(names) > (15 if kind == "strings" else 20)
        options = {"cv": 2, "scoring": names, "error_score": "raise"}
        expected = cross_validate(here, X, y, **options)
        scores = cross_validate(HostPredictions(here), arrays.asarray(X), y, **options)
        for name in names:
            np.testing.assert_allclose(scores[f"test_{name}"], expected[f"test_{name}"], atol=0.02, err_msg=name)

    def judges(name, model, X, y):
        """Tell whether this metric has anything to say of a classifier on the CPU."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", UndefinedMetricWarning)
            try:
                return np.isfinite(get_scorer(name)(model, X, y))
            except (AttributeError, TypeError, ValueError, UndefinedMetricWarning):
                return False

    @pytest.mark.parametrize("kind", LABELS)
    @pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: type(c).__name__)
    def test_labels_on_the_host_keep_their_dtype(arrays, classifier, kind):
        X, y = arrays.asarray(hog.fit_transform(images)), LABELS[kind]
        model = HostPredictions(classifier).fit(X, y)
        predicted = model.predict(X)
        assert type(predicted) is np.ndarray
        assert predicted.dtype == model.classes_.dtype == y.dtype
        assert set(predicted) <= set(y)

    @pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: type(c).__name__)
    @pytest.mark.parametrize("kind", ["ints", "strings"])
    def test_search_with_any_metric(monkeypatch, classifier, kind):
        fake_cupy.install(monkeypatch)
        model = HostPredictions(make_pipeline(ToDevice(), hog, StandardScaler(), classifier))
        grid = {"estimator__standardscaler__with_std": [True, False]}
        metrics = ["accuracy", "balanced_accuracy", "f1_macro", "jaccard_macro", "matthews_corrcoef", "top_k_accuracy"]
        options = {"cv": 2, "scoring": metrics, "refit": "accuracy", "error_score": "raise"}
        search = GridSearchCV(model, grid, **options).fit(images, LABELS[kind])
        assert all(np.isfinite(search.cv_results_[f"mean_test_{name}"]).all() for name in metrics)
        assert search.predict(images).dtype == LABELS[kind].dtype

    @pytest.mark.parametrize("kind", LABELS)
    def test_kernel_machine(arrays, kind):
        X, y = hog.fit_transform(images), LABELS[kind]
        model = make_pipeline(StandardScaler(), RBFNystroem(50, random_state=0), RidgeLOOClassifier(random_state=0))
        there, here = (clone(model).fit(a, y) for a in (arrays.asarray(X), X))
        assert there[-1].alpha_ == here[-1].alpha_
        assert type(there.predict(arrays.asarray(X))) is np.ndarray
        np.testing.assert_array_equal(there.predict(arrays.asarray(X)), here.predict(X))
        shares = there.predict_proba(arrays.asarray(X))
        assert type(shares) is type(arrays.asarray(X))
        np.testing.assert_allclose(to_host(shares), here.predict_proba(X), atol=1e-3)

    @pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: type(c).__name__)
    @pytest.mark.parametrize("kind", ["ints", "strings"])
    def test_search(monkeypatch, classifier, kind):
        fake_cupy.install(monkeypatch)
        model = make_pipeline(ToDevice(), hog, StandardScaler(), classifier)
        grid = {"standardscaler__with_std": [True, False]}
        search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(images[:20], LABELS[kind][:20])
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert to_host(search.predict(images[:5])).dtype == LABELS[kind].dtype
