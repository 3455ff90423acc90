import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import crops

from classic_cls import DisagreementsDisplay, MistakesDisplay, RejectCurveDisplay, ReliabilityDisplay
from classic_cls.benchmark.failures import reject_curve

matplotlib.use("Agg")

NAMES = ["cat", "dog", "sea-lion"]
TARGET = np.arange(12) % 3


def said(labels, confidence=None):
    labels = np.asarray(labels)
    if confidence is None:
        return SimpleNamespace(labels=labels, scores=None, classes=None)
    scores = np.repeat((1 - np.asarray(confidence))[:, None] / 2, 3, axis=1)
    scores[np.arange(len(labels)), labels] = confidence
    return SimpleNamespace(labels=labels, scores=scores, classes=np.arange(3))


def always(label):
    return said([label] * 12, np.linspace(0.5, 0.94, 12))


KINDS = {
    "rgb": crops(12, 16, 20),
    "float": crops(12, 16, 20) / 255,
    "gray": crops(12, 16, 20)[..., 1],
    "sizes": [crops(1, 10 + k, 30 - k)[0] for k in range(12)],
    "mixed": [*crops(6, 16, 20), *crops(6, 16, 20)[..., 0]],
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def texts(display):
    return [text.get_text() for text in display.ax_.texts]


def pixels(display):
    return [np.asarray(image.get_array()) for image in display.ax_.images]


def make_all():
    models = {"one": always(0), "other": always(1)}
    yield MistakesDisplay.from_predictions(KINDS["rgb"], TARGET, always(0))
    yield DisagreementsDisplay.from_predictions(KINDS["rgb"], TARGET, models)
    yield RejectCurveDisplay.from_predictions(TARGET, models)
    yield ReliabilityDisplay.from_predictions(TARGET, models)


def test_draws_into_given_axes_or_a_new_figure():
    for display in make_all():
        assert display.plot() is display
        assert display.figure_ is display.ax_.figure
        _, ax = plt.subplots()
        assert display.plot(ax).ax_ is ax
        ax.figure.canvas.draw()


def test_importing_displays_does_not_import_matplotlib():
    code = (
        "import sys, classic_cls as c; c.MistakesDisplay; c.DisagreementsDisplay; c.RejectCurveDisplay; "
        "c.ReliabilityDisplay; assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_mistakes_are_shown_the_surest_first(kind):
    images = KINDS[kind]
    display = MistakesDisplay.from_predictions(images, TARGET, always(0), n=3, target_names=NAMES).plot()
    assert texts(display) == [
        "3 of 8 mistakes, the surest first",
        "said cat 0.94,\nis sea-lion",
        "said cat 0.90,\nis dog",
        "said cat 0.82,\nis sea-lion",
    ]
    for shown, i in zip(pixels(display), [11, 10, 8], strict=True):
        np.testing.assert_allclose(shown, images[i], atol=1e-6)
    for image in display.ax_.images:
        left, right, low, high = image.get_extent()
        assert (right - left) / (low - high) == pytest.approx(image.get_size()[1] / image.get_size()[0])
        assert max(right - left, low - high) == pytest.approx(1)


def test_mistakes_of_a_model_without_scores_are_spread_over_the_test():
    display = MistakesDisplay.from_predictions(KINDS["rgb"], TARGET, said([0] * 12), n=4, target_names=NAMES).plot()
    assert display.mistakes["image"].tolist() == [1, 4, 7, 10]
    assert texts(display)[:2] == ["4 of 8 mistakes, in test order", "said cat,\nis dog"]


def test_no_mistakes():
    for prediction in (said(TARGET), said(TARGET, np.full(12, 0.9))):
        display = MistakesDisplay.from_predictions(KINDS["rgb"], TARGET, prediction, target_names=NAMES).plot()
        assert texts(display)[0].startswith("0 of 0 mistakes")
        display.figure_.canvas.draw()


def test_images_do_not_overlap_each_other_or_captions():
    display = MistakesDisplay.from_predictions(KINDS["sizes"], TARGET, always(0), target_names=NAMES).plot(n_columns=3)
    display.figure_.canvas.draw()
    drawn = [*display.ax_.images, *display.ax_.texts]
    boxes = [artist.get_window_extent() for artist in drawn]
    assert len(boxes) == 8 + 9
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])
    assert all(display.figure_.bbox.containsx(box.x0) and display.figure_.bbox.containsy(box.y0) for box in boxes)


@pytest.mark.parametrize("kind", KINDS)
def test_disagreements_are_shown_by_kind(kind):
    a, b = said([0, 1, 2, 0, 0, 0, 1, 1, 2, 0, 1, 2]), said([0, 1, 2, 0, 1, 1, 1, 0, 2, 1, 0, 0])
    models = {"hog": a, "net": b}
    display = DisagreementsDisplay.from_predictions(KINDS[kind], TARGET, models, n=2, target_names=NAMES).plot()
    assert texts(display) == [
        "only hog is right: 4 of 12",
        "is dog\nhog: dog\nnet: cat",
        "is dog\nhog: dog\nnet: cat",
        "only net is right: 1 of 12",
        "is dog\nhog: cat\nnet: dog",
        "both are wrong, and differ: 1 of 12",
        "is sea-lion\nhog: cat\nnet: dog",
    ]
    for shown, i in zip(pixels(display), [7, 10, 4, 5], strict=True):
        np.testing.assert_allclose(shown, KINDS[kind][i], atol=1e-6)


def test_pictures_must_be_those_of_the_test():
    models = {"one": always(0), "other": always(1)}
    for images in (KINDS["rgb"][:11], KINDS["sizes"][:11]):
        with pytest.raises(ValueError, match=r"There are 11 images and 12 labels; expected the test images"):
            MistakesDisplay.from_predictions(images, TARGET, always(0))
        with pytest.raises(ValueError, match=r"There are 11 images and 12 labels"):
            DisagreementsDisplay.from_predictions(images, TARGET, models)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        MistakesDisplay.from_predictions(KINDS["rgb"] * 1.0, TARGET, always(0))
    with pytest.raises(ValueError, match=r"has 1 models \(one\); expected two"):
        DisagreementsDisplay.from_predictions(KINDS["rgb"], TARGET, {"one": always(0)})
    with pytest.raises(ValueError, match="n=0; expected a positive int"):
        MistakesDisplay.from_predictions(KINDS["rgb"], TARGET, said(TARGET), n=0)
    with pytest.raises(ValueError, match="n_columns=0; expected a positive int"):
        MistakesDisplay.from_predictions(KINDS["rgb"], TARGET, always(0)).plot(n_columns=0)


def test_reject_curves_are_drawn_as_accuracy_at_has_them():
    models = {"one": always(0), "tied": said([0] * 12, np.full(12, 0.5))}
    display = RejectCurveDisplay.from_predictions(TARGET, models).plot()
    for name, prediction in models.items():
        curve, line = reject_curve(TARGET, prediction), display.lines_[name]
        x, y = line.get_data()
        assert (x[0], x[-1], line.get_drawstyle()) == (0, 1, "steps-pre")
        for coverage in (0.01, 0.3, 0.5, 1):
            assert y[np.searchsorted(x, coverage)] == curve.accuracy_at(coverage)
        assert line.get_label() == f"{name} (AURC {curve.area:.3f})"


def test_reliability_has_a_point_for_each_bin():
    display = ReliabilityDisplay.from_predictions(TARGET, {"one": always(0), "other": always(1)}, n_bins=5).plot()
    for name, table in display.tables.items():
        points = display.points_[name]
        np.testing.assert_allclose(points.get_offsets(), table[["confidence", "accuracy"]])
        assert np.argmax(points.get_sizes()) == np.argmax(table["count"])
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["one", "other"]
