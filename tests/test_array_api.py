"""scikit-learn's estimators on device arrays, and labels on the host.

SciPy reads SCIPY_ARRAY_API when it is imported: without it this file runs itself again in a process that has it.
"""

import os
import subprocess
import sys

import fake_cupy
import numpy as np
import pytest
import sklearn
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version

from classic_cls import HOG, LinearSVC, ToDevice, ToHost, load_digits

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
    CLASSIFIERS = [LinearSVC(0.1), LogisticRegression(), RidgeClassifier(solver="svd")]
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
        if kind == "strings" or isinstance(classifier, LinearSVC):
            assert type(predicted) is np.ndarray
        predicted = to_host(predicted)
        assert predicted.dtype == y.dtype
        assert float(model.score(X, y)) == pytest.approx(accuracy_score(y, predicted))
        assert accuracy_score(y, predicted) > 0.8

    @pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda c: type(c).__name__)
    @pytest.mark.parametrize("kind", ["ints", "strings"])
    def test_search(monkeypatch, classifier, kind):
        fake_cupy.install(monkeypatch)
        model = make_pipeline(ToDevice(), hog, StandardScaler(), classifier)
        grid = {"standardscaler__with_std": [True, False]}
        search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(images[:20], LABELS[kind][:20])
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()
        assert to_host(search.predict(images[:5])).dtype == LABELS[kind].dtype
