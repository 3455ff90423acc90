"""Accuracy against labels per class, where curves cross, the picture, and the script that does it all."""

import base64
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.special import ndtr
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC
from sklearn.utils import Bunch

import classic_cls
from classic_cls import LabelEfficiencyDisplay
from classic_cls.benchmark import LabelEfficiency, crossing, label_efficiency

matplotlib.use("Agg")
SCRIPT = Path(__file__).parents[1] / "benchmarks" / "label_efficiency.py"


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


class Spy(ClassifierMixin, BaseEstimator):
    """Remembers what it is fitted to: images that hold their own index."""

    seen = []

    def __init__(self, random_state=None, breaks_at=None):
        self.random_state = random_state
        self.breaks_at = breaks_at

    def fit(self, X, y):
        if len(X) == self.breaks_at:
            raise MemoryError("no such luck")
        Spy.seen.append((self.random_state, [int(image[0, 0]) for image in X], list(y)))
        return self

    def predict(self, X):
        return np.zeros(len(X), int)


@pytest.fixture
def spied():
    Spy.seen.clear()
    return Spy.seen


@pytest.fixture
def numbered():
    """150 images of three classes, 60, 40 and 20 of them for training, that hold their own index."""
    target = np.repeat([0, 1, 2, 0, 1], [60, 40, 20, 10, 20])
    images = np.arange(150, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    train, test = np.arange(120), np.arange(120, 150)
    return Bunch(name="numbered", images=images, target=target, target_names=list("abc"), train=train, test=test)


def test_same_nested_training_images_for_all_models(numbered, spied):
    models = {"one": Spy(), "two": make_pipeline(FunctionTransformer(), Spy())}
    label_efficiency(models, numbered, labels_per_class=[10, 5, 20], seeds=[7, 3])
    fits = {}
    for seed, images, labels in spied:
        assert [numbered.target[i] for i in images] == labels
        fits.setdefault((seed, len(images)), []).append(images)
    assert set(fits) == {(seed, 3 * k) for seed in (3, 7) for k in (5, 10, 20)}
    assert all(one == two and len(set(one)) == len(one) and max(one) < 120 for one, two in fits.values())
    for seed in (3, 7):
        few, more, most = (set(fits[seed, 3 * k][0]) for k in (5, 10, 20))
        assert few < more < most
        assert [sum(numbered.target[i] == label for i in more) for label in range(3)] == [10, 10, 10]
    assert set(fits[3, 15][0]) != set(fits[7, 15][0])


def test_a_small_class_gives_all_it_has_and_impossible_sizes_are_left_out(numbered, spied):
    result = label_efficiency({"spy": Spy()}, numbered, labels_per_class=[10, 50, 60, 61], seeds=1)
    assert [row["labels_per_class"] for row in result.records] == [10, 50, 60]
    assert [row["n_labels"] for row in result.records] == [30, 50 + 40 + 20, 120]


def test_seeds_reach_every_random_state(numbered):
    class Forest(RandomForestClassifier):
        states = []

        def fit(self, X, y):
            self.states.append(self.random_state)
            return super().fit(X, y)

    rows = FunctionTransformer(lambda images: images.reshape(len(images), -1))
    own = make_pipeline(rows, OneVsRestClassifier(Forest(2, random_state=99)))
    label_efficiency({"forest": own}, numbered, labels_per_class=[5], seeds=[4, 8])
    assert Forest.states == [4, 4, 4, 8, 8, 8]  # one forest for each class
    assert own[-1].estimator.random_state == 99


def test_records_and_table(numbered, spied):
    result = label_efficiency({"spy": Spy()}, numbered, labels_per_class=[5, 10], seeds=2)
    row = result.records[1]
    assert (row["dataset"], row["model"], row["labels_per_class"], row["seed"]) == ("numbered", "spy", 10, 0)
    assert (row["n_labels"], row["n_train"], row["n_test"], row["error"]) == (30, 120, 30, None)
    assert row["accuracy"] == pytest.approx(10 / 30)
    assert row["fit_seconds"] > 0
    bits = np.unpackbits(np.frombuffer(base64.b64decode(row["correct"]), np.uint8))[:30]
    np.testing.assert_array_equal(bits, numbered.target[120:] == 0)
    rows = [made("m", 5, seed, hits) for seed, hits in enumerate([[1, 1, 0, 0], [1, 1, 1, 0]])]
    table = LabelEfficiency(rows).table
    assert table.loc[0, ["seeds", "accuracy", "lowest", "highest"]].tolist() == [2, 0.625, 0.5, 0.75]
    assert table.loc[0, "spread"] == pytest.approx(np.std([0.5, 0.75], ddof=1))


def test_fewer_test_images_are_the_same_for_all(numbered, spied):
    result = label_efficiency({"spy": Spy()}, numbered, labels_per_class=[5, 10], seeds=2, n_test=12)
    assert {row["n_test"] for row in result.records} == {12}
    assert len({row["correct"] for row in result.records}) == 1


def test_a_failing_fit_does_not_lose_the_others_and_is_tried_again(numbered, spied):
    models = {"spy": Spy(breaks_at=15), "plain": DummyClassifier()}
    result = label_efficiency(models, numbered, labels_per_class=[5, 10], seeds=1)
    assert [row["error"] for row in result.failed] == ["MemoryError: no such luck"]
    assert result.failed[0]["accuracy"] is result.failed[0]["correct"] is None
    assert result.table[["model", "labels_per_class"]].to_numpy().tolist() == [["spy", 10], ["plain", 5], ["plain", 10]]
    before = len(spied)
    again = label_efficiency(models | {"spy": Spy()}, numbered, labels_per_class=[5, 10], seeds=1, done=result)
    assert len(spied) == before + 1
    assert again.failed == []
    assert len(again.records) == 4


def test_predictions_of_a_wrong_shape_are_an_error(numbered):
    class Column(DummyClassifier):
        def predict(self, X):
            return super().predict(X)[:, None]

    result = label_efficiency({"column": Column()}, numbered, labels_per_class=[5], seeds=1)
    assert "predict returned shape (30, 1); expected (30,)" in result.records[0]["error"]
    assert result.table.empty


def test_a_stopped_run_goes_on_where_it_was(numbered, spied, tmp_path):
    path, options = tmp_path / "result.json", {"labels_per_class": [5, 10], "seeds": 2}

    def stop_at_third(result, total, name):
        result.to_json(path)
        assert total == 4
        if len(result.records) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_efficiency({"spy": Spy()}, numbered, progress=stop_at_third, **options)
    calls = []
    done = LabelEfficiency.from_json(path)
    result = label_efficiency(
        {"spy": Spy()}, numbered, done=done, progress=lambda so_far, *call: calls.append(call), **options
    )
    assert calls == [(4, "spy, 10 labels per class, seed 1"), (4, None)]
    assert len(spied) == len(result.records) == 4
    assert result.records[:3] == done.records
    other = Bunch(**numbered | {"name": "other"})
    with pytest.raises(ValueError, match=r"done has results of .*numbered.* and this run is of .*other"):
        label_efficiency({"spy": Spy()}, other, done=done)


def test_json_is_whole_or_not_there(numbered, spied, tmp_path, monkeypatch):
    result = label_efficiency({"spy": Spy(breaks_at=30)}, numbered, labels_per_class=[5, 10], seeds=1)
    path = tmp_path / "result.json"
    result.to_json(path)
    assert LabelEfficiency.from_json(path) == result

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        LabelEfficiency([]).to_json(path)
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
    assert LabelEfficiency.from_json(path) == result
    for text in ("{}", '[{"accuracy": 1}]', "[3]", "[", "\x00"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"result.json (holds other JSON|is not JSON)"):
            LabelEfficiency.from_json(path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"models": ["hog"]}, ValueError, "no pipeline 'hog'"),
        ({"models": {}}, ValueError, "There are no models"),
        ({"models": {"k": KMeans()}}, TypeError, "expected a classifier"),
        ({"models": {"k": 3}}, TypeError, "A model is 3; expected a classifier"),
        ({"labels_per_class": [0, 5]}, ValueError, "labels_per_class=0; expected a positive int"),
        ({"labels_per_class": [61]}, ValueError, r"labels_per_class=\[61\]; expected a number up to 60"),
        ({"seeds": 0}, ValueError, "seeds=0"),
        ({"seeds": []}, ValueError, r"seeds=\[\]"),
        ({"seeds": [0, -1]}, ValueError, r"seeds=\[0, -1\]"),
        ({"n_test": 31}, ValueError, "n_test=31; expected at most 30"),
        ({"n_test": 0}, ValueError, "n_test=0; expected a positive int"),
    ],
)
def test_what_cannot_be_run(numbered, options, error, message):
    with pytest.raises(error, match=message):
        label_efficiency(**{"models": {"a": DummyClassifier()}, "dataset": numbered} | options)


def test_several_labels_of_an_image_are_refused(numbered):
    numbered.target = np.eye(3)[numbered.target]
    with pytest.raises(ValueError, match=r"shape \(150, 3\); expected one label for each image"):
        label_efficiency({"a": DummyClassifier()}, numbered)


def made(model, size, seed, hits):
    """Return a record of which test images were right."""
    correct = base64.b64encode(np.packbits(np.asarray(hits, bool))).decode()
    about = {"dataset": "made", "n_labels": 2 * size, "n_train": 5000, "n_test": len(hits), "fit_seconds": 1.0}
    found = {"accuracy": float(np.mean(hits)), "correct": correct, "error": None}
    return about | {"model": model, "labels_per_class": size, "seed": seed} | found


def steady(**counts):
    """Return a result of models that are right on the first so many of 100 images at 10, 20, 40 and 80 labels."""
    return LabelEfficiency(
        [
            made(name, 10 * 2**k, seed, np.arange(100) < right)
            for name, rights in counts.items()
            for k, right in enumerate(rights)
            for seed in (0, 1)
        ]
    )


@pytest.mark.parametrize(
    ("net", "leader", "at", "crossings", "words"),
    [
        ([30, 40, 60, 80], "net", 20 * 2**0.5, 1, "net overtakes svm at about 28 labels per class (95 % interval "),
        ([80, 60, 40, 30], "svm", 20 * 2**0.5, 1, "svm overtakes net at about 28 labels per class (95 % interval "),
        ([60, 60, 40, 70], "net", 40 * 2 ** (1 / 3), 2, "net and svm cross 2 times, at about 28 and 50 labels per"),
        ([60, 60, 50, 70], "net", 40, 2, "at about 40 and 40 labels per class; net stays ahead from about 40 on (95"),
        ([90, 90, 95, 95], "net", 0, 0, "net is ahead of svm at all sizes, 10 to 80 labels per class."),
        ([20, 20, 20, 20], "svm", 0, 0, "svm is ahead of net at all sizes, 10 to 80 labels per class."),
        ([52, 90, 90, 90], "net", 0, 0, "10 to 80 labels per class, but within the 95 % margin of error at 10."),
        ([51, 51, 51, 51], "net", 0, 0, "but within the 95 % margin of error at every size."),
        ([10, 60, 60, 50], "net", np.inf, 2, "net and svm are level at 80 labels per class, the largest size."),
    ],
)
def test_crossing_by_hand(net, leader, at, crossings, words):
    found = crossing(steady(svm=[50] * 4, net=net), "svm", "net")
    assert (found.leader, len(found.crossings)) == (leader, crossings)
    assert found.labels_per_class == pytest.approx(at)
    assert words in found.sentence
    turned = crossing(steady(svm=[50] * 4, net=net), "net", "svm")
    assert turned.labels_per_class == found.labels_per_class
    assert (turned.low, turned.high) == pytest.approx((found.low, found.high))


def test_margin_by_hand():
    """Without a difference between seeds the margin is that of a mean over images: normal, 1.96 standard errors."""
    found = crossing(steady(svm=[50] * 4, net=[30, 40, 60, 80]), "svm", "net")
    lead = np.array([-0.2, -0.1, 0.1, 0.3])
    # the net is right on the first so many, too, so that the images differ in |lead| of the cases
    margin = 1.959964 * np.sqrt((np.abs(lead) - lead**2) / 99)
    low, high = (np.interp(0, lead + side * margin, [0, 1, 2, 3]) for side in (1, -1))
    assert (found.low, found.high) == pytest.approx((10 * 2**low, 10 * 2**high), rel=1e-5)
    wider = crossing(steady(svm=[50] * 4, net=[30, 40, 60, 80]), "svm", "net", confidence=0.99)
    assert wider.low < found.low < found.labels_per_class < found.high < wider.high


def test_seeds_that_differ_widen_the_interval():
    def records(spread):
        rng = np.random.default_rng(0)
        order = rng.permutation(1000)
        for k, (svm, net) in enumerate([(500, 350), (500, 400), (500, 600), (500, 700)]):
            for seed, side in enumerate((-1, 0, 1)):
                yield made("svm", 10 * 2**k, seed, order < svm)
                yield made("net", 10 * 2**k, seed, order < net + side * spread)

    narrow, wide = (crossing(LabelEfficiency(list(records(spread))), "svm", "net") for spread in (0, 60))
    assert narrow.labels_per_class == pytest.approx(wide.labels_per_class)
    assert wide.high / wide.low > 1.5 * narrow.high / narrow.low


def test_variance_between_seeds_is_pooled_with_the_next_sizes():
    order = np.random.default_rng(0).permutation(1000)
    records = [made("svm", size, seed, order < 500) for size in (10, 20, 40) for seed in range(3)]
    records += [made("net", size, seed, order < 550) for size in (10, 20) for seed in range(3)]
    records += [made("net", 40, seed, order < 550 + side) for seed, side in enumerate((-80, 0, 80))]
    found = crossing(LabelEfficiency(records), "svm", "net")
    assert found.unclear == (20, 40)
    assert found.sentence.endswith("but within the 95 % margin of error at 20 and 40.")


def test_one_seed_has_no_interval_and_says_so():
    two = steady(svm=[50] * 4, net=[30, 40, 60, 80], best=[90] * 4)
    one = LabelEfficiency([row for row in two.records if row["seed"] == 0])
    found = crossing(one, "svm", "net")
    assert found.low is found.high is None
    assert found.sentence == "net overtakes svm at about 28 labels per class (too few seeds for an interval)."
    assert "too few seeds for a margin" in crossing(one, "svm", "best").sentence


def test_open_ends_are_said():
    found = crossing(steady(svm=[50] * 4, net=[47, 49, 51, 53]), "svm", "net")
    assert (found.low, found.high) == (0, np.inf)
    assert "(95 % interval below 10 to beyond 80)" in found.sentence
    assert found.unclear == (10, 20, 40, 80)


def test_models_are_compared_where_both_were_fitted():
    records = steady(svm=[50] * 4, net=[30, 40, 60, 80]).records
    records = [row for row in records if (row["model"], row["labels_per_class"]) != ("net", 80)]
    assert crossing(LabelEfficiency(records), "svm", "net").sizes == (10, 20, 40)
    with pytest.raises(ValueError, match="no result of 'vgg'; expected one of svm, net"):
        crossing(LabelEfficiency(records), "svm", "vgg")
    apart = [row | {"seed": row["seed"] + 5 * (row["model"] == "net")} for row in records]
    with pytest.raises(ValueError, match="'svm' and 'net' were never fitted with the same seed"):
        crossing(LabelEfficiency(apart), "svm", "net")
    with pytest.raises(ValueError, match="confidence=95; expected a number between 0 and 1"):
        crossing(LabelEfficiency(records), "svm", "net", confidence=95)


def simulated(rng, sizes, logits, noise, n_seeds, n):
    """Draw hits by a probit model with images, nested training sets and chance; what the accuracies differ by."""
    nested = np.linalg.cholesky(np.sqrt(np.minimum.outer(sizes, sizes) / np.maximum.outer(sizes, sizes)))
    difficulty = rng.normal(size=n)
    records, means = [], []
    for name, logit in logits.items():
        ease = difficulty + 0.7 * rng.normal(size=n)
        spread = noise * np.sqrt(sizes[0] / sizes)
        means.append(ndtr(logit / np.sqrt(1 + 1 + 0.49 + spread**2)))
        for seed in range(n_seeds):
            level = logit + spread * (nested @ rng.normal(size=len(sizes)))
            hits = rng.random((len(sizes), n)) < ndtr(level[:, None] + ease)
            records += [made(name, int(size), seed, row) for size, row in zip(sizes, hits, strict=True)]
    return LabelEfficiency(records), means[1] - means[0]


@pytest.mark.parametrize(("noise", "n_seeds"), [(0.02, 3), (0.1, 3), (0.1, 6)])
def test_the_interval_holds_the_crossing_as_often_as_it_says(noise, n_seeds):
    rng, sizes = np.random.default_rng(0), np.array([10, 20, 50, 100, 200])
    logits = {"svm": 0.2 * np.log(sizes / 40), "net": 0.6 * np.log(sizes / 40)}
    held, finite = [], []
    for _ in range(200):
        result, difference = simulated(rng, sizes, logits, noise, n_seeds, 1500)
        truth = np.exp(np.interp(0, difference, np.log(sizes)))
        found = crossing(result, "svm", "net", confidence=0.8)
        held.append(found.leader == "net" and found.low <= truth <= found.high)
        finite.append(found.low > 0 and found.high < np.inf)
    assert 0.74 < np.mean(held) < 0.94  # 0.8, a little more between two sizes, and 3 standard errors on either side
    assert np.mean(finite) > 0.9


class TestLabelEfficiencyDisplay:
    def test_curves_are_the_means_in_bands_of_all_seeds(self):
        rows = [made("a", k, seed, np.arange(10) < 3 + seed + k // 10) for k in (10, 1000) for seed in (0, 2)]
        display = LabelEfficiencyDisplay.from_result(LabelEfficiency(rows))
        assert display.plot() is display
        np.testing.assert_allclose(display.lines_["a"].get_xydata()[0], [10, 0.5])
        (band,) = display.ax_.collections
        assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(0.4)
        assert display.ax_.get_xscale() == "log"
        display.figure_.canvas.draw()
        assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["10", "1,000"]
        assert display.ax_.get_title() == "made, 10 test images"
        _, ax = plt.subplots()
        assert display.plot(ax).ax_ is ax

    def test_crossings_are_marked_on_the_curves(self):
        result = steady(svm=[50] * 4, net=[30, 40, 60, 80], best=[90] * 4)
        found = [crossing(result, "svm", "net"), crossing(result, "svm", "best")]
        ax = LabelEfficiencyDisplay.from_result(result, crossings=found).plot().ax_
        (ring,) = [line for line in ax.lines if line.get_marker() == "o"]
        np.testing.assert_allclose(ring.get_xydata(), [[20 * 2**0.5, 0.5]])
        bars = [line.get_xdata() for line in ax.lines if line.get_color() == "black" and len(line.get_xdata()) == 2]
        np.testing.assert_allclose(bars, [[found[0].low, found[0].high]])
        assert "28" in [text.get_text() for text in ax.texts]

    def test_an_open_interval_ends_in_arrows(self):
        result = steady(svm=[50] * 4, net=[47, 49, 51, 53])
        ax = LabelEfficiencyDisplay.from_result(result, crossings=[crossing(result, "svm", "net")]).plot().ax_
        ends = {line.get_marker(): line.get_xdata()[0] for line in ax.lines if line.get_marker() in ("<", ">")}
        assert ends == {"<": 10, ">": 80}

    def test_names_do_not_overlap_and_colours_differ(self):
        result = steady(**{f"model {k}": [30 + k // 2] * 3 + [60 + k / 4] for k in range(9)})
        display = LabelEfficiencyDisplay.from_result(result).plot()
        display.figure_.canvas.draw()
        boxes = sorted((text.get_window_extent() for text in display.ax_.texts), key=lambda box: box.y0)
        assert all(below.y0 + 0.7 * below.height < above.y0 for below, above in itertools.pairwise(boxes))
        assert len({(line.get_color(), line.get_linestyle()) for line in display.lines_.values()}) == 9

    def test_nothing_to_draw(self):
        failed = [made("a", 10, 0, [1, 0]) | {"error": "OSError: gone", "accuracy": None}]
        with pytest.raises(ValueError, match="no fit that succeeded"):
            LabelEfficiencyDisplay.from_result(LabelEfficiency(failed))
        result = steady(svm=[50] * 4, net=[30, 40, 60, 80])
        with pytest.raises(ValueError, match="A crossing is of 'net', of which the result has nothing"):
            LabelEfficiencyDisplay.from_result(steady(svm=[50] * 4), crossings=[crossing(result, "svm", "net")])


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("label_efficiency_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def striped(tmp_path):
    """Upright and lying stripes in noise, as an .npz file."""
    rng = np.random.default_rng(0)

    def images(n):
        stripes = np.where(np.arange(16) // 4 % 2, 90, 160) + np.zeros((n, 16, 1))
        stripes[::2] = stripes[::2].transpose(0, 2, 1)
        return np.clip(stripes + rng.normal(0, 60, (n, 16, 16)), 0, 255).astype(np.uint8), np.arange(n) % 2

    (X, y), (X_test, y_test) = images(40), images(30)
    np.savez(tmp_path / "data.npz", X_train=X, y_train=y, X_test=X_test, y_test=y_test)
    return tmp_path / "data.npz"


@pytest.mark.skipif(not SCRIPT.exists(), reason="the benchmarks are not installed with the package")
class TestScript:
    def test_runs_from_end_to_end_and_goes_on(self, script, striped, tmp_path, monkeypatch, capsys):
        rows = FunctionTransformer(lambda images: images.reshape(len(images), -1) / 255)
        monkeypatch.setattr(classic_cls, "make_small_cnn", lambda: make_pipeline(rows, LinearSVC()), raising=False)
        output, figure = tmp_path / "out.json", tmp_path / "out.png"
        command = ["--data", str(striped), "--models", "hog-svm,small-cnn", "--labels", "4,16", "--seeds", "2"]
        command += ["--json", str(output), "--figure", str(figure)]
        assert script.main(command) == 0
        lines = capsys.readouterr().out.splitlines()
        records = json.loads(output.read_text())
        assert len(records) == 8
        assert {row["n_labels"] for row in records} == {8, 32}
        assert np.mean([row["accuracy"] for row in records if row["labels_per_class"] == 16]) > 0.8
        assert lines[0] == "1 of 8: hog-svm, 4 labels per class, seed 0"
        assert lines[-1].endswith(".")
        assert {"hog-svm", "small-cnn"} <= set(lines[-1].split())
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["data.npz", "out.json", "out.png"]
        output.write_text(json.dumps(records[:7]))
        assert script.main(command) == 0
        assert "8 of 8: small-cnn, 16 labels per class, seed 1" in capsys.readouterr().out
        assert json.loads(output.read_text())[:7] == records[:7]

    def test_pictures_of_different_sizes_and_a_failing_net(self, script, striped, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(classic_cls, "make_small_resnet", lambda: Spy(breaks_at=8), raising=False)
        monkeypatch.setattr(script, "load", lambda *_: ragged_split(striped))
        command = ["--data", "mine", "--models", "hog-svm,small-resnet", "--labels", "4", "--seeds", "1"]
        assert script.main(command) == 1
        printed = capsys.readouterr().out
        assert "small-resnet, 4 labels, seed 0: MemoryError: no such luck" in printed
        assert "hog-svm" in printed.split("fit_seconds")[1]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--models", "vgg"], "there is no model 'vgg'; choose from fast"),
            (["--json", "nowhere/out.json"], "there is no folder 'nowhere' for out.json"),
            (["--figure", "out.doc"], "--figure out.doc; expected a name that ends in .pdf, .png or .svg"),
            (["--labels", "4,a"], "invalid _numbers value"),
            (["--models", "hog-svm", "--seeds", "0"], "seeds=0"),
        ],
    )
    def test_wrong_options_cost_no_run(self, script, arguments, message, capsys):
        with pytest.raises(SystemExit):
            script.main(["--data", "faces", "--models", "hog-svm", *arguments])
        assert message in capsys.readouterr().err

    def test_is_a_program(self):
        command = [sys.executable, SCRIPT, "--data", "no/where", "--models", "hog-svm"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert "'no/where' is neither a data set" in done.stderr


def ragged_split(path):
    data = np.load(path)
    images = [image[: 16 - k % 3] for k, image in enumerate(data["X_train"])]
    return images, data["y_train"], list(data["X_test"]), data["y_test"]
