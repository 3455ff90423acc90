import pickle

import fake_cupy
import numpy as np
import pytest
from conftest import crops
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from classic_cls import HOG, BagOfVisualWords, ColorHistogram, DenseSIFT, FlipAverage, RBFNystroem, Resize

SMALL = {"pixels_per_cell": 4, "cells_per_block": 1}


def ramps(n=60, seed=0):
    """Images brighter to the right (class 1) or to the left (class 0), with noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    ramp = np.where(y[:, None, None], np.linspace(0, 1, 16), np.linspace(1, 0, 16))
    return (0.8 * ramp + rng.uniform(0, 0.2, (n, 16, 16))).astype(np.float32), y


def steps(n=60, seed=0):
    """Images of much noise; in class 1 a faint diagonal, which may be mirrored."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    images = rng.uniform(0, 0.6, (n, 16, 16))
    for image, label in zip(images, y, strict=True):
        if label:
            image += 0.25 * np.eye(16)[:: rng.choice([-1, 1])]
    return images.astype(np.float32), y


class Pixels(TransformerMixin, BaseEstimator):
    """Rows of pixels; remembers what it has seen."""

    def fit(self, X, y=None):
        self.seen_, self.labels_ = np.array(X), y
        return self

    def transform(self, X):
        return np.asarray(X, np.float32).reshape(len(X), -1)


@pytest.mark.parametrize("images", [crops(5, 32, 40), crops(5, 32, 40)[..., 1]], ids=["colour", "gray"])
def test_the_mean_of_both(images):
    plain, both = HOG().fit_transform(images), HOG().fit_transform(images[:, :, ::-1])
    mean = FlipAverage(HOG(), flips=True).fit_transform(images)
    np.testing.assert_array_equal(mean, (plain + both) / 2)
    assert np.abs(mean - plain).max() > 0.01
    np.testing.assert_array_equal(FlipAverage(HOG(), flips=False).fit_transform(images), plain)


def test_a_mirror_image_has_the_same_features():
    images = crops(6, 33, 41)
    for transformer in (HOG(), ColorHistogram(grid=(1, 2)), make_pipeline(Resize((24, 24)), HOG())):
        model = FlipAverage(transformer, flips=True).fit(images)
        np.testing.assert_allclose(model.transform(images[:, :, ::-1]), model.transform(images), atol=1e-6)


def test_auto_sees_a_direction():
    (X, y), (new, truth) = ramps(), ramps(seed=1)
    model = FlipAverage(Pixels()).fit(X, y)
    assert model.flips_ is False
    assert RidgeClassifier().fit(model.transform(X), y).score(model.transform(new), truth) == 1
    averaged = FlipAverage(Pixels(), flips=True).fit(X, y)
    assert RidgeClassifier().fit(averaged.transform(X), y).score(averaged.transform(new), truth) < 0.8


@pytest.mark.parametrize("labels", ["numbers", "words", "matrix"])
def test_auto_sees_a_symmetry(labels):
    X, y = steps(200)
    y = {"numbers": y, "words": np.array(["no", "yes"])[y], "matrix": np.column_stack([y, 1 - y])}[labels]
    assert FlipAverage(Pixels()).fit(X, y).flips_ is True


def test_auto_without_labels_or_with_one_class():
    X, y = steps(20)
    assert FlipAverage(Pixels()).fit(X).flips_ is False
    assert FlipAverage(Pixels()).fit(X, y * 0).flips_ is False


def test_the_transformer_is_not_changed():
    transformer = Pixels()
    FlipAverage(transformer).fit(*steps(20))
    assert not hasattr(transformer, "seen_")


def test_max_images():
    X, y = steps(50)
    a, b, c = (FlipAverage(Pixels(), max_images=20, random_state=s).fit(X, y) for s in (0, 0, 1))
    assert a.transformer_.seen_.shape == (20, 16, 16, 1)
    np.testing.assert_array_equal(a.transformer_.seen_, b.transformer_.seen_)
    assert not np.array_equal(a.transformer_.seen_, c.transformer_.seen_)
    for image, label in zip(a.transformer_.seen_[..., 0], a.transformer_.labels_, strict=True):
        assert y[(image == X).all((1, 2))] == [label]
    assert a.transform(X).shape == (50, 256)


def test_images_of_different_sizes():
    images = [image[: 40 + i, : 50 - i] for i, image in enumerate(crops(8, 60, 60))]
    y = np.arange(8) % 2
    for transformer in (BagOfVisualWords(DenseSIFT(), 10, random_state=0), make_pipeline(Resize((24, 24)), HOG())):
        for flips in (True, False, "auto"):
            model = FlipAverage(transformer, flips=flips, max_images=6, random_state=0).fit(images, y)
            features = model.transform(images)
            alone = [model.transform([image])[0] for image in images]
            np.testing.assert_allclose(features, alone, atol=1e-6)
            if flips is True:
                mirrored = model.transform([image[:, ::-1] for image in images])
                np.testing.assert_allclose(mirrored, features, atol=0.02)
    with pytest.raises(ValueError, match="Put Resize"):
        FlipAverage(HOG()).fit(images)


def test_flat_rows():
    X, y = steps(20)
    model = FlipAverage(HOG(**SMALL), flips=True, image_shape=(16, 16)).fit(X.reshape(20, -1), y)
    expected = FlipAverage(HOG(**SMALL), flips=True).fit(X, y).transform(X)
    np.testing.assert_array_equal(model.transform(X.reshape(20, -1)), expected)


def test_many_images_at_a_time_or_few(monkeypatch):
    X, y = steps(30)
    model = FlipAverage(HOG(**SMALL), flips=True).fit(X, y)
    whole = model.transform(X)
    monkeypatch.setattr("classic_cls.features.flip_average._IMAGES", 7)
    np.testing.assert_array_equal(model.transform(X), whole)


def test_names_and_pandas():
    X, y = steps(20)
    model = FlipAverage(HOG(**SMALL), flips=True).set_output(transform="pandas")
    frame = model.fit(X, y).transform(X)
    assert list(frame.columns) == list(HOG(**SMALL).fit(X).get_feature_names_out())
    np.testing.assert_array_equal(frame.to_numpy(), FlipAverage(HOG(**SMALL), flips=True).fit(X).transform(X))
    assert not hasattr(FlipAverage(Pixels()), "get_feature_names_out")


def test_in_scikit_learns_company():
    X, y = steps(60)
    model = FlipAverage(make_pipeline(HOG(**SMALL), RBFNystroem(30, random_state=0)), random_state=0).fit(X, y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), model.transform(X))
    assert str(clone(model)) == str(model)
    machine = make_pipeline(FlipAverage(HOG(**SMALL), image_shape=(16, 16)), RidgeClassifier())
    grid = {"flipaverage__transformer__orientations": [4, 9], "flipaverage__flips": [True, "auto"]}
    assert GridSearchCV(machine, grid, cv=3).fit(X.reshape(60, -1), y).best_score_ > 0.4


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"flips": "maybe"}, "flips='maybe'; expected one of 'auto', True, False"),
        ({"flips": None}, "flips=None"),
        ({"max_images": 0}, "max_images=0"),
        ({"image_shape": (3, 3)}, "image_shape=.3, 3."),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        FlipAverage(HOG(**SMALL), **parameters).fit(steps(20)[0])


@pytest.mark.parametrize("seed", range(20))
def test_auto_does_not_average_where_that_changes_nothing(body, seed):
    images = np.random.default_rng(seed).random((2, 24, 24), np.float32)  # one left out gets the other's label anyhow
    assert not FlipAverage(HOG(), random_state=0).fit(images, [0, 1]).flips_


@pytest.mark.parametrize("transformer", [0, [], None, "hog", HOG, RidgeClassifier()])
def test_what_is_no_transformer(transformer):
    with pytest.raises(TypeError, match=r"transformer=.*; expected an estimator with fit and transform, such as HOG"):
        FlipAverage(transformer).fit(np.zeros((3, 20, 20), np.uint8))


def test_as_many_labels_as_images():
    X, y = steps(20)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        FlipAverage(Pixels()).fit(X, y[1:])


@pytest.mark.parametrize("flips", ["auto", True, False])
@pytest.mark.parametrize("gray", [False, True])
def test_on_a_gpu(monkeypatch, flips, gray):
    cupy = fake_cupy.install(monkeypatch)
    images, labels = crops(10, 16, 20), np.arange(10) % 2
    images[::2] //= 3
    images = images[..., 1] if gray else images
    model = FlipAverage(HOG(**SMALL), flips=flips, max_images=7, random_state=0)
    there, here = clone(model).fit(cupy.asarray(images), labels), clone(model).fit(images, labels)
    assert there.flips_ == here.flips_
    features = there.transform(cupy.asarray(images))
    assert type(features) is cupy.ndarray
    np.testing.assert_allclose(features.get(), here.transform(images), atol=1e-5)
    np.testing.assert_array_equal(there.transform(images), here.transform(images))
    monkeypatch.setattr("classic_cls.features.flip_average._IMAGES_ON_DEVICE", 3)
    np.testing.assert_array_equal(there.transform(cupy.asarray(images)).get(), features.get())
