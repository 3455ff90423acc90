import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import classic_cls.kernel_map
from classic_cls import RBFNystroem
from classic_cls._array_api import to_numpy


def rows(n=60, d=7, dtype=np.float64, offset=0.0, seed=0):
    return (np.random.default_rng(seed).normal(size=(n, d)) + offset).astype(dtype)


def products(model, a, b):
    return model.transform(a).astype(float) @ model.transform(b).astype(float).T


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0, 1e3])
@pytest.mark.parametrize("bandwidth", [0.3, 1.0, 2.0])
def test_all_rows_as_landmarks_give_the_kernel(bandwidth, offset, dtype):
    X = rows(dtype=dtype, offset=offset)
    model = RBFNystroem(100, bandwidth, random_state=0).fit(X)
    expected = rbf_kernel(X.astype(float), gamma=model.gamma_)
    np.testing.assert_allclose(products(model, X, X), expected, atol=1e-3)
    assert model.transform(X).dtype == model.normalization_.dtype == dtype


def test_bandwidth_is_in_median_distances():
    X = rows(40)
    model = RBFNystroem(40, 0.5, random_state=0).fit(X)
    distances = np.linalg.norm(X[:, None] - X, axis=2)[np.triu_indices(40, 1)]
    np.testing.assert_allclose(model.gamma_, 1 / (2 * (0.5 * np.median(distances)) ** 2))
    np.testing.assert_allclose(RBFNystroem(40, 1.0, random_state=0).fit(X).gamma_, model.gamma_ / 4)
    np.testing.assert_allclose(RBFNystroem(40, 0.5, random_state=0).fit(X * 100).gamma_ * 1e4, model.gamma_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_as_scikit_learns(dtype):
    X, new = rows(200, dtype=dtype), rows(50, dtype=dtype, seed=1)
    model = RBFNystroem(30, random_state=0).fit(X)
    theirs = Nystroem(gamma=model.gamma_, n_components=30).fit((model.components_ + model.center_).astype(float))
    np.testing.assert_allclose(products(model, new, new), products(theirs, new, new), atol=2e-3)
    exact = rbf_kernel(new.astype(float), gamma=model.gamma_)
    assert np.abs(products(model, new, new) - exact).max() > 1e-3  # they differ from the kernel, but alike


def test_more_landmarks_come_nearer():
    X = rows(300)
    expected = rbf_kernel(X, gamma=RBFNystroem(300, random_state=0).fit(X).gamma_)
    errors = []
    for n in (10, 50, 150, 300):
        model = RBFNystroem(n, random_state=0).fit(X)
        errors.append(np.abs(products(model, X, X) - expected).mean())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_rows(dtype):
    constant = RBFNystroem(20, random_state=0).fit(np.full((30, 4), 7, dtype))
    np.testing.assert_allclose(products(constant, np.full((2, 4), 7, dtype), np.full((2, 4), 7, dtype)), 1, atol=1e-3)
    one = RBFNystroem(20, random_state=0).fit(rows(1, dtype=dtype))
    assert one.transform(rows(3, dtype=dtype)).shape == (3, 1)
    doubled = np.repeat(rows(20, dtype=dtype), 4, axis=0)
    model = RBFNystroem(80, random_state=0).fit(doubled)
    np.testing.assert_allclose(products(model, doubled, doubled), rbf_kernel(doubled, gamma=model.gamma_), atol=2e-3)
    far = model.transform(np.full((1, 7), 1e4, dtype))
    np.testing.assert_array_equal(far, 0)


def test_rows_far_from_the_others_and_near_to_each_other():
    X = rows(200, dtype=np.float32)
    X[:60] = X[:60] / 100 + 1e3
    assert np.isfinite(RBFNystroem(random_state=0).fit_transform(X)).all()


def test_many_rows_at_a_time_or_few(monkeypatch):
    X = rows(100)
    model = RBFNystroem(30, random_state=0).fit(X)
    whole = model.transform(X)
    monkeypatch.setattr(classic_cls.kernel_map, "_ROWS", 7)
    np.testing.assert_allclose(model.transform(X), whole, atol=1e-12)
    np.testing.assert_allclose(model.transform(X[5:6]), whole[5:6], atol=1e-12)


def test_random_state():
    X = rows(100)
    a, b, c = (RBFNystroem(10, random_state=s).fit(X) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.transform(X), b.transform(X))
    assert not np.array_equal(a.components_, c.components_)
    landmarks = a.components_ + a.center_
    assert all(np.abs(X - row).max(1).min() < 1e-12 for row in landmarks)
    assert len(np.unique(landmarks, axis=0)) == 10


def test_float32_goes_with_a_model_of_float64_and_back():
    X = rows(80)
    for fitted, given in ((np.float64, np.float32), (np.float32, np.float64)):
        model = RBFNystroem(20, random_state=0).fit(X.astype(fitted))
        mapped = model.transform(X.astype(given))
        assert mapped.dtype == given
        np.testing.assert_allclose(mapped, model.transform(X.astype(fitted)), atol=1e-3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_components": 0}, "n_components=0"),
        ({"n_components": 2.5}, "n_components=2.5"),
        ({"bandwidth": 0}, "bandwidth=0"),
        ({"bandwidth": -1.0}, "bandwidth=-1.0"),
        ({"bandwidth": np.inf}, "bandwidth=inf"),
        ({"bandwidth": np.nan}, "bandwidth=nan"),
        ({"bandwidth": "1"}, "bandwidth='1'"),
        ({"bandwidth": None}, "bandwidth=None"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        RBFNystroem(**parameters).fit(rows())


def test_bad_rows_are_refused():
    X = rows()
    model = RBFNystroem(10).fit(X)
    for method in (RBFNystroem(10).fit, model.transform):
        with pytest.raises(ValueError, match="NaN"):
            method(np.where(X > 2, np.nan, X))
        with pytest.raises(ValueError, match="infinity"):
            method(np.where(X > 2, np.inf, X))
    with pytest.raises(ValueError, match="expecting 7 features"):
        model.transform(X[:, 1:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("standardize", [False, True])
def test_numbers_whose_distances_would_be_infinite(dtype, standardize):
    X = np.random.default_rng(0).normal(size=(30, 7)).astype(dtype)
    model = RBFNystroem(20, standardize=standardize, random_state=0).fit(X)
    largest = np.sqrt(np.finfo(dtype).max)
    far = np.vstack([X[:2], np.full((1, 7), largest / 100, dtype)])
    assert np.isfinite(model.transform(far)).all()
    assert (RBFNystroem(20, standardize=standardize).fit_transform(far) < 2).all()
    far[2, 3] = largest
    for function in (model.transform, clone(model).fit):
        with pytest.raises(ValueError, match=f"distances leave {np.dtype(dtype)}.*pass float64"):
            function(far)
    if dtype == np.float32:
        assert np.isfinite(model.transform(far.astype(np.float64))).all()


def test_input_is_not_changed():
    X = rows()
    kept = X.copy()
    RBFNystroem(10).fit(X).transform(X)
    np.testing.assert_array_equal(X, kept)


def test_in_scikit_learns_company():
    X = rows(120)
    y = (np.linalg.norm(X, axis=1) > 2.5).astype(int)  # no hyperplane splits that
    model = RBFNystroem(20, random_state=0).fit(X)
    own = {"bandwidth": 1.0, "n_components": 20, "n_dims": None, "random_state": 0, "standardize": False}
    assert clone(model).get_params() == model.get_params() == own
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), model.transform(X))
    names = model.get_feature_names_out()
    assert names[[0, -1]].tolist() == ["rbfnystroem0", "rbfnystroem19"]
    frame = clone(model).set_output(transform="pandas").fit_transform(pd.DataFrame(X, index=np.arange(120) + 5))
    assert list(frame.columns) == list(names)
    assert frame.index[0] == 5
    machine = make_pipeline(RBFNystroem(random_state=0), RidgeClassifier(0.1))
    search = GridSearchCV(machine, {"rbfnystroem__bandwidth": [0.01, 1.0], "rbfnystroem__n_components": [60]}, cv=3)
    assert search.fit(X, y).best_params_["rbfnystroem__bandwidth"] == 1
    assert search.best_score_ > RidgeClassifier().fit(X, y).score(X, y)


def test_scikit_learns_checks():
    results = check_estimator(RBFNystroem(), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) >= 40
    skipped = [result["check_name"] for result in results if result["status"] != "passed"]
    assert all("array_api" in name for name in skipped), skipped


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardize_is_a_scaler_before(dtype):
    X = (rows(90) * np.logspace(-2, 2, 7)).astype(dtype)
    X[:, 0] = 0.1  # constant
    model = RBFNystroem(90, standardize=True, random_state=0).fit(X)
    scaled = StandardScaler().fit_transform(X.astype(float))
    expected = rbf_kernel(scaled, gamma=model.gamma_)
    Z = model.transform(X)
    np.testing.assert_allclose(Z @ Z.T, expected, atol=1e-3)


def test_principal_components_keep_the_kernel_of_rows_that_lie_in_few_dimensions():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 60))
    kept = RBFNystroem(100, n_dims=5, random_state=0).fit(X)
    assert kept.axes_.shape == (60, 5)
    np.testing.assert_allclose(kept.axes_.T @ kept.axes_, np.eye(5), atol=1e-9)
    whole = RBFNystroem(100, random_state=0).fit(X)
    assert whole.axes_ is None
    np.testing.assert_allclose(kept.transform(X), whole.transform(X), atol=1e-6)
    assert RBFNystroem(4, n_dims=5, random_state=0).fit(X).axes_ is None  # no more landmarks than that
    with pytest.raises(ValueError, match="n_dims=0; expected a positive int"):
        RBFNystroem(n_dims=0).fit(X)


def test_fewer_dimensions_lose_what_lies_outside():
    X = rows(200)
    whole, kept = (RBFNystroem(200, n_dims=k, random_state=0).fit_transform(X) for k in (None, 1))
    assert np.abs(whole @ whole.T - kept @ kept.T).max() > 0.1


# --- In other kinds of arrays -----------------------------------------------------------------------------------------

FITTED = ("center_", "scale_", "axes_", "components_", "normalization_")


def assert_near(there, here, tolerance):
    """Compare arrays of another kind with NumPy's, relative to their largest number."""
    there = to_numpy(there)
    assert there.dtype == here.dtype
    np.testing.assert_allclose(there, here, atol=tolerance * max(np.abs(here).max(), 1e-30))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("n_dims", [None, 3, 50])
@pytest.mark.parametrize("shape", [(150, 20), (40, 70), (3, 70), (150, 1)], ids=str)
def test_any_array_kind(arrays, shape, n_dims, standardize, dtype):
    X = rows(*shape, dtype=dtype) * np.linspace(3, 1, shape[1], dtype=dtype) + 2
    model = RBFNystroem(30, standardize=standardize, n_dims=n_dims, random_state=0)
    there, here = clone(model).fit(arrays.asarray(X)), clone(model).fit(X)
    np.testing.assert_allclose(there.gamma_, here.gamma_, rtol=1e-5)
    for name in FITTED:
        kept = getattr(there, name)
        assert kept is None if getattr(here, name) is None else type(kept) is np.ndarray and kept.dtype == dtype
        assert np.shape(kept) == np.shape(getattr(here, name))
    single = 1e-4 if shape[1] > 1 else 1e-3  # landmarks in one dimension nearly coincide
    tolerance = single if dtype == "float32" else 1e-9
    expected = here.transform(X)
    for fitted in (there, here, pickle.loads(pickle.dumps(there))):
        features = fitted.transform(arrays.asarray(X))
        assert type(features) is type(arrays.asarray(X))
        assert_near(features, expected, tolerance)
        assert_near(fitted.transform(X), expected, tolerance)


def test_a_few_rows_at_a_time_in_any_array_kind(arrays, monkeypatch):
    X = rows(100)
    model = RBFNystroem(30, standardize=True, n_dims=4, random_state=0)
    whole = clone(model).fit(X)
    monkeypatch.setattr(classic_cls.kernel_map, "_ROWS", 30)  # of which the axes are learned
    model.fit(arrays.asarray(X))
    monkeypatch.setattr(classic_cls.kernel_map, "_ROWS", 7)
    assert_near(model.transform(arrays.asarray(X)), model.transform(X), 1e-9)
    assert_near(model.center_, whole.center_, 1e-12)
    assert_near(model.scale_, whole.scale_, 1e-12)


def test_rows_near_to_each_other_in_any_array_kind(arrays):
    X = rows(200, dtype=np.float32)
    X[:60] = X[:60] / 100 + 1e3
    assert np.isfinite(to_numpy(RBFNystroem(random_state=0).fit(arrays.asarray(X)).transform(arrays.asarray(X)))).all()
    doubled = arrays.asarray(np.repeat(rows(20, dtype=np.float32), 4, axis=0))
    assert np.isfinite(to_numpy(RBFNystroem(80).fit(doubled).transform(doubled))).all()
    constant = arrays.asarray(np.full((30, 4), 7.0))
    assert np.isfinite(to_numpy(RBFNystroem(20, standardize=True).fit(constant).transform(constant))).all()


def test_other_numbers_in_any_array_kind(arrays):
    X = np.random.default_rng(0).integers(0, 256, (40, 9), dtype=np.uint8)
    there, here = (RBFNystroem(20, random_state=0).fit(a) for a in (arrays.asarray(X), X))
    assert there.components_.dtype == here.components_.dtype == here.transform(X).dtype == np.float32
    assert_near(there.transform(arrays.asarray(X)), here.transform(X), 1e-4)
    assert_near(here.transform(arrays.asarray(X / 2)), here.transform(X / 2), 1e-4)


def test_no_distance_is_negative(arrays):
    X = rows(60, dtype=np.float32, offset=100)
    for there in (X, arrays.asarray(X)):
        distances = to_numpy(classic_cls.kernel_map._squared_distances(there, there))
        assert distances.min() >= 0
        np.testing.assert_allclose(distances, ((X[:, None] - X) ** 2).sum(2), atol=0.1)


def test_bad_rows_of_any_array_kind_are_refused(arrays):
    X = rows(dtype=np.float32)
    model = RBFNystroem(10).fit(arrays.asarray(X))
    for method in (RBFNystroem(10).fit, model.transform):
        for bad in (np.nan, np.inf):
            with pytest.raises(ValueError, match="NaN or infinity"):
                method(arrays.asarray(np.where(X > 2, np.float32(bad), X)))
        with pytest.raises(ValueError, match=r"distances leave .*float32"):
            method(arrays.asarray(X * np.float32(1e19)))
        with pytest.raises(ValueError, match=r"shape \(60,\)"):
            method(arrays.asarray(X[:, 0]))
        with pytest.raises(TypeError, match=r"sklearn\.kernel_approximation\.Nystroem takes sparse"):
            method(sparse.csr_matrix(X))
    with pytest.raises(ValueError, match="expecting 7 features"):
        model.transform(arrays.asarray(X[:, 1:]))
