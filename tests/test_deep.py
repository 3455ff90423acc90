import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import crops
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from classic_cls import NetClassifier, Resize, benchmark, load_digits, make_small_cnn, make_small_resnet

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

QUICK = {"architecture": "cnn", "epochs": 2, "batch_size": 8, "flips": False, "n_jobs": 1, "random_state": 0}


@pytest.fixture(scope="module", params=["gray", "colour"])
def images(request):
    batch = crops(16, 13, 17)
    return batch if request.param == "colour" else np.ascontiguousarray(batch[..., 0])


LABELS = np.array(["cat", "dog", "eel", "fox"])[np.arange(16) % 4]


def stripes(n, height=16, width=16, seed=0):
    """Noise with bright rows or bright columns, and which of them."""
    images = np.random.default_rng(seed).integers(0, 128, (n, height, width), dtype=np.uint8)
    images[::2, ::4] += 100
    images[1::2, :, ::4] += 100
    return images, np.array(["rows", "columns"])[np.arange(n) % 2]


@pytest.mark.parametrize("architecture", ["cnn", "resnet"])
class TestBoth:
    def test_learns(self, architecture):
        model = NetClassifier(**QUICK | {"architecture": architecture, "epochs": 5}).fit(*stripes(64))
        assert model.score(*stripes(80, seed=1)) > 0.9
        assert model.predict(stripes(2)[0]).dtype == model.classes_.dtype
        assert len(model.loss_curve_) == 5
        assert model.loss_curve_[-1] < model.loss_curve_[0]

    @pytest.mark.parametrize("size", [(8, 8), (9, 31), (70, 64), (150, 131)])
    def test_any_size(self, architecture, size):
        X = crops(6, *size)
        probabilities = NetClassifier(**QUICK | {"architecture": architecture}).fit(X, LABELS[:6]).predict_proba(X)
        assert probabilities.shape == (6, 4)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)

    def test_same_seed_same_weights(self, architecture, images):
        one, two, other = (
            NetClassifier(**QUICK | {"architecture": architecture, "random_state": seed}).fit(images, LABELS)
            for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(one.predict_proba(images), two.predict_proba(images))
        assert np.abs(one.predict_proba(images) - other.predict_proba(images)).max() > 1e-3

    def test_pickled(self, architecture, images):
        model = NetClassifier(**QUICK | {"architecture": architecture}).fit(images, LABELS)
        content = pickle.dumps(model)
        np.testing.assert_array_equal(pickle.loads(content).predict_proba(images), model.predict_proba(images))
        n_weights = sum(weights.numel() for weights in model.module_.parameters())
        assert len(content) < 4.1 * n_weights + 50_000  # neither gradients nor momentum


def test_presets():
    assert make_small_cnn(n_jobs=1).architecture == "cnn"
    assert make_small_resnet(random_state=3).get_params()["random_state"] == 3
    assert str(clone(make_small_cnn(image_shape=(8, 8)))) == str(make_small_cnn(image_shape=(8, 8)))


@pytest.mark.parametrize("seed", [np.random.RandomState(4), None])
def test_random_state_of_other_kinds(images, seed):
    NetClassifier(**QUICK | {"random_state": seed}).fit(images, LABELS)


def test_fitting_again_forgets(images):
    model = NetClassifier(**QUICK).fit(images[:, :10], np.arange(16) % 3)
    again = model.fit(images, LABELS).predict_proba(images)
    np.testing.assert_array_equal(again, NetClassifier(**QUICK).fit(images, LABELS).predict_proba(images))


def test_same_picture_in_any_dtype_and_layout(images):
    model = NetClassifier(**QUICK).fit(images, LABELS)
    expected = model.predict_proba(images)
    floats = (images / 255).astype(np.float32)
    for X in (images / 255, floats, images.astype(np.int64), np.asfortranarray(images), list(images)):
        np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-5)
    np.testing.assert_allclose(NetClassifier(**QUICK).fit(floats, LABELS).predict_proba(images), expected, atol=1e-2)
    rows = NetClassifier(image_shape=images.shape[1:], **QUICK).fit(images.reshape(16, -1), LABELS)
    np.testing.assert_array_equal(rows.predict_proba(images.reshape(16, -1)), expected)


def test_standardises_by_the_training_pixels(images):
    net = NetClassifier(**QUICK).fit(images, LABELS).module_
    pixels = images.reshape(-1, net.mean.numel()) / 255
    np.testing.assert_allclose(net.mean.flatten(), pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(net.std.flatten(), pixels.std(0), rtol=1e-5)


def test_one_image_or_many(images):
    model = NetClassifier(**QUICK).fit(images, LABELS)
    np.testing.assert_allclose(model.predict_proba(images[5:6])[0], model.predict_proba(images)[5], atol=1e-5)


def test_input_and_torch_stay_as_they_were(images):
    X = images.copy()
    X.flags.writeable = False
    before = torch.get_num_threads(), torch.random.get_rng_state(), torch.is_grad_enabled()
    model = NetClassifier(**QUICK | {"n_jobs": before[0] + 1}).fit(X, LABELS)
    model.predict(X)
    np.testing.assert_array_equal(X, images)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert torch.is_grad_enabled() == before[2]


def test_threads_change_only_the_rounding(images):
    one, two = (NetClassifier(**QUICK | {"n_jobs": n}).fit(images, LABELS).predict_proba(images) for n in (1, 2))
    np.testing.assert_allclose(one, two, atol=0.02)


@pytest.mark.parametrize("flips", [True, False])
def test_flips(images, flips):
    model = NetClassifier(**QUICK | {"flips": flips}).fit(images, LABELS)
    apart = np.abs(model.predict_proba(images) - model.predict_proba(images[:, :, ::-1])).max()
    assert (apart < 1e-5) == flips


def test_flips_are_found_out():
    X = np.zeros((40, 16, 16), np.uint8)
    sides = np.arange(40) % 2  # bright on the left, or on the right: a mirror exchanges them
    X[sides == 0, 3:13, 2:6], X[sides == 1, 3:13, 10:14] = 200, 200
    X += np.random.default_rng(0).integers(0, 50, X.shape, dtype=np.uint8)
    assert not NetClassifier(**QUICK | {"flips": "auto"}).fit(X, sides).flips_
    lying = np.where(sides[:, None, None] == 0, X, X.transpose(0, 2, 1))
    lying[::4] = lying[::4, :, ::-1]  # upright or lying: a mirror does not
    lying[1::4] = lying[1::4, :, ::-1]
    assert NetClassifier(**QUICK | {"flips": "auto"}).fit(lying, sides).flips_


def test_variation_moves_and_mirrors():
    from classic_cls._nets import varied

    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.arange(80, dtype=torch.uint8).reshape(1, 1, 8, 10)
        varied_images = varied(image.expand(500, 1, 8, 10), 0.125, True).numpy()[:, 0]
    padded = np.pad(image[0, 0].numpy(), 1, mode="reflect")
    possible = {
        padded[y : y + 8, x : x + 10][:, ::step].tobytes() for y in range(3) for x in range(3) for step in (1, -1)
    }
    assert {each.tobytes() for each in varied_images} == possible
    assert torch.equal(varied(image, 0, False), image)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"architecture": "vgg"}, "architecture='vgg'; expected one of 'resnet', 'cnn'"),
        ({"epochs": 0}, "epochs=0; expected a positive int"),
        ({"batch_size": 1.5}, "batch_size=1.5; expected a positive int"),
        ({"batch_size": 1}, "batch_size=1; expected 2 or more"),
        ({"learning_rate": 0}, "learning_rate=0; expected a positive number"),
        ({"weight_decay": -1}, "weight_decay=-1; expected a positive number"),
        ({"label_smoothing": 1}, "label_smoothing=1; expected 0 or more, and less than 1"),
        ({"dropout": float("nan")}, "dropout=nan; expected 0 or more"),
        ({"dropout": "half"}, "dropout='half'; expected 0 or more"),
        ({"shift": 2}, "shift=2; expected 0 or more"),
        ({"flips": "yes"}, "flips='yes'; expected one of 'auto', True, False"),
        ({"learning_rate": 1e30}, r"The training diverged.*Lower learning_rate=1e\+30"),
    ],
)
def test_wrong_parameters(images, parameters, message):
    with pytest.raises(ValueError, match=message):
        NetClassifier(**QUICK | parameters).fit(images, LABELS)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (crops(8, 7, 20), LABELS[:8], r"7 x 20 pixels; expected 8 x 8 or more. Put Resize\(32\)"),
        ([*crops(4, 9, 9), *crops(4, 9, 12)], LABELS[:8], r"Put Resize\(size\)"),
        (crops(8, 9, 9), ["a"] * 8, r"one class only, \['a'\]"),
        (crops(8, 9, 9), LABELS[:7], "inconsistent numbers of samples"),
        (crops(8, 9, 9), np.linspace(0, 1, 8), "continuous"),
        (crops(8, 9, 9), np.eye(8, dtype=int), "1d array|multilabel"),
        (crops(8, 9, 9) / 100, LABELS[:8], r"must lie in \[0, 1\]"),
        (crops(8, 9, 9) * np.nan, LABELS[:8], "NaN"),
    ],
)
def test_wrong_images_and_labels(X, y, message):
    with pytest.raises(ValueError, match=message):
        NetClassifier(**QUICK).fit(X, y)


def test_predict_checks_images(images):
    with pytest.raises(NotFittedError):
        NetClassifier().predict(images)
    with pytest.raises(ValueError, match="NetClassifier was fitted on images of shape"):
        NetClassifier(**QUICK).fit(images, LABELS).predict(images[:, 1:])


def test_last_batch_of_one_image_is_left_out():
    assert NetClassifier(**QUICK).fit(crops(9, 8, 8), LABELS[:9]).predict(crops(9, 8, 8)).shape == (9,)


@pytest.mark.parametrize(("n", "epochs"), [(100, 323), (1000, 70), (10_000, 15), (10_000_000, 5)])
def test_fewer_images_are_seen_more_often(n, epochs):
    from classic_cls.deep import _epochs

    assert _epochs(n) == epochs


def test_constant_images():
    probabilities = (
        NetClassifier(**QUICK).fit(np.full((8, 8, 8), 7, np.uint8), LABELS[:8]).predict_proba(stripes(2, 8, 8)[0])
    )
    assert np.isfinite(probabilities).all()


def test_progress_only_on_request(images, capsys):
    NetClassifier(**QUICK).fit(images, LABELS)
    assert capsys.readouterr() == ("", "")
    NetClassifier(verbose=1, **QUICK).fit(images, LABELS)
    assert "train_loss" in capsys.readouterr().out


def test_in_search_and_benchmark():
    X, y = stripes(48)
    search = GridSearchCV(make_pipeline(Resize(8), NetClassifier(**QUICK)), {"netclassifier__epochs": [1, 6]}, cv=2)
    assert search.fit(X, y).best_params_ == {"netclassifier__epochs": 6}
    digits = load_digits()
    digits.train = digits.train[:200]
    net = NetClassifier(**QUICK | {"epochs": 12, "batch_size": 32})
    record = benchmark.run({"net": net}, digits).records[0]
    assert record["error"] is None
    assert record["accuracy"] > 0.8


def test_without_torch():
    code = """if True:
        import sys
        sys.modules["skorch"] = None
        import numpy as np
        from classic_cls import NetClassifier
        try:
            NetClassifier().fit(np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1])
        except ImportError as error:
            assert 'pip install "classic_cls[deep]"' in str(error)
        else:
            raise AssertionError
    """
    subprocess.run([sys.executable, "-c", code], check=True)
