import pickle

import fake_cupy
import numpy as np
import pandas as pd
import pytest
import reference
import sklearn.svm
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import classic_cls.svm
from classic_cls import LinearSVC

SHAPES = {"tall": (300, 40), "square": (120, 100), "wide": (80, 200)}
WEIGHTS = {None: None, "balanced": "balanced", "dict": {0: 5.0, 1: 0.2}}


def problem(shape, n_classes=3, scaled=False, dtype=np.float64, seed=0):
    """Imbalanced, noisy classes; the columns' scales from 1e-3 to 1e3 if `scaled`."""
    n, d = SHAPES[shape]
    X, y = make_classification(
        n,
        d,
        n_informative=8,
        n_redundant=10,
        n_classes=n_classes,
        weights=[0.15] + [0.85 / (n_classes - 1)] * (n_classes - 1),
        flip_y=0.1,
        random_state=seed,
    )
    scales = np.random.default_rng(seed).permutation(np.logspace(-3, 3, d)) if scaled else 1
    return (X * scales).astype(dtype), y


def objectives(model, X, y, sample_weight=None):
    return reference.svm_objectives(X, y, model.coef_, model.intercept_, model.C, model.class_weight, sample_weight)


@pytest.mark.filterwarnings("ignore:Liblinear failed to converge")
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_objective_is_no_higher_than_liblinears(shape, n_classes, scaled, dtype, C):
    X, y = problem(shape, n_classes, scaled, dtype)
    class_weight = [None, "balanced", {0: 5.0, 1: 0.2}][round(np.log10(C)) % 3]
    ours = LinearSVC(C, class_weight=class_weight).fit(X, y)
    theirs = sklearn.svm.LinearSVC(C=C, class_weight=class_weight, dual=False, tol=1e-7, max_iter=200).fit(X, y)
    ratio = objectives(ours, X, y) / objectives(theirs, X, y)
    assert ratio.max() < 1.0005


@pytest.mark.parametrize("class_weight", WEIGHTS.values(), ids=map(str, WEIGHTS))
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_same_hyperplanes_as_liblinears(shape, n_classes, class_weight):
    X, y = problem(shape, n_classes)
    ours = LinearSVC(0.01, tol=1e-12, class_weight=class_weight).fit(X, y)
    theirs = sklearn.svm.LinearSVC(C=0.01, tol=1e-10, class_weight=class_weight, dual=False).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-4)
    assert np.array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("C", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_vanishes(shape, C):
    X, y = problem(shape)
    model = LinearSVC(C, tol=1e-12).fit(X, y)
    gradients = reference.svm_gradients(X, y, model.coef_, model.intercept_, C)
    assert np.all((gradients**2).sum(1) / 2 < 1.01e-10 * objectives(model, X, y))


def test_the_gap_bounds_the_objective():
    X, y = problem("tall", scaled=True)
    best = objectives(LinearSVC(10, tol=1e-13).fit(X, y), X, y)
    for tol in (1e-1, 1e-3, 1e-5):
        assert np.all(objectives(LinearSVC(10, tol=tol).fit(X, y), X, y) <= best / (1 - tol) * (1 + 1e-12))


@pytest.mark.parametrize("labels", [[3, 7, -2], [0.0, 1.0, 2.0], ["cat", "dog", "bird"], [False, True]])
def test_label_kinds(labels):
    X, y = problem("tall", len(labels))
    y = np.array(labels)[y]
    model = LinearSVC(0.01).fit(X, y)
    assert model.predict(X).dtype == y.dtype
    assert np.array_equal(model.classes_, np.unique(y))
    assert model.score(X, y) > 0.6
    assert model.predict(X[:0:-1]).shape == (len(X) - 1,)


@pytest.mark.parametrize("class_weight", WEIGHTS.values(), ids=map(str, WEIGHTS))
@pytest.mark.parametrize("shape", SHAPES)
def test_sample_weight_is_repetition(shape, class_weight):
    X, y = problem(shape)
    times = np.random.default_rng(1).integers(0, 4, len(y))
    weighted = LinearSVC(0.1, tol=1e-13, class_weight=class_weight).fit(X, y, sample_weight=times)
    repeated = LinearSVC(0.1, tol=1e-13, class_weight=class_weight).fit(X.repeat(times, 0), y.repeat(times))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_diagonal_alone_reaches_the_optimum(shape, monkeypatch):
    X, y = problem(shape)
    best = objectives(LinearSVC(0.01, tol=1e-10).fit(X, y), X, y)
    monkeypatch.setattr(classic_cls.svm, "_LARGEST_MATRIX", 10)
    monkeypatch.setattr(classic_cls.svm, "_CHUNK", 300)
    np.testing.assert_allclose(objectives(LinearSVC(0.01, tol=1e-6).fit(X, y), X, y), best, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_hard_problems_take_few_steps(shape):
    X, y = problem(shape, scaled=True)
    assert LinearSVC(100.0).fit(X, y).n_iter_ < 200


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bytes_twice(dtype):
    X, y = problem("tall", dtype=dtype)
    one, two = (LinearSVC().fit(X, y) for _ in range(2))
    assert one.coef_.tobytes() == two.coef_.tobytes()
    assert one.decision_function(X).dtype == dtype
    assert one.coef_.dtype == one.intercept_.dtype == np.float64


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_array_kind(shape, n_classes, dtype):
    xp = pytest.importorskip("array_api_strict")
    X, y = problem(shape, n_classes, dtype=dtype)
    strict = xp.asarray(X)
    ours, numpys = LinearSVC(1e-2).fit(strict, xp.asarray(y)), LinearSVC(1e-2).fit(X, y)
    np.testing.assert_allclose(ours.coef_, numpys.coef_, rtol=1e-3, atol=1e-6)
    assert type(ours.coef_) is type(ours.intercept_) is np.ndarray
    scores = ours.decision_function(strict)
    assert scores.dtype == getattr(xp, dtype)
    assert type(ours.predict(strict)) is np.ndarray
    assert np.array_equal(ours.predict(strict), ours.predict(X))


@pytest.mark.parametrize("shape", SHAPES)
def test_arrays_on_a_gpu(shape, monkeypatch):
    cupy = fake_cupy.install(monkeypatch)
    X, y = problem(shape)
    ours, numpys = LinearSVC(1e-2).fit(cupy.asarray(X), y), LinearSVC(1e-2).fit(X, y)
    np.testing.assert_allclose(ours.coef_, numpys.coef_, rtol=1e-6)
    assert type(ours.coef_) is type(ours.predict(cupy.asarray(X))) is np.ndarray
    assert type(ours.decision_function(cupy.asarray(X))) is cupy.ndarray
    assert np.array_equal(ours.predict(cupy.asarray(X)), numpys.predict(X))


def test_another_array_kind_is_checked():
    xp = pytest.importorskip("array_api_strict")
    X, y = problem("tall")
    model = LinearSVC().fit(xp.asarray(X), y)
    assert model.n_features_in_ == 40
    assert LinearSVC().fit(xp.asarray(X.astype(int)), y).n_iter_ > 1
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.fit(xp.asarray(np.where(X > 1, np.nan, X)), y)
    with pytest.raises(ValueError, match="Input contains NaN"):
        model.fit(xp.asarray(X), np.where(y > 1, np.nan, y.astype(object)))
    with pytest.raises(ValueError, match="300 samples and y has 299"):
        model.fit(xp.asarray(X), y[1:])
    with pytest.raises(ValueError, match=r"shape \(40,\)"):
        model.predict(xp.asarray(X[0]))
    with pytest.raises(ValueError, match="expecting 40 features"):
        model.predict(xp.asarray(X[:, 1:]))


@pytest.mark.parametrize("name", ["C", "tol"])
@pytest.mark.parametrize("value", [0, -1.5, np.nan, np.inf, "1", None, True])
def test_wrong_numbers_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        LinearSVC().set_params(**{name: value}).fit(*problem("tall"))


def test_errors():
    X, y = problem("tall")
    for value in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"max_iter={value!r}"):
            LinearSVC(max_iter=value).fit(X, y)
    with pytest.raises(ValueError, match=r"one class only, \['a'\]"):
        LinearSVC().fit(X, ["a"] * len(X))
    with pytest.raises(TypeError, match=r"sparse.*sklearn\.svm\.LinearSVC"):
        LinearSVC().fit(sparse.csr_matrix(X), y)
    with pytest.raises(ValueError, match="NaN"):
        LinearSVC().fit(np.where(X > 1, np.nan, X), y)
    with pytest.raises(ValueError, match="egative"):
        LinearSVC().fit(X, y, sample_weight=-np.ones(len(y)))


def test_too_few_steps_are_said():
    X, y = problem("square")
    with pytest.warns(ConvergenceWarning, match="max_iter=2 steps were not enough"):
        assert LinearSVC(max_iter=2).fit(X, y).n_iter_ == 2


def test_in_scikit_learns_company():
    X, y = problem("tall", 3)
    frame = pd.DataFrame(X).rename(columns="f{}".format)
    model = LinearSVC(0.1).fit(frame, y)
    assert list(model.feature_names_in_[:2]) == ["f0", "f1"]
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict(frame), model.predict(frame))
    assert clone(model).get_params() == {"C": 0.1, "class_weight": None, "max_iter": 1000, "tol": 1e-4}
    search = GridSearchCV(make_pipeline(StandardScaler(), LinearSVC()), {"linearsvc__C": [1e-3, 1e-2]}, cv=3).fit(X, y)
    assert search.best_score_ > 0.5
    assert CalibratedClassifierCV(LinearSVC(0.01), cv=3).fit(X, y).predict_proba(X).shape == (300, 3)


def test_digits():
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.float32) / 16
    ours, theirs = (svm.fit(X[:1000], y[:1000]) for svm in (LinearSVC(), sklearn.svm.LinearSVC(dual=False)))
    assert abs(ours.score(X[1000:], y[1000:]) - theirs.score(X[1000:], y[1000:])) < 0.005


def test_scikit_learns_checks():
    results = check_estimator(LinearSVC(), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) >= 40
    skipped = [result["check_name"] for result in results if result["status"] != "passed"]
    assert all("array_api" in name for name in skipped), skipped
