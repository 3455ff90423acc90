import time

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from classic_cls import Resize, benchmark, make_baseline
from classic_cls.benchmark import forecast as module
from classic_cls.benchmark.forecast import Forecast, forecast
from classic_cls.commands.common import announce


class Slow(TransformerMixin, BaseEstimator):
    """Takes two milliseconds an image."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        time.sleep(0.002 * len(X))
        return np.array([np.ravel(image)[:16] for image in X], np.float32)


def rows(images):
    return images.reshape(len(images), -1)


def images_of(n):
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8), dtype=np.uint8)
    return images, np.arange(n) % 2


def test_cost_grows_with_the_images():
    pipeline = make_pipeline(Slow(), RidgeClassifier())
    few, many = (forecast(pipeline, *images_of(n)) for n in (1000, 5000))
    assert few.seconds > 2.3  # 0.4 for the short fit, 0.002 for each image
    assert many.seconds > 10.3
    assert few.bytes == 2 * 4 * 16 * 1000
    assert not hasattr(pipeline[0], "fitted_")


def test_algebra_of_the_kernel_is_counted(monkeypatch):
    monkeypatch.setattr(module, "_operations_per_second", lambda: 1e10)
    images, y = images_of(50_000)
    costs = {}
    for n_components in (500, 10_000):
        model = make_baseline("fast", random_state=0).set_params(
            features__transformer__kernel__n_components=n_components
        )
        costs[n_components] = forecast(model, images, y)
    assert costs[10_000].seconds > costs[500].seconds + 20
    assert costs[10_000].bytes > 50_000 * 10_000 * 4 > costs[500].bytes


def test_a_short_fit_that_fails_announces_nothing_and_loses_nothing():
    images, _ = images_of(3000)
    target = (np.arange(3000) < 2).astype(int)  # hardly among 200
    parts = {"train": np.arange(2500), "test": np.arange(2500, 3000)}
    data = Bunch(name="rare", images=images, target=target, target_names=np.array(["a", "b"]), **parts)
    model = make_pipeline(Resize((1, 1)), FunctionTransformer(rows), LogisticRegression())
    with pytest.raises(ValueError, match="at least 2 classes"):
        forecast(model, images, target)
    result = benchmark.run({"logistic": model}, data, announce=lambda name, cost: None)
    assert result.records[0]["accuracy"] == 1


def test_reads_well():
    assert str(Forecast(42, 2**30)) == "about 42 s and 1.0 GiB"
    assert str(Forecast(540, 3.1 * 2**30)) == "about 9 min and 3.1 GiB"


@pytest.mark.parametrize(("n", "seconds", "expected"), [(2000, 61, True), (2000, 59, False), (1999, 61, False)])
def test_long_fits_are_announced(monkeypatch, capsys, n, seconds, expected):
    monkeypatch.setattr(module, "forecast", lambda *arguments: Forecast(seconds, 2**30))
    images, y = images_of(n + 50)
    parts = {"train": np.arange(n), "test": np.arange(n, n + 50)}
    data = Bunch(name="noise", images=images, target=y, target_names=np.array(["a", "b"]), **parts)
    model = make_pipeline(Resize((1, 1)), FunctionTransformer(rows), RidgeClassifier())
    heard = []
    result = benchmark.run({"ridge": model}, data, announce=lambda name, cost: heard.append((name, cost)))
    assert not result.failed
    assert [name for name, _ in heard] == ["ridge", "pixels-svm"] * expected
    announce(data.name, n, "ridge", Forecast(seconds, 2**30))
    assert f"noise: ridge will take about {seconds} s and 1.0 GiB for {n:,} images" in capsys.readouterr().err
