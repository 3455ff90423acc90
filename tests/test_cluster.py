import pickle
import tracemalloc

import fake_cupy
import numpy as np
import pandas as pd
import pytest
import sklearn.cluster
from conftest import usable_cupy
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_limits

from classic_cls import KMeans, _array_kmeans
from classic_cls._array_api import to_numpy


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_products():
    """Several would wait for each other where all cores are busy; the arrays are tiny."""
    with threadpool_limits(1):
        yield


@pytest.fixture(params=["array_api_strict", "torch", "cupy", pytest.param("gpu", marks=pytest.mark.gpu)])
def asarray(request, monkeypatch):
    """Return what makes arrays that are not NumPy's; "cupy" is a fake one, "gpu" the real one."""
    if request.param == "gpu":
        return usable_cupy().asarray
    if request.param == "cupy":
        return fake_cupy.install(monkeypatch).asarray
    return pytest.importorskip(request.param).asarray


def rows(n=200, d=5, n_blobs=12, spread=0.3, dtype=np.float64, offset=0, seed=0):
    """Blobs that overlap a little."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n_blobs, d))
    return (centers[rng.integers(n_blobs, size=n)] + spread * rng.normal(size=(n, d)) + offset).astype(dtype)


def in_array_code(X, n_clusters, seed=0, **parameters):
    """Cluster NumPy arrays as if they were not NumPy's."""
    defaults = {"init": None, "n_init": 1, "max_iter": 300, "tol": 1e-4, "batch_size": None}
    return _array_kmeans.cluster(X, n_clusters, **defaults | parameters, rng=np.random.RandomState(seed))


# --- Array code beside scikit-learn -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n_clusters", "offset"), [(1, 0), (5, 0), (30, 0), (5, 1000)])
def test_same_clusters_from_the_same_centers(asarray, n_clusters, offset, dtype):
    X = rows(dtype=dtype, offset=offset)
    theirs = sklearn.cluster.KMeans(n_clusters, init=X[:n_clusters], n_init=1).fit(X)
    ours = KMeans(n_clusters, init=asarray(X[:n_clusters])).fit(asarray(X))
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=1e-4)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.cluster_centers_.dtype == dtype


@pytest.mark.parametrize("n_init", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_same_clusters_from_the_same_seed(seed, n_init):
    X = rows(seed=seed)
    theirs = sklearn.cluster.KMeans(15, n_init=n_init, random_state=seed).fit(X)
    ours = in_array_code(X, 15, seed, n_init=n_init)
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, atol=1e-8)


def test_inertia_from_its_own_seeds_is_scikit_learns(asarray):
    X = rows(n_blobs=40, spread=0.5, dtype=np.float32)
    ours = [KMeans(20, random_state=seed).fit(asarray(X)).inertia_ for seed in range(5)]
    theirs = [sklearn.cluster.KMeans(20, random_state=seed).fit(X).inertia_ for seed in range(10, 15)]
    np.testing.assert_allclose(np.mean(ours), np.mean(theirs), rtol=0.03)
    assert len(set(ours)) > 1


def test_initial_centers_lie_far_apart():
    X = rows(300, n_blobs=10, spread=0.01)
    chosen = _array_kmeans.plus_plus(X, 10, np.random.RandomState(0))
    assert (chosen[:, None] == X).all(2).any(1).all()
    assert _array_kmeans.inertia(X, chosen) < 0.01 * _array_kmeans.inertia(X, X[:10])


def test_the_best_of_several_runs_stays():
    X = rows(n_blobs=30)
    single = [in_array_code(X, 12, n_init=1, seed=seed).inertia for seed in range(4)]
    assert in_array_code(X, 12, n_init=8).inertia <= min(single[0], np.mean(single))


@pytest.mark.parametrize(("max_iter", "tol"), [(1, 0), (3, 0), (300, 0), (300, 1e-2), (300, 10)])
def test_stops_when_scikit_learn_does(max_iter, tol):
    X = 7 * rows(400, spread=0.6)
    theirs = sklearn.cluster.KMeans(12, init=X[:12], n_init=1, max_iter=max_iter, tol=tol).fit(X)
    ours = in_array_code(X, 12, init=X[:12], max_iter=max_iter, tol=tol)
    assert ours.n_iter == theirs.n_iter_
    np.testing.assert_array_equal(ours.labels, theirs.labels_)
    np.testing.assert_allclose(ours.inertia, theirs.inertia_)


@pytest.mark.parametrize("n_empty", [1, 3])
def test_empty_clusters_get_the_farthest_rows(asarray, n_empty):
    X = rows(60, spread=1.0)
    init = np.concatenate([X[: 8 - n_empty], 1e3 + np.eye(5)[:n_empty]])
    ours = KMeans(8, init=asarray(init), max_iter=1).fit(asarray(X))
    theirs = sklearn.cluster.KMeans(8, init=init, n_init=1, max_iter=1).fit(X)
    assert adjusted_rand_score(ours.labels_, theirs.labels_) == 1  # of several, scikit-learn's order is arbitrary
    np.testing.assert_allclose(ours.inertia_, theirs.inertia_)
    assert len(np.unique(ours.labels_)) == 8


def test_more_clusters_than_rows_that_differ(asarray):
    X = np.repeat(np.eye(3), 5, axis=0)
    with pytest.warns(ConvergenceWarning, match="Only 3 of n_clusters=5 clusters have rows"):
        model = KMeans(5, random_state=0).fit(asarray(X))
    assert model.inertia_ == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(model.cluster_centers_[model.labels_], X, atol=1e-12)


@pytest.mark.parametrize("batch_size", [None, 50])
def test_the_size_of_chunks_does_not_matter(monkeypatch, batch_size):
    X = rows()
    expected = in_array_code(X, 7, batch_size=batch_size)
    monkeypatch.setattr(_array_kmeans, "_CHUNK", 100)
    ours = in_array_code(X, 7, batch_size=batch_size)
    np.testing.assert_array_equal(ours.labels, expected.labels)
    np.testing.assert_allclose(ours.centers, expected.centers)


def test_distances_never_stand_whole_in_memory(monkeypatch):
    X = rows(4000)
    monkeypatch.setattr(_array_kmeans, "_CHUNK", 4000)
    tracemalloc.start()
    in_array_code(X, 400, init=X[:400], max_iter=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes * 400 / 5 / 4  # a quarter of all distances


# --- Mini-batches -----------------------------------------------------------------------------------------------------


def test_mini_batches_find_clusters(asarray):
    X = rows(1000, n_blobs=6, spread=0.1, dtype=np.float32)
    model = KMeans(6, batch_size=100, random_state=0).fit(asarray(X))
    full = sklearn.cluster.KMeans(6, n_init=3, random_state=0).fit(X)
    assert model.inertia_ < 1.02 * full.inertia_
    assert 1 <= model.n_iter_ < 100
    assert model.cluster_centers_.dtype == np.float32


def test_mini_batches_are_as_good_as_scikit_learns():
    X = rows(1000, n_blobs=40, spread=0.4)
    parameters = {"batch_size": 100, "max_iter": 30, "tol": 0}
    ours = [in_array_code(X, 20, seed, **parameters).inertia for seed in range(8)]
    theirs = [sklearn.cluster.MiniBatchKMeans(20, random_state=s, **parameters).fit(X).inertia_ for s in range(8)]
    assert np.mean(ours) < 1.02 * np.mean(theirs)


def test_a_mini_batch_moves_centers_to_the_means_of_all_their_rows():
    X, centers = rows(60), rows(4, seed=1)
    weights, seen = np.zeros(4), []
    for batch in (X[:20], X[20:40], X[40:]):
        seen.append((batch, _array_kmeans.nearest(batch, centers)))
        centers, weights, _ = _array_kmeans._updated(batch, centers, weights)
    taken, labels = (np.concatenate(part) for part in zip(*seen, strict=True))
    for k in np.unique(labels):
        np.testing.assert_allclose(centers[k], taken[labels == k].mean(0))
    np.testing.assert_array_equal(weights, np.bincount(labels, minlength=4))


def test_centers_without_rows_come_back():
    X = rows(500, n_blobs=5, spread=0.05)
    far = np.concatenate([X[:1], 100 + np.eye(5)[:4]])
    ours = in_array_code(X, 5, init=far, batch_size=50)
    assert np.abs(ours.centers).max() < 10
    assert len(np.unique(ours.labels)) == 5


# --- The estimator ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_on_numpy_arrays_it_is_scikit_learns(dtype):
    X = rows(dtype=dtype)
    pairs = [
        (KMeans(9, random_state=3), sklearn.cluster.KMeans(9, random_state=3)),
        (KMeans(9, init=X[:9].tolist(), n_init=4), sklearn.cluster.KMeans(9, init=X[:9], n_init=1)),
        (KMeans(9, n_init=2, tol=0, random_state=3), sklearn.cluster.KMeans(9, n_init=2, tol=0, random_state=3)),
        (
            KMeans(9, batch_size=64, max_iter=20, random_state=3),
            sklearn.cluster.MiniBatchKMeans(9, batch_size=64, max_iter=20, tol=1e-4, random_state=3),
        ),
    ]
    for ours, theirs in pairs:
        labels = ours.fit_predict(X)
        np.testing.assert_array_equal(labels, theirs.fit_predict(X))
        np.testing.assert_array_equal(ours.cluster_centers_, theirs.cluster_centers_)
        assert (ours.inertia_, ours.n_iter_) == (theirs.inertia_, theirs.n_iter_)
        np.testing.assert_array_equal(ours.predict(X[::-1]), theirs.predict(X[::-1]))
        np.testing.assert_array_equal(ours.transform(X), theirs.transform(X))
        assert ours.score(X) == pytest.approx(theirs.score(X), rel=1e-5)


def test_fitted_anywhere_it_predicts_everywhere(asarray):
    X, new = rows(dtype=np.float32), rows(dtype=np.float32, seed=1)
    model = pickle.loads(pickle.dumps(KMeans(6, random_state=0).fit(asarray(X))))
    assert type(model.cluster_centers_) is type(model.labels_) is type(model.predict(asarray(new))) is np.ndarray
    assert model.labels_.dtype == model.predict(new).dtype == model.predict(asarray(new)).dtype == np.int32
    np.testing.assert_array_equal(model.predict(asarray(X)), model.labels_)
    np.testing.assert_array_equal(model.predict(asarray(new)), model.predict(new))
    distances = model.transform(asarray(new))
    assert type(distances) is type(asarray(new))
    np.testing.assert_allclose(to_numpy(distances), model.transform(new), atol=1e-5)
    assert model.score(asarray(new)) == pytest.approx(model.score(new), rel=1e-5)
    assert KMeans(6, random_state=0).fit(asarray(X.astype(np.int64))).cluster_centers_.dtype == np.float64


def test_kinds_of_arrays_do_not_mix(asarray):
    X = rows()
    for there, init in ((asarray(X), X[:4]), (X, asarray(X[:4]))):
        with pytest.raises(TypeError, match=r"init a .*expected arrays of one kind"):
            KMeans(4, init=init).fit(there)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_clusters": 0}, "n_clusters=0"),
        ({"n_clusters": 2.0}, "n_clusters=2.0"),
        ({"n_clusters": 201}, "n_clusters=201, but X has only 200 rows"),
        ({"n_init": "auto"}, "n_init='auto'"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"tol": -1e-9}, "tol=-1e-09"),
        ({"tol": np.nan}, "tol=nan"),
        ({"tol": True}, "tol=True"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"init": "random"}, "init='random'; expected 'k-means"),
    ],
)
@pytest.mark.parametrize("convert", [np.asarray, None])
def test_bad_parameters_are_named(asarray, convert, parameters, message):
    with pytest.raises(ValueError, match=message):
        KMeans(**parameters).fit((convert or asarray)(rows()))


def test_bad_arrays_are_refused(asarray):
    X = rows()
    model = KMeans(3, random_state=0).fit(asarray(X))
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.fit(asarray(np.where(X > 2, np.nan, X)))
    with pytest.raises(ValueError, match=r"init has shape \(3, 5\); expected \(4, 5\)"):
        KMeans(4, init=asarray(X[:3])).fit(asarray(X))
    with pytest.raises(ValueError, match="init contains NaN"):
        KMeans(4, init=asarray(X[:4] * np.inf)).fit(asarray(X))
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        model.predict(asarray(X[0]))
    with pytest.raises(ValueError, match="expecting 5 features"):
        model.predict(asarray(X[:, 1:]))
    with pytest.raises(TypeError, match=r"sparse.*sklearn\.cluster\.KMeans"):
        KMeans(3).fit(sparse.csr_matrix(X))
    with pytest.raises(NotFittedError):
        KMeans(3).predict(asarray(X))


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
def test_numbers_too_large_are_refused(asarray):
    X = (rows() * 1e30).astype(np.float32)
    for convert in (asarray, np.asarray):
        with pytest.raises(ValueError, match=r"squares are too large for .*float32"):
            KMeans(3, init=convert(X[:3])).fit(convert(X))


def test_in_scikit_learns_company():
    frame = pd.DataFrame(rows()).rename(columns="f{}".format)
    model = make_pipeline(StandardScaler(), KMeans(4, random_state=0)).set_output(transform="pandas").fit(frame)
    assert list(model.transform(frame).columns) == [f"kmeans{k}" for k in range(4)]
    assert list(KMeans(2).fit(frame).feature_names_in_) == list(frame.columns)
    parameters = {"n_init": 1, "max_iter": 300, "tol": 1e-4, "batch_size": None, "random_state": None}
    assert clone(KMeans(4)).get_params() == {"n_clusters": 4, "init": "k-means++", **parameters}


def test_scikit_learns_checks():
    results = check_estimator(KMeans(3, random_state=0), on_skip=None)
    assert sum(result["status"] == "passed" for result in results) >= 40
    skipped = [result["check_name"] for result in results if result["status"] != "passed"]
    assert all("array_api" in name for name in skipped), skipped


def test_centers_of_another_precision(monkeypatch):
    cupy, X = fake_cupy.install(monkeypatch), rows()
    centers = X[:12].astype(np.float32)
    nearest = _array_kmeans.nearest(cupy.asarray(X), cupy.asarray(centers))
    np.testing.assert_array_equal(nearest.get(), _array_kmeans.nearest(X, centers))
