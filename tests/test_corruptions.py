import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import crops
from skimage.metrics import structural_similarity
from sklearn.dummy import DummyClassifier
from sklearn.utils import Bunch

from classic_cls import CorruptionsDisplay, RobustnessDisplay
from classic_cls.benchmark import CORRUPTIONS, corrupt, robustness

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def photos():
    return crops(12, 40, 56)


@pytest.mark.parametrize("kind", CORRUPTIONS)
class TestEveryKind:
    def test_gets_worse_with_severity(self, photos, kind):
        def likeness(severity):
            pairs = zip(photos, corrupt(photos, kind, severity), strict=True)
            return np.mean([structural_similarity(a, b, channel_axis=2) for a, b in pairs])

        found = [likeness(severity) for severity in (1, 2, 3, 4, 5)]
        assert found == sorted(found, reverse=True)
        assert len(set(found)) == 5
        assert 0.3 < found[0] < 1
        assert found[4] < 0.9

    @pytest.mark.parametrize("shape", [(3, 40, 56), (3, 40, 56, 1), (3, 40, 56, 3)])
    def test_same_shape_and_the_input_untouched(self, photos, kind, shape):
        images = photos[:3, ..., : shape[-1]].reshape(shape) if len(shape) == 4 else photos[:3, ..., 1]
        before = images.copy()
        corrupted = corrupt(images, kind, 3)
        assert corrupted.shape == shape
        assert corrupted.dtype == np.uint8
        assert not np.array_equal(corrupted, images)
        np.testing.assert_array_equal(images, before)

    def test_same_bytes_however_the_batch_is_split_or_shuffled(self, photos, kind):
        whole = corrupt(photos, kind, 4, random_state=3)
        np.testing.assert_array_equal(
            whole, np.concatenate([corrupt(x[None], kind, 4, random_state=3) for x in photos])
        )
        order = np.random.default_rng(0).permutation(len(photos))
        np.testing.assert_array_equal(whole[order], corrupt(photos[order], kind, 4, random_state=3))

    def test_floats_are_the_same_picture(self, photos, kind):
        np.testing.assert_array_equal(corrupt(photos, kind, 2), corrupt(photos / 255, kind, 2))

    def test_lists_of_several_sizes(self, photos, kind):
        images = [photos[0], photos[1, :30], photos[2, :, :17]]
        corrupted = corrupt(images, kind, 5)
        assert [x.shape for x in corrupted] == [x.shape for x in images]
        for one, image in zip(corrupted, images, strict=True):
            np.testing.assert_array_equal(one, corrupt(image[None], kind, 5)[0])

    def test_tiny_images(self, kind):
        images = np.random.default_rng(0).integers(0, 256, (4, 3, 2), dtype=np.uint8)
        for severity in (1, 5):
            assert corrupt(images, kind, severity).shape == (4, 3, 2)


@pytest.mark.parametrize("kind", ["gaussian_noise", "rotation", "shift", "occlusion"])
def test_another_seed_draws_anew(photos, kind):
    assert not np.array_equal(*(corrupt(photos, kind, 3, random_state=seed) for seed in (0, 1)))


@pytest.mark.parametrize("kind", ["blur", "brightness", "contrast", "jpeg"])
def test_nothing_is_drawn(photos, kind):
    np.testing.assert_array_equal(*(corrupt(photos, kind, 3, random_state=seed) for seed in (0, 1)))


def test_images_get_different_noise():
    gray = np.stack([np.full((30, 30), level, np.uint8) for level in (120, 121)])
    first, second = corrupt(gray, "gaussian_noise", 2).astype(int) - gray
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_strengths_are_those_of_the_table():
    gray = np.full((1, 200, 200), 100, np.uint8)
    for severity, deviation in enumerate((0.04, 0.08, 0.12), start=1):
        assert corrupt(gray, "gaussian_noise", severity).std() == pytest.approx(255 * deviation, rel=0.02)
    for severity, added in enumerate((0.1, 0.2, 0.3, 0.4, 0.5), start=1):
        assert (corrupt(gray, "brightness", severity) == np.rint(100 + np.float32(255 * added))).all()
    for severity, share in enumerate((0.15, 0.25, 0.35, 0.45, 0.55), start=1):
        assert (corrupt(gray, "occlusion", severity) == 128).sum() == round(200 * share) ** 2
    spike = np.zeros((1, 101, 101), np.uint8)
    spike[0, 50, 50] = 255
    for severity, share in enumerate((0.01, 0.015, 0.025), start=1):
        row = corrupt(spike, "blur", severity)[0].sum(axis=0, dtype=float)
        assert (row @ (np.arange(101) - 50) ** 2 / row.sum()) ** 0.5 == pytest.approx(101 * share, rel=0.15)


def test_contrast_keeps_the_mean(photos):
    corrupted = corrupt(photos, "contrast", 5)
    np.testing.assert_allclose(corrupted.mean(axis=(1, 2)), photos.mean(axis=(1, 2)), atol=0.6)
    np.testing.assert_allclose(corrupted.std(axis=(1, 2)), 0.15 * photos.std(axis=(1, 2)), atol=0.5)


def test_shift_moves_by_the_share_told():
    photo = crops(1, 100, 100)[..., 1]
    moved = corrupt(photo, "shift", 3)[0].astype(float)
    steps = range(-12, 13)
    inner = photo[0, 20:80, 20:80].astype(float)
    apart = {(y, x): np.abs(moved[20 + y : 80 + y, 20 + x : 80 + x] - inner).mean() for y in steps for x in steps}
    assert np.hypot(*min(apart, key=apart.get)) == pytest.approx(10, abs=0.8)


def test_rotation_keeps_the_centre_and_turns_by_the_angle():
    cross = np.zeros((1, 101, 101), np.uint8)
    cross[0, 50] = 255
    turned = corrupt(cross, "rotation", 4)[0]
    assert turned[50, 50] == 255
    y, x = np.nonzero(turned[20:81, 20:81] > 100)
    assert abs(np.degrees(np.arctan(np.polyfit(x - 30, y - 30, 1)[0]))) == pytest.approx(20, abs=1)
    assert abs(np.polyfit(x - 30, y - 30, 1)[1]) < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fog", 1), "kind='fog'; expected one of 'gaussian_noise'"),
        (("blur", 0), r"severity=0; expected an int from 1 \(mild\) to 5"),
        (("blur", 6), "severity=6"),
        (("blur", 2.5), r"severity=2\.5"),
        (("blur", True), "severity=True"),
    ],
)
def test_bad_kind_or_severity(photos, arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupt(photos, *arguments)


def test_bad_images_and_seed(photos):
    with pytest.raises(ValueError, match="random_state=-1; expected an int, 0 or larger"):
        corrupt(photos, "jpeg", 1, random_state=-1)
    with pytest.raises(ValueError, match="NaN"):
        corrupt(np.full((2, 8, 8), np.nan), "jpeg", 1)
    with pytest.raises(ValueError, match=r"X has shape \(40, 56\); .* of one image a batch with image\[None\]"):
        corrupt(photos[0, ..., 0], "jpeg", 1)


class BrightOrDark:
    """Calls an image bright if its mean is at least half of white; remembers what it saw."""

    def __init__(self):
        self.seen = []

    def predict(self, images):
        self.seen.append(images)
        white = 255 if images[0].dtype == np.uint8 else 1
        return np.array([int(image.mean() >= white / 2) for image in images])


@pytest.fixture
def bunch():
    """Ten test images with a mean of 50 or 200, and some that no test looks at."""
    target = np.arange(14) % 2
    noise = np.random.default_rng(0).integers(-20, 20, (14, 12, 9))
    images = (50 + 150 * target[:, None, None] + noise).astype(np.uint8)
    return Bunch(images=images, target=target, train=np.arange(4), test=np.arange(4, 14))


class TestRobustness:
    def test_table_by_hand(self, bunch):
        models = {"mean": BrightOrDark(), "majority": DummyClassifier().fit(bunch.images, np.zeros(14))}
        result = robustness(models, bunch, kinds=["brightness", "blur"], severities=[1, 5])
        table = result.table.set_index(["model", "kind", "severity"])["accuracy"]
        assert len(table) == 2 * (1 + 2 * 2)
        assert table["mean", "clean", 0] == table["mean", "brightness", 1] == table["mean", "blur", 5] == 1
        assert table["mean", "brightness", 5] == 0.5  # 50 + 0.5 * 255 is bright
        assert (table["majority"] == 0.5).all()
        assert result.by_kind.loc["mean"].to_dict() == {"clean": 1, "brightness": 0.75, "blur": 1}
        assert result.by_kind.columns.tolist() == ["clean", "brightness", "blur"]
        assert result.summary.loc["mean"].to_dict() == {"clean": 1, "corrupted": 0.875, "relative": 0.875}
        assert result.summary.loc["majority", "relative"] == 1

    def test_models_see_what_corrupt_returns(self, bunch):
        model = BrightOrDark()
        robustness({"mean": model}, bunch, kinds=["shift"], severities=[3], random_state=5)
        clean, corrupted = model.seen
        np.testing.assert_array_equal(clean, bunch.images[4:])
        np.testing.assert_array_equal(corrupted, corrupt(bunch.images[4:], "shift", 3, random_state=5))

    def test_float_images_stay_float(self, bunch):
        bunch.images = (bunch.images / 255).astype(np.float32)
        model = BrightOrDark()
        robustness({"mean": model}, bunch, kinds=["contrast"], severities=[1])
        assert model.seen[1].dtype == np.float32
        np.testing.assert_allclose(model.seen[1].mean(), bunch.images[4:].mean(), atol=0.01)

    def test_lists(self, bunch):
        bunch.images = [image[: 8 + k % 3] for k, image in enumerate(bunch.images)]
        result = robustness({"mean": BrightOrDark()}, bunch, kinds=["shift"])
        assert (result.table["accuracy"] == 1).all()

    def test_never_right_has_no_quotient(self, bunch):
        wrong = DummyClassifier(strategy="constant", constant=7).fit(bunch.images, np.full(14, 7))
        summary = robustness({"wrong": wrong}, bunch, kinds=["blur"], severities=[1]).summary
        assert np.isnan(summary.loc["wrong", "relative"])

    def test_progress_is_told(self, bunch):
        calls = []
        robustness({"a": BrightOrDark()}, bunch, kinds=["blur"], severities=[2, 4], progress=lambda *c: calls.append(c))
        assert calls == [(0, 3, "clean"), (1, 3, "blur"), (2, 3, "blur"), (3, 3, None)]

    def test_what_cannot_be_scored(self, bunch):
        with pytest.raises(TypeError, match="models is a BrightOrDark; expected a dict"):
            robustness(BrightOrDark(), bunch)
        with pytest.raises(TypeError, match="'x' is a str, which has no predict"):
            robustness({"x": "hog"}, bunch)
        with pytest.raises(ValueError, match="models is empty"):
            robustness({}, bunch)
        with pytest.raises(ValueError, match="kind='fog'"):
            robustness({"a": BrightOrDark()}, bunch, kinds=["fog"])
        with pytest.raises(ValueError, match=r"severities=.*at least one of each"):
            robustness({"a": BrightOrDark()}, bunch, severities=[])
        with pytest.raises(ValueError, match="no test images"):
            robustness({"a": BrightOrDark()}, Bunch(**bunch | {"test": np.array([], int)}))


class TestCorruptionsDisplay:
    @pytest.mark.parametrize("gray", [False, True])
    def test_shows_what_corrupt_returns(self, photos, gray):
        photo = photos[0, ..., 0] if gray else photos[0]
        display = CorruptionsDisplay.from_image(photo / 255, random_state=2)
        assert display.plot() is display
        assert display.pictures.shape == (8, 6, 40, 56, 1 if gray else 3)
        row = CORRUPTIONS.index("occlusion")
        np.testing.assert_array_equal(display.pictures[row, 0].squeeze(), photo)
        expected = corrupt(photo[None], "occlusion", 4, random_state=2)[0]
        np.testing.assert_array_equal(display.pictures[row, 4].squeeze(), expected)
        (canvas,) = display.ax_.images
        top, left = row * 42, 4 * 58
        np.testing.assert_array_equal(canvas.get_array()[top : top + 40, left : left + 56], expected)
        assert display.ax_.get_yticklabels()[0].get_text() == "gaussian noise"

    def test_some_kinds_in_given_axes(self, photos):
        _, ax = plt.subplots()
        display = CorruptionsDisplay.from_image(photos[0], kinds=["jpeg", "blur"]).plot(ax)
        assert display.ax_ is ax
        assert display.pictures.shape[0] == 2
        display.figure_.canvas.draw()

    def test_bad_input(self, photos):
        with pytest.raises(ValueError, match="expected one image"):
            CorruptionsDisplay.from_image(photos)
        with pytest.raises(ValueError, match="kind='fog'"):
            CorruptionsDisplay.from_image(photos[0], kinds=["fog"])
        with pytest.raises(ValueError, match="expected at least one of"):
            CorruptionsDisplay.from_image(photos[0], kinds=[])


class TestRobustnessDisplay:
    def test_a_panel_per_kind_and_a_line_per_model(self, bunch):
        models = {"mean": BrightOrDark(), "other": BrightOrDark()}
        result = robustness(models, bunch, kinds=["brightness", "blur", "jpeg", "shift", "rotation"], severities=[1, 5])
        display = RobustnessDisplay.from_robustness(result)
        assert display.plot() is display
        assert [panel.get_title() for panel in display.axes_] == ["brightness", "blur", "jpeg", "shift", "rotation"]
        line, _ = display.axes_[0].get_lines()
        assert line.get_xydata().tolist() == [[0, 1], [1, 1], [5, 0.5]]
        labels = [text.get_text() for text in display.axes_[0].get_legend().get_texts()]
        assert labels == ["mean", "other"]
        display.figure_.canvas.draw()

    def test_given_axes(self, bunch):
        result = robustness({"mean": BrightOrDark()}, bunch, kinds=["blur"], severities=[1])
        figure, (left, _) = plt.subplots(1, 2)
        display = RobustnessDisplay.from_robustness(result).plot(left)
        assert display.ax_ is left
        assert display.figure_ is figure
        assert display.axes_[0].get_position().x1 < 0.6
