"""What every transformer promises to scikit-learn and on images. New transformers are enrolled by themselves."""

import pickle

import joblib
import numpy as np
import pytest
from conftest import crops
from sklearn.base import TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

import classic_cls

# The parameters with which a transformer can read images of one row, as check_estimator gives them; None if it can't.
ONE_ROW = {
    "FlipAverage": {"transformer": classic_cls.HOG(pixels_per_cell=1, cells_per_block=1)},
    "HOG": {"pixels_per_cell": 1, "cells_per_block": 1},
    "PatchKMeans": {"patch_size": 1, "n_clusters": 3, "pool": (1, 1)},
    "BagOfVisualWords": None,
    "DenseSIFT": None,
    "FisherVector": None,
    "KeypointSIFT": None,
    "VLAD": None,
}
# Smaller than the defaults, to save time; and what has no default.
QUICK = {
    "BagOfVisualWords": {"n_words": 20},
    "FisherVector": {"n_components": 4, "n_dims": 10},
    "FlipAverage": {"transformer": classic_cls.HOG(), "flips": True},
    "PatchKMeans": {"n_clusters": 20},
    "VLAD": {"n_words": 5},
}
# Where the number of threads is another's.
THREADS = {"FlipAverage": "transformer__n_jobs"}
# Those of rows of features rather than images: their own tests hold them to scikit-learn's checks.
OF_ROWS = {"KMeans", "RBFNystroem", "ToDevice", "ToHost"}
# Those of paths: likewise.
OF_PATHS = {"ReadImages"}


def transformers():
    public = {name: getattr(classic_cls, name) for name in classic_cls.__all__}
    kinds = {name: c for name, c in public.items() if isinstance(c, type) and issubclass(c, TransformerMixin)}
    return {name: c for name, c in kinds.items() if name not in OF_ROWS | OF_PATHS}


TRANSFORMERS = transformers()
# Those whose output is features, one row an image, rather than images or lists of descriptors.
FEATURES = [name for name, c in TRANSFORMERS.items() if hasattr(c, "get_feature_names_out")]


def make(name, **parameters):
    estimator = clone(TRANSFORMERS[name](**QUICK.get(name, {}) | parameters))
    return estimator.set_params(random_state=0) if "random_state" in estimator.get_params() else estimator


def assert_same(a, b):
    if isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module", params=["gray", "colour"])
def images(request):
    batch = crops(12, 33, 47)
    return batch if request.param == "colour" else np.ascontiguousarray(batch[..., 0])


@pytest.mark.parametrize("name", [n for n in TRANSFORMERS if ONE_ROW.get(n, {}) is not None])
def test_scikit_learns_checks(name):
    estimator = make(name, **ONE_ROW.get(name, {}))
    results = check_estimator(estimator, on_skip=None, on_fail="raise")
    skipped = [r["check_name"] for r in results if r["status"] == "skipped" and "ARRAY_API" not in str(r["exception"])]
    assert skipped == []
    assert sum(r["status"] == "passed" for r in results) >= 40


@pytest.mark.parametrize("name", TRANSFORMERS)
class TestOnImages:
    def test_clone_keeps_parameters(self, name):
        estimator = make(name)
        assert clone(estimator).get_params().keys() == estimator.get_params().keys()
        assert str(clone(estimator)) == str(estimator)

    def test_repr_html(self, name, images):
        assert name in make(name).fit(images)._repr_html_()

    def test_transform_before_fit(self, name, images):
        with pytest.raises(NotFittedError):
            make(name).transform(images)

    def test_fit_transform_is_fit_and_transform(self, name, images):
        assert_same(make(name).fit_transform(images), make(name).fit(images).transform(images))

    def test_fitting_again_forgets(self, name, images):
        estimator = make(name).fit(images[:6, :30])
        assert_same(estimator.fit(images).transform(images), make(name).fit(images).transform(images))

    def test_input_is_not_changed(self, name, images):
        X = images.copy()
        X.flags.writeable = False
        make(name).fit(X).transform(X)
        np.testing.assert_array_equal(X, images)

    def test_pickled(self, name, images):
        estimator = make(name).fit(images)
        again = pickle.loads(pickle.dumps(estimator))
        assert_same(again.transform(images), estimator.transform(images))

    def test_fitted_attributes_are_plain(self, name, images):
        plain = (np.ndarray, int, float, str, tuple, *TRANSFORMERS.values())
        fitted = {k: v for k, v in vars(make(name).fit(images)).items() if k.endswith("_")}
        assert all(isinstance(v, plain) for v in fitted.values()), fitted

    def test_one_image_or_many(self, name, images):
        estimator = make(name).fit(images)
        together = estimator.transform(images)
        assert_same(np.asarray(estimator.transform(images[5:6])[0]), np.asarray(together[5]))

    def test_any_number_of_threads(self, name, images):
        n_jobs = THREADS.get(name, "n_jobs")
        one, two = (make(name).set_params(**{n_jobs: n}).fit(images) for n in (1, 2))
        assert_same(one.transform(images), two.transform(images))
        assert_same(one.transform(images), one.set_params(**{n_jobs: 3}).transform(images))

    @pytest.mark.parametrize("backend", ["loky", "threading"])
    def test_any_backend_of_joblib(self, name, images, backend):
        expected = make(name).fit(images).transform(images)
        with joblib.parallel_config(backend=backend, n_jobs=2):
            assert_same(make(name).fit(images).transform(images), expected)

    def test_same_features_in_any_dtype(self, name, images):
        estimator = make(name).fit(images)
        expected = estimator.transform(images)
        for X in (
            images / 255,
            (images / 255).astype(np.float32),
            images.astype(np.int64),
            images.astype(np.uint16) * 257,
        ):
            for x, y in zip(estimator.transform(X), expected, strict=True):
                np.testing.assert_allclose(x, y, atol=1e-5)

    def test_any_memory_layout(self, name, images):
        estimator = make(name).fit(images)
        expected = estimator.transform(images)
        wide = np.zeros((12, 66, 47, *images.shape[3:]), np.uint8)
        wide[:, ::2] = images
        for X in (wide[:, ::2], np.asfortranarray(images), images[::-1][::-1], list(images)):
            assert_same(estimator.transform(X), expected)

    def test_flat_rows(self, name, images):
        shape = images.shape[1:]
        estimator = make(name, image_shape=shape)
        rows = images.reshape(len(images), -1)
        expected = make(name).fit(images).transform(images)
        assert_same(estimator.fit(rows).transform(rows), expected)
        assert_same(estimator.fit(rows).transform(rows.astype(int).tolist()), expected)
        with pytest.raises(ValueError, match="image_shape="):
            estimator.fit(rows[:, 1:])

    @pytest.mark.parametrize(
        ("spoil", "error", "message"),
        [
            (lambda X: X[:0], ValueError, "0 sample"),
            (lambda X: X[0, 0].ravel(), ValueError, "Expected 2D array"),
            (lambda X: np.float64(3), ValueError, "Expected 2D array"),
            (lambda X: np.stack([X, X])[None], ValueError, "expected .n, height, width"),
            (lambda X: X[:, :0], ValueError, "no pixels"),
            (lambda X: np.where(X[0, 0, 0] == X, np.nan, X / 255), ValueError, "NaN"),
            (lambda X: np.where(X[0, 0, 0] == X, np.inf, X / 255), ValueError, "infinity"),
            (lambda X: X.astype(complex), (TypeError, ValueError), "complex"),
            (lambda X: X.astype(object), TypeError, "object"),
            (lambda X: X.astype(np.int64) - 300, ValueError, "expected 0 to 255"),
            (lambda X: X.astype(str), TypeError, "expected uint8"),
            (lambda X: "a.jpg", TypeError, "load_image_folder"),
            (lambda X: ["a.jpg", "b.jpg"], TypeError, "load_image_folder"),
            (lambda X: None, ValueError, "Expected 2D array"),
        ],
    )
    def test_bad_input_is_refused(self, name, images, spoil, error, message):
        with pytest.raises(error, match=message):
            make(name).fit(spoil(images))
        with pytest.raises(error, match=message):
            make(name).fit(images).transform(spoil(images))

    def test_channels_first_is_refused(self, name):
        with pytest.raises(ValueError, match=r"Channels come last: X.transpose\(0, 2, 3, 1\)"):
            make(name).fit(np.zeros((4, 3, 40, 40), np.uint8))

    def test_alpha_is_refused(self, name):
        with pytest.raises(ValueError, match=r"Drop the alpha channel: X\[..., :3\]"):
            make(name).fit(np.zeros((4, 40, 40, 4), np.uint8))

    def test_other_images_than_fitted_are_refused(self, name, images):
        other = images[..., 0] if images.ndim == 4 else np.stack([images] * 3, -1)
        with pytest.raises(ValueError, match=f"{name} was fitted on images of shape"):
            make(name).fit(images).transform(other)

    def test_images_of_different_sizes(self, name, images):
        sizes = [image[: 25 + i] for i, image in enumerate(images)]
        estimator = make(name)
        try:
            together = estimator.fit(sizes).transform(sizes)
        except ValueError as error:
            assert "Resize(size)" in str(error)  # noqa: PT017
        else:
            assert_same(list(together), [estimator.transform([image])[0] for image in sizes])


@pytest.mark.parametrize("name", FEATURES)
class TestFeatures:
    def test_output(self, name, images):
        features = make(name).fit_transform(images)
        assert features.dtype == np.float32
        assert features.flags.c_contiguous
        assert features.ndim == 2
        assert np.isfinite(features).all()

    def test_names(self, name, images):
        estimator = make(name).fit(images)
        names = estimator.get_feature_names_out()
        assert len(set(names)) == len(names) == estimator.transform(images).shape[1]

    def test_pandas(self, name, images):
        estimator = make(name).fit(images)
        frame = make(name).set_output(transform="pandas").fit(images).transform(images)
        assert list(frame.columns) == list(estimator.get_feature_names_out())
        np.testing.assert_array_equal(frame.to_numpy(), estimator.transform(images))
