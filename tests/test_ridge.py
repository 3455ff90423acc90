import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_classification
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight
from sklearn.utils.estimator_checks import check_estimator

import classic_cls.ridge
from classic_cls import RidgeLOOClassifier
from classic_cls._array_api import to_numpy

SHAPES = {"tall": (60, 8), "square": (25, 25), "wide": (25, 60)}
WEIGHTS = [None, "balanced", {0: 5.0, 1: 0.2, 2: 1.0}]


def problem(shape, n_classes=3, dtype=np.float64, seed=0):
    n, d = SHAPES[shape]
    options = {"n_informative": 5, "n_redundant": 0, "n_clusters_per_class": 1, "flip_y": 0.2}
    shares = [0.2] + [0.8 / (n_classes - 1)] * (n_classes - 1)
    X, y = make_classification(n, d, n_classes=n_classes, weights=shares, random_state=seed, **options)
    return (X * 3 + 2).astype(dtype), y


def strength(X, y, alpha, class_weight=None):
    """What alpha means to scikit-learn, and the rows' weights."""
    weights = np.ones(len(X)) if class_weight is None else compute_sample_weight(class_weight, y)
    centered = X.astype(float) - np.average(X.astype(float), axis=0, weights=weights)
    return alpha * (weights * (centered**2).sum(1)).sum() / len(X), weights


@pytest.mark.parametrize("alpha", [1e-2, 1.0])
@pytest.mark.parametrize("class_weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_same_hyperplanes_as_scikit_learns(shape, n_classes, dtype, class_weight, alpha):
    X, y = problem(shape, n_classes, dtype)
    class_weight = class_weight if n_classes == 3 or class_weight != WEIGHTS[2] else {0: 5.0, 1: 0.2}
    ours = RidgeLOOClassifier([alpha], class_weight=class_weight).fit(X, y)
    theirs = RidgeClassifier(strength(X, y, alpha, class_weight)[0], class_weight=class_weight, solver="cholesky")
    theirs.fit(X.astype(float), y)
    tolerance = 1e-9 if dtype == np.float64 else 2e-4
    np.testing.assert_allclose(ours.coef_, np.atleast_2d(theirs.coef_), atol=tolerance)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=tolerance)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=tolerance * 10)
    assert ours.coef_.dtype == ours.intercept_.dtype == ours.decision_function(X).dtype == dtype
    assert ours.alpha_ == alpha


@pytest.mark.parametrize("class_weight", WEIGHTS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_error_is_that_of_models_without_a_row(dtype, shape, class_weight):
    X, y = problem(shape, dtype=dtype)
    model = RidgeLOOClassifier([0.1], class_weight=class_weight).fit(X, y)
    penalty, weights = strength(X, y, 0.1, class_weight)
    targets, errors = np.where(y[:, None] == np.arange(3), 1.0, -1.0), []
    for i in range(len(X)):
        others = np.arange(len(X)) != i
        without = Ridge(penalty, solver="cholesky").fit(X[others].astype(float), targets[others], weights[others])
        errors.append(((without.predict(X[[i]].astype(float)) - targets[i]) ** 2).mean())
    expected = np.average(errors, weights=weights)
    np.testing.assert_allclose(model.loo_error_, expected, rtol=1e-8 if dtype == np.float64 else 1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sample_left_out_is_as_good_as_all(shape):
    X, y = problem(shape)
    whole, part = (RidgeLOOClassifier([0.1], max_left_out=n, random_state=0).fit(X, y) for n in (1000, 20))
    np.testing.assert_array_equal(whole.coef_, part.coef_)
    assert 0.5 < part.loo_error_ / whole.loo_error_ < 2
    again = RidgeLOOClassifier([0.1], max_left_out=20, random_state=0).fit(X, y)
    assert again.loo_error_ == part.loo_error_
    other = RidgeLOOClassifier([0.1], max_left_out=20, random_state=1).fit(X, y)
    assert other.loo_error_ != part.loo_error_


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", SHAPES)
def test_the_search_finds_the_best_alpha(shape, seed):
    X, y = problem(shape, seed=seed)
    model = RidgeLOOClassifier().fit(X, y)
    errors = {alpha: RidgeLOOClassifier([alpha]).fit(X, y).loo_error_ for alpha in model.alphas}
    falls = np.diff(list(errors.values())) < 0
    assert model.loo_error_ == errors[model.alpha_]
    if not np.any(~falls[:-1] & falls[1:]):  # first they fall, then they rise
        assert model.alpha_ == min(errors, key=errors.get)
    neighbours = [errors.get(alpha) for alpha in model.alphas if 0.3 < alpha / model.alpha_ < 3.5]
    assert model.loo_error_ == min(neighbours)


@pytest.mark.parametrize("best", range(7))
def test_the_search_goes_both_ways(best):
    solve = lambda alpha: classic_cls.ridge._Solution(alpha, None, None, abs(alpha - best))  # noqa: E731
    assert classic_cls.ridge._search(solve, list(range(7))).alpha == best
    assert classic_cls.ridge._search(solve, [best]).alpha == best


def test_many_rows_at_a_time_or_few(monkeypatch):
    X, y = problem("tall")
    whole = RidgeLOOClassifier().fit(X, y)
    monkeypatch.setattr(classic_cls.ridge, "_ROWS", 7)
    np.testing.assert_allclose(RidgeLOOClassifier().fit(X, y).coef_, whole.coef_, atol=1e-12)


def test_alpha_means_the_same_at_any_scale():
    X, y = problem("tall")
    one, large = (RidgeLOOClassifier().fit(X * scale, y) for scale in (1, 1000))
    assert one.alpha_ == large.alpha_
    np.testing.assert_allclose(one.decision_function(X), large.decision_function(X * 1000), atol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_the_origin(dtype):
    X, y = problem("tall", dtype=dtype)
    near, far = (RidgeLOOClassifier([0.1]).fit(X + dtype(offset), y) for offset in (0, 1e3))
    tolerance = 1e-8 if dtype == np.float64 else 5e-3
    np.testing.assert_allclose(far.decision_function(X + dtype(1e3)), near.decision_function(X), atol=tolerance)


def test_the_narrow_way_is_the_same():
    X, y = problem("square")
    twice = np.concatenate([X, X], axis=1)  # 25 rows of 50 numbers
    plain, narrow = RidgeLOOClassifier([0.1]).fit(X, y), RidgeLOOClassifier([0.1]).fit(twice, y)
    np.testing.assert_allclose(narrow.decision_function(twice), plain.decision_function(X), atol=1e-10)
    np.testing.assert_allclose(narrow.loo_error_, plain.loo_error_)


@pytest.mark.parametrize("labels", [[3, 7, -2], [0.0, 1.0, 2.0], ["cat", "dog", "bird"], [False, True]])
def test_label_kinds(labels):
    X, y = problem("tall", len(labels))
    y = np.array(labels)[y]
    model = RidgeLOOClassifier().fit(X, y)
    assert model.predict(X).dtype == y.dtype
    assert np.array_equal(model.classes_, np.unique(y))
    assert model.score(X, y) > 0.7
    scores, shares = model.decision_function(X), model.predict_proba(X)
    assert scores.shape == ((60,) if len(labels) == 2 else (60, 3))
    assert shares.shape == (60, len(labels))
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert np.array_equal(model.classes_[shares.argmax(1)], model.predict(X))


def test_probabilities_are_calibrated():
    X, y = load_digits(return_X_y=True)
    model = RidgeLOOClassifier().fit(X[::2], y[::2])
    scores = model.decision_function(X[1::2])
    losses = {scale: log_loss(y[1::2], softmax(scores * scale, axis=1)) for scale in (1, *np.logspace(0, 2, 50))}
    ours = log_loss(y[1::2], model.predict_proba(X[1::2]))
    assert ours < 0.6 * losses[1]
    assert ours < 1.02 * min(losses.values())
    assert model.score(X[1::2], y[1::2]) > 0.92


def indicators():
    X, y = problem("tall")
    return X, np.column_stack([y == 0, y != 1, np.zeros(60), np.ones(60)]).astype(int)


def test_several_labels():
    X, Y = indicators()
    model = RidgeLOOClassifier([0.1]).fit(X, Y)
    assert model.coef_.shape == (4, 8)
    assert np.array_equal(model.classes_, range(4))
    predicted, shares = model.predict(X), model.predict_proba(X)
    assert predicted.shape == shares.shape == (60, 4)
    assert np.array_equal(predicted, shares > 0.5)
    assert np.array_equal(predicted[:, 2:], Y[:, 2:])
    assert (predicted == Y)[:, :2].mean() > 0.85
    for column, classes in ((0, [-1, 1]), (1, [-1, 1])):
        alone = RidgeLOOClassifier([0.1]).fit(X, np.array(classes)[Y[:, column]])
        np.testing.assert_allclose(model.decision_function(X)[:, column], alone.decision_function(X), atol=1e-10)


def test_other_matrices_of_labels():
    X, Y = indicators()
    with pytest.warns(DataConversionWarning):
        assert RidgeLOOClassifier().fit(X, Y[:, :1]).predict(X).shape == (60,)
    with pytest.raises(ValueError, match="Multioutput"):
        RidgeLOOClassifier().fit(X, Y * 2 + np.arange(4))


def test_strong_imbalance():
    rng = np.random.default_rng(0)
    y = np.arange(1000) < 10
    X = rng.normal(size=(1000, 5)) + 1.5 * y[:, None]
    plain, balanced = (RidgeLOOClassifier(class_weight=w).fit(X, y) for w in (None, "balanced"))
    assert balanced.predict(X)[y].mean() > 0.8 > plain.predict(X)[y].mean()
    assert np.isfinite(plain.predict_proba(X)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_a_hundred_classes(each, dtype):
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(100, 40))
    X = (np.repeat(centers, each, axis=0) + 0.1 * rng.normal(size=(100 * each, 40))).astype(dtype)
    y = np.repeat(np.arange(100), each)
    for class_weight in (None, "balanced"):
        model = RidgeLOOClassifier(class_weight=class_weight).fit(X, y)
        assert model.coef_.shape == (100, 40)
        assert np.isfinite(model.predict_proba(X)).all()
        assert model.score(X, y) > 0.9 or each == 1


@pytest.mark.parametrize("value", [0, 3.5])
@pytest.mark.parametrize("shape", [(9, 4), (9, 30)])
def test_features_that_say_nothing(shape, value):
    y = np.array([1, 1, 1, 1, 1, 0, 0, 2, 2])
    model = RidgeLOOClassifier().fit(np.full(shape, value), y)
    assert np.array_equal(model.predict(np.full(shape, value)), np.ones(9))
    np.testing.assert_allclose(model.decision_function(np.full(shape, value))[0], [-5 / 9, 1 / 9, -5 / 9], atol=1e-9)
    np.testing.assert_allclose(model.coef_, 0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_and_repeated_features_and_rows(dtype):
    X, y = problem("tall", dtype=dtype)
    padded = np.concatenate([X, np.full((60, 3), 1e3, dtype), X, X], axis=1)
    model = RidgeLOOClassifier().fit(np.tile(padded, (200, 1)), np.tile(y, 200))
    assert model.score(padded, y) >= RidgeLOOClassifier().fit(X, y).score(X, y) - 0.05


def test_alphas_below_the_rounding_are_passed_over():
    rng = np.random.default_rng(0)
    few = rng.normal(size=(20000, 10))
    X, y = (few @ rng.normal(size=(10, 60)) + 3).astype(np.float32), few[:, 0] > 0
    with pytest.raises(ValueError, match="too small for features so dependent in float32"):
        RidgeLOOClassifier([1e-9]).fit(X, y)
    model = RidgeLOOClassifier([1e-9, 1e-8, 1.0]).fit(X, y)
    assert model.alpha_ == 1
    assert model.score(X, y) > 0.97


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alphas": []}, "alphas="),
        ({"alphas": [0.0, 1.0]}, "alphas="),
        ({"alphas": [-1.0]}, "alphas="),
        ({"alphas": [1.0, np.nan]}, "alphas="),
        ({"alphas": [1.0, np.inf]}, "alphas="),
        ({"alphas": "auto"}, "alphas="),
        ({"alphas": None}, "alphas="),
        ({"max_left_out": 0}, "max_left_out=0"),
        ({"max_left_out": 2.5}, "max_left_out=2.5"),
        ({"class_weight": "even"}, "class_weight"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        RidgeLOOClassifier(**parameters).fit(*problem("tall"))


def test_errors():
    X, y = problem("tall")
    with pytest.raises(ValueError, match=r"one class only, \['a'\]"):
        RidgeLOOClassifier().fit(X, ["a"] * len(X))
    with pytest.raises(ValueError, match="NaN"):
        RidgeLOOClassifier().fit(np.where(X > 1, np.nan, X), y)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        RidgeLOOClassifier().fit(X, y + 0.5)
    with pytest.raises(ValueError, match="expecting 8 features"):
        RidgeLOOClassifier().fit(X, y).predict(X[:, 1:])


def test_one_alpha_may_be_a_number():
    assert RidgeLOOClassifier(0.1).fit(*problem("tall")).alpha_ == 0.1


def test_input_is_not_changed():
    X, y = problem("wide")
    kept = X.copy()
    RidgeLOOClassifier().fit(X, y).predict(X)
    np.testing.assert_array_equal(X, kept)


def test_in_scikit_learns_company():
    X, y = problem("tall")
    frame = pd.DataFrame(X).rename(columns="f{}".format)
    model = RidgeLOOClassifier([0.1, 1], random_state=0).fit(frame, y)
    assert list(model.feature_names_in_[:2]) == ["f0", "f1"]
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))
    assert clone(model).get_params() == model.get_params()
    public = {name for name in vars(model) if not name.startswith("_")} - set(model.get_params())
    assert all(name.endswith("_") for name in public), public
    pipeline = make_pipeline(StandardScaler(), RidgeLOOClassifier())
    grid = {"ridgelooclassifier__class_weight": [None, "balanced"], "ridgelooclassifier__alphas": [[0.1], [1.0, 10.0]]}
    assert GridSearchCV(pipeline, grid, cv=3).fit(X, y).best_score_ > 0.6
    assert cross_val_score(pipeline, X, y, cv=3, scoring="neg_log_loss").min() > -1.5
    for method in ("sigmoid", "isotonic"):
        calibrated = CalibratedClassifierCV(RidgeLOOClassifier(), method=method, cv=3).fit(X, y)
        assert calibrated.predict_proba(X).shape == (60, 3)


def test_scikit_learns_checks():
    results = check_estimator(RidgeLOOClassifier(), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) >= 40
    skipped = [result["check_name"] for result in results if result["status"] != "passed"]
    assert all("array_api" in name for name in skipped), skipped


# --- In other kinds of arrays -----------------------------------------------------------------------------------------

LABELS = {
    "ints": lambda y: y + 7,
    "strings": lambda y: np.array(["cat", "dog", "owl"])[y],
    "two": lambda y: y > 1,
    "two strings": lambda y: np.array(["no", "yes"])[(y > 1).astype(int)],
    "indicators": lambda y: np.column_stack([y == 0, y != 1]).astype(int),
}


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_array_kind(arrays, shape, labels, dtype, class_weight):
    X, y = problem(shape, dtype=dtype)
    y, there = LABELS[labels](y), arrays.asarray(X)
    model = RidgeLOOClassifier(class_weight=None if labels == "indicators" else class_weight, max_left_out=20)
    ours, numpys = (clone(model).set_params(random_state=0).fit(a, y) for a in (there, X))
    assert ours.alpha_ == numpys.alpha_
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-12}
    for name in ("coef_", "intercept_", "loo_error_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(numpys, name), **tolerance)
    assert type(ours.coef_) is type(ours.intercept_) is np.ndarray
    assert ours.coef_.dtype == ours.intercept_.dtype == dtype
    for fitted in (ours, numpys, pickle.loads(pickle.dumps(ours))):
        for method in ("decision_function", "predict_proba"):
            values, expected = getattr(fitted, method)(there), getattr(numpys, method)(X)
            assert type(values) is type(there)
            assert to_numpy(values).dtype == expected.dtype == dtype
            np.testing.assert_allclose(to_numpy(values), expected, rtol=2e-3 if dtype == "float32" else 1e-7)
        for rows in (there, X):
            predicted = fitted.predict(rows)
            assert type(predicted) is np.ndarray
            assert predicted.dtype == y.dtype
            assert np.array_equal(predicted, numpys.predict(X))


def test_scores_have_the_precision_of_the_rows(arrays):
    X, y = problem("tall")
    for fitted, given in (("float32", "float64"), ("float64", "float32")):
        model = RidgeLOOClassifier([0.1]).fit(arrays.asarray(X.astype(fitted)), y)
        for rows in (X.astype(given), arrays.asarray(X.astype(given))):
            assert to_numpy(model.decision_function(rows)).dtype == to_numpy(model.predict_proba(rows)).dtype == given


def test_labels_of_any_array_kind(arrays):
    X, y = problem("tall")
    model = RidgeLOOClassifier([0.1]).fit(arrays.asarray(X), arrays.asarray(y))
    assert type(model.classes_) is np.ndarray
    assert model.score(arrays.asarray(X), y) == RidgeLOOClassifier([0.1]).fit(X, arrays.asarray(y)).score(X, y)


def test_other_numbers_in_any_array_kind(arrays):
    X, y = problem("tall")
    X = (10 * X).astype(np.int32)
    ours, numpys = (RidgeLOOClassifier().fit(a, y) for a in (arrays.asarray(X), X))
    assert ours.alpha_ == numpys.alpha_
    assert ours.coef_.dtype == np.float32
    np.testing.assert_allclose(ours.coef_, numpys.coef_, atol=1e-5)


@pytest.mark.parametrize("n", [60, 2])
def test_one_feature_and_few_rows_in_any_array_kind(arrays, n):
    X, y = np.linspace(-1, 1, n)[:, None], np.arange(n) >= n // 2
    model = RidgeLOOClassifier().fit(arrays.asarray(X), y)
    assert np.array_equal(model.predict(arrays.asarray(X)), y)
    constant = RidgeLOOClassifier().fit(arrays.asarray(0 * X + 3.5), y)
    np.testing.assert_allclose(constant.coef_, 0, atol=1e-9)


def test_many_rows_at_a_time_or_few_in_any_array_kind(arrays, monkeypatch):
    X, y = problem("tall")
    monkeypatch.setattr(classic_cls.ridge, "_ROWS", 7)
    np.testing.assert_allclose(
        RidgeLOOClassifier().fit(arrays.asarray(X), y).coef_, RidgeLOOClassifier().fit(X, y).coef_
    )


def test_alphas_below_the_rounding_in_any_array_kind(arrays):
    rng = np.random.default_rng(0)
    few = rng.normal(size=(20000, 10))
    X, y = arrays.asarray((few @ rng.normal(size=(10, 60)) + 3).astype(np.float32)), few[:, 0] > 0
    with pytest.raises(ValueError, match="too small for features so dependent in float32"):
        RidgeLOOClassifier([1e-9]).fit(X, y)
    assert RidgeLOOClassifier([1e-9, 1e-8, 1.0]).fit(X, y).alpha_ == 1


def test_errors_in_any_array_kind(arrays):
    X, y = problem("tall")
    there = arrays.asarray(X)
    with pytest.raises(ValueError, match=r"one class only, \['a'\]"):
        RidgeLOOClassifier().fit(there, ["a"] * len(X))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            RidgeLOOClassifier().fit(arrays.asarray(np.where(X > 1, bad, X)), y)
        with pytest.raises(ValueError, match="NaN or infinity"):
            RidgeLOOClassifier().fit(there, y).predict(arrays.asarray(np.where(X > 1, bad, X)))
    with pytest.raises(ValueError, match="y contains NaN"):
        RidgeLOOClassifier().fit(there, np.where(y > 1, np.nan, y))
    with pytest.raises(ValueError, match="60 samples and y has 59 labels"):
        RidgeLOOClassifier().fit(there, y[1:])
    with pytest.raises(ValueError, match="Multioutput"):
        RidgeLOOClassifier().fit(there, np.column_stack([y, y * 2]))
    with pytest.raises(ValueError, match="expecting 8 features"):
        RidgeLOOClassifier().fit(there, y).predict(there[:, 1:])
    with pytest.raises(ValueError, match=r"shape \(8,\)"):
        RidgeLOOClassifier().fit(there, y).predict(there[0, :])
    with pytest.raises(TypeError, match=r"sklearn\.linear_model\.RidgeClassifier takes sparse"):
        RidgeLOOClassifier().fit(sparse.csr_matrix(X), y)


def test_probabilities_are_scipys():
    X, y = problem("tall")
    scores = RidgeLOOClassifier([0.1]).fit(X, y)
    np.testing.assert_allclose(
        scores.predict_proba(X), softmax(scores.scale_ * scores.decision_function(X), axis=1), rtol=1e-14
    )
    several = RidgeLOOClassifier([0.1]).fit(*indicators())
    np.testing.assert_array_equal(scores.predict_proba(1e6 * X).round() % 1, 0)
    expected = expit(2 * several.scale_ * several.decision_function(X))
    np.testing.assert_allclose(several.predict_proba(X), expected, rtol=1e-13)
    np.testing.assert_array_equal(several.predict_proba(1e6 * X).round() % 1, 0)
