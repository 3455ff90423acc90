"""Intervals and tests agree with scikit-learn and statsmodels, and intervals hold the truth as often as they say."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal, norm, t
from sklearn import metrics
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from classic_cls.benchmark import _resampling, statistics
from classic_cls.benchmark.predictions import Predictions
from classic_cls.benchmark.scores import classification_scores
from classic_cls.benchmark.statistics import compare_pairs, intervals, sentence

METRICS = ["accuracy", "balanced_accuracy", "macro_f1", "log_loss", "roc_auc", "expected_calibration_error"]


def model(y_true, n_classes, seed=0, strength=2.0, decimals=16):
    """Predictions with scores that lean to the truth; few decimals give ties."""
    noise = np.random.default_rng(seed).normal(size=(len(y_true), n_classes))
    noise[np.arange(len(y_true)), y_true] += strength
    scores = np.exp(noise) / np.exp(noise).sum(1, keepdims=True)
    scores = np.round(scores, decimals) + 10.0**-decimals
    scores /= scores.sum(1, keepdims=True)
    return Predictions(scores.argmax(1), scores, np.arange(n_classes))


def truth(n, n_classes, seed=9):
    return np.random.default_rng(seed).integers(n_classes, size=n)


def row(table, name, model="model"):
    return table.set_index(["model", "metric"]).loc[(model, name)]


def oracle(y_true, said):
    best = said.scores.argmax(1)
    confidence = said.scores.max(1)
    error = 0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(np.mean(best[inside] == y_true[inside]) - confidence[inside].mean())
    scores = said.scores[:, 1] if said.scores.shape[1] == 2 else said.scores
    return {
        "accuracy": metrics.accuracy_score(y_true, said.labels),
        "balanced_accuracy": metrics.balanced_accuracy_score(y_true, said.labels),
        "macro_f1": metrics.f1_score(y_true, said.labels, average="macro"),
        "log_loss": metrics.log_loss(y_true, said.scores, labels=said.classes),
        "roc_auc": metrics.roc_auc_score(y_true, scores, multi_class="ovr"),
        "expected_calibration_error": error,
    }


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("decimals", [1, 16])
def test_values_are_those_of_scikit_learn(n_classes, decimals):
    y_true = truth(300, n_classes)
    said = model(y_true, n_classes, decimals=decimals)
    table = intervals(y_true, {"model": said}, n_resamples=20)
    assert table["metric"].tolist() == METRICS
    expected = oracle(y_true, said)
    assert dict(zip(table["metric"], table["value"], strict=True)) == pytest.approx(expected, rel=1e-9)
    assert (table["note"] == "").all()


@pytest.mark.parametrize("n_classes", [2, 4])
def test_intervals_are_percentiles_of_the_metric_on_resampled_images(n_classes):
    y_true, n_resamples = truth(80, n_classes), 70
    said = model(y_true, n_classes, decimals=2)
    table = intervals(y_true, {"model": said}, n_resamples=n_resamples, confidence=0.9, random_state=5)
    rng, values = np.random.default_rng(5), []
    for _ in range(n_resamples):
        drawn = rng.integers(80, size=80)
        resample = Predictions(said.labels[drawn], said.scores[drawn], said.classes)
        values.append(oracle(y_true[drawn], resample))
    size = 80 / n_classes
    tail = norm.cdf(t.ppf(0.05, size - 1) * np.sqrt(size / (size - 1)))  # Hesterberg (2015)
    for name in METRICS[1:5]:
        wanted = 0.05 if name == "log_loss" else tail
        ends = np.quantile([found[name] for found in values], [wanted, 1 - wanted])
        assert row(table, name)[["low", "high"]].tolist() == pytest.approx(ends.tolist(), rel=1e-9)


def test_accuracy_has_the_interval_of_the_benchmark():
    y_true = truth(100, 3)
    said = model(y_true, 3)
    found, scores = row(intervals(y_true, {"model": said}), "accuracy"), classification_scores(y_true, said.labels)
    assert [found["low"], found["high"]] == [scores["accuracy_low"], scores["accuracy_high"]]
    narrower = row(intervals(y_true, {"model": said}, confidence=0.5), "accuracy")
    assert found["low"] < narrower["low"] < narrower["high"] < found["high"]


def test_models_share_the_resamples_and_strings_are_labels():
    y_true = truth(100, 3)
    said = model(y_true, 3)
    names = np.array(["ape", "bee", "cow"])
    named = Predictions(names[said.labels], said.scores, names)
    alone = intervals(y_true, {"model": said}, n_resamples=130)
    both = intervals(names[y_true], {"one": named, "two": named}, n_resamples=130)
    for name in ("one", "two"):
        of_model = both[both["model"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(of_model.drop(columns="model"), alone.drop(columns="model"))


def test_what_cannot_be_computed_is_nan_and_says_why():
    y_true = np.array([0, 1, 2, 0, 1, 2] * 5)
    labels = Predictions(np.roll(y_true, 1) * (np.arange(30) % 2))
    table = intervals(y_true, {"model": labels})
    for name in METRICS[3:]:
        assert np.isnan(row(table, name)[["value", "low", "high"]].astype(float)).all()
        assert row(table, name)["note"] == "there are no scores"
    two = Predictions(y_true % 2, np.full((30, 2), 0.5), [0, 1])
    table = intervals(y_true, {"model": two})
    assert (
        row(table, "log_loss")["note"] == row(table, "roc_auc")["note"] == "the scores have no column for the class 2"
    )
    one_class = intervals(np.zeros(30, int), {"model": two})
    assert row(one_class, "roc_auc")["note"] == "the test has only the class 0"
    assert np.isnan(row(one_class, "roc_auc")["value"])


def test_perfect_predictions_have_no_bootstrap_interval():
    y_true = truth(100, 2)
    found = row(intervals(y_true, {"model": Predictions(y_true)}), "macro_f1")
    assert (found["value"], found["note"]) == (1, "no interval, as the resamples don't differ")
    assert np.isnan(found["low"])


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classes_that_resamples_lack(n_classes):
    y_true = np.array([0] * 20 + [n_classes - 1] * 2)
    table = intervals(y_true, {"model": model(y_true, n_classes, strength=0.5)}, n_resamples=500)
    n_lacking = int(row(table, "balanced_accuracy")["note"].split()[0])
    assert n_lacking == pytest.approx(500 * (20 / 22) ** 22, abs=25)
    area = row(table, "roc_auc")
    assert f"{n_lacking} of 500 resamples lack a class" in area["note"]
    assert 0 <= area["low"] < area["high"] <= 1
    assert ("without the classes that no test image has: 1" in area["note"]) == (n_classes == 3)


# Pairs


def pair(only_first, only_second, both=300, neither=40):
    n = only_first + only_second + both + neither
    first, second = np.zeros(n, int), np.zeros(n, int)
    first[:only_first] = second[only_first : only_first + only_second] = 1
    first[-both:] = second[-both:] = 1
    return np.ones(n, int), {"first": Predictions(first), "second": Predictions(second)}


@pytest.mark.parametrize(
    ("only_first", "only_second"), [(0, 0), (0, 1), (7, 2), (12, 12), (20, 4), (12, 13), (25, 0), (30, 30), (60, 31)]
)
def test_mcnemar_is_that_of_statsmodels(only_first, only_second):
    y_true, predictions = pair(only_first, only_second)
    [found] = compare_pairs(y_true, predictions)
    exact = only_first + only_second < 25
    expected = mcnemar([[300, only_first], [only_second, 40]], exact=exact, correction=True)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-12)
    assert found.p_corrected == found.p_value
    assert found.test == ("exact binomial" if exact else "chi-squared with continuity correction")
    assert (found.only_first, found.only_second, found.n_test) == (only_first, only_second, len(y_true))
    assert found.difference == pytest.approx(100 * (only_first - only_second) / len(y_true))
    assert found.low < found.difference < found.high


@pytest.mark.parametrize("seed", range(5))
def test_holm_is_that_of_statsmodels(seed):
    y_true, rng = np.ones(200, int), np.random.default_rng(seed)
    predictions = {f"model {p}": Predictions((rng.random(200) < p).astype(int)) for p in (0.6, 0.7, 0.72, 0.8, 0.8001)}
    found = compare_pairs(y_true, predictions, n_resamples=10)
    assert len(found) == found[0].n_comparisons == 10
    _, expected, _, _ = multipletests([pair.p_value for pair in found], method="holm")
    assert [pair.p_corrected for pair in found] == pytest.approx(expected.tolist(), rel=1e-12)
    assert [(pair.first, pair.second) for pair in found][:2] == [
        ("model 0.6", "model 0.7"),
        ("model 0.6", "model 0.72"),
    ]


def test_a_pair_the_other_way_round():
    y_true, predictions = pair(30, 9)
    [there] = compare_pairs(y_true, predictions, n_resamples=20_000)
    [back] = compare_pairs(y_true, dict(reversed(predictions.items())), n_resamples=20_000)
    assert (back.difference, back.p_value) == (-there.difference, there.p_value)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=0.3)


def test_comparisons_make_a_table():
    y_true, predictions = pair(30, 9)
    table = pd.DataFrame(compare_pairs(y_true, predictions))
    assert table.loc[0, ["first", "second", "only_first"]].tolist() == ["first", "second", 30]


# Sentences


def test_sentence_of_a_difference():
    y_true, predictions = pair(31, 60)
    [found] = compare_pairs(y_true, predictions)
    expected = f"first is 6.7 points behind second (95 % interval {-found.high:.1f} to {-found.low:.1f}); "
    assert sentence(found) == f"{expected}the difference is unlikely to be chance (p = 0.003)"
    assert 0 < -found.high < -found.low


def test_sentence_names_the_correction():
    y_true, predictions = pair(100, 9)
    found = compare_pairs(y_true, predictions | {"third": Predictions(y_true)}, confidence=0.9)
    assert sentence(found[0]).startswith("first is 20.3 points ahead of second (90 % interval ")
    assert sentence(found[0]).endswith("unlikely to be chance (p < 0.001 after correction for 3 comparisons)")


def test_sentence_of_ten_images():
    y_true = np.ones(10, int)
    first, second = Predictions([1] * 9 + [0]), Predictions([1] * 7 + [0, 0, 1])
    [found] = compare_pairs(y_true, {"hog-svm": first, "resnet": second})
    said = sentence(found)
    assert said.startswith("hog-svm is 10.0 points ahead of resnet (95 % interval -")
    assert f"but 10 test images can't tell these apart: a difference of up to {found.high:.1f} points" in said
    assert found.high > 30
    [equal] = compare_pairs(y_true, {"hog-svm": first, "resnet": first})
    assert "hog-svm is level with resnet" in sentence(equal)
    assert equal.high > 15  # two models that agree on ten images may differ on the eleventh


# Coverage


def correlated_cells(first, second, correlation):
    """Return the chances that only the first, only the second, and both or neither of two models are right."""
    both = multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf(norm.ppf([first, second]))
    return [first - both, second - both, 1 - first - second + 2 * both]


@pytest.mark.parametrize(("first", "second", "correlation"), [(0.7, 0.72, 0.6), (0.9, 0.9, 0.6), (0.9, 0.7, 0.6)])
def test_intervals_of_the_difference_hold_the_truth(first, second, correlation):
    rng, held = np.random.default_rng(0), []
    for a, b, _ in rng.multinomial(500, correlated_cells(first, second, correlation), size=2000):
        low, high = statistics._difference_interval(a, b, 500, 400, 0.95, rng)
        held.append(low <= 100 * (first - second) <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("accuracy", [0.7, 0.9])
def test_intervals_of_the_accuracy_hold_the_truth(accuracy):
    hits = np.random.default_rng(0).binomial(500, accuracy, size=2000)
    ends = {k: statistics.wilson_interval(k, 500) for k in np.unique(hits).tolist()}
    held = [ends[k][0] <= accuracy <= ends[k][1] for k in hits.tolist()]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def calibrated(rng, n, sharpness):
    """Return classes and predictions whose scores are right where `sharpness` is 1, else over-confident."""
    y_true, noise = rng.integers(5, size=n), rng.normal(size=(n, 5))
    noise[np.arange(n), y_true] += 1.6
    scores = softmax(1.6 * sharpness * noise, axis=1)
    return y_true, Predictions(scores.argmax(1), scores, np.arange(5))


@pytest.mark.parametrize("sharpness", [1, 2])
def test_bootstrap_intervals_hold_the_truth(sharpness):
    def measure(y_true, said):
        accuracy, f1 = (make(y_true, said.labels) for make in (_resampling._balanced_accuracy, _resampling._macro_f1))
        return accuracy, f1, _resampling._expected_calibration_error(y_true, said)

    rng, held = np.random.default_rng(0), []
    expected = [metric.value for metric in measure(*calibrated(rng, 100_000, sharpness))]
    counts = np.stack([np.bincount(rng.integers(500, size=500), minlength=500) for _ in range(200)], 1)
    for _ in range(150):
        ends = [metric.interval(metric(counts), 0.95) for metric in measure(*calibrated(rng, 500, sharpness))]
        held.append([low <= value <= high for value, (low, high) in zip(expected, ends, strict=True)])
    assert (np.mean(held, 0) > 0.9).all()


def chance_of_being_right(rng):
    """Return a function of the confidence: a model that is wrong about its own in one way or another, or is not."""
    where, size, slope = rng.uniform(0.3, 0.8), rng.uniform(-0.2, 0.1), rng.uniform(0, 0.5)
    return [
        lambda c: c,
        lambda c: c + size,
        lambda c: c + slope * (where - c),
        lambda c: np.where((c > where) & (c < where + 0.2), c + size, c),
        lambda c: 1 / (1 + (1 / c - 1) ** (1 - slope)),
    ][rng.integers(5)]


def says_of_itself(rng, n, chance):
    """Return classes, predictions of them, and by how much the chances of being right exceed the confidence."""
    confidence = 0.21 + 0.78 * rng.beta(3, 1.2, n)
    excess = np.clip(chance(confidence), 0, 1) - confidence
    labels, scores = rng.integers(5, size=n), np.repeat((1 - confidence)[:, None] / 4, 5, 1)
    scores[np.arange(n), labels] = confidence
    y_true = np.where(rng.random(n) < confidence + excess, labels, (labels + 1) % 5)
    return y_true, Predictions(labels, scores, np.arange(5)), excess


def test_intervals_of_the_calibration_error_hold_each_of_many_truths():
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        n, chance = int(rng.choice([200, 500, 2000])), chance_of_being_right(rng)
        _, said, excess = says_of_itself(rng, 50_000, chance)
        bins = np.ceil(said.scores.max(1) * 15).astype(int)
        truth = np.abs(np.bincount(bins, excess)).sum() / len(bins)
        metric = _resampling._expected_calibration_error(*says_of_itself(rng, n, chance)[:2])
        low, high = metric.interval(metric(rng.multinomial(n, np.full(n, 1 / n), size=100).T.astype(float)), 0.95)
        held.append(low <= truth + 1e-9 and truth <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(("right", "confidence", "error"), [(1, 1.0, 0), (0, 1.0, 1), (1, 0.9, 0.1), (0, 0.7, 0.7)])
def test_a_calibration_error_without_noise_has_no_interval(right, confidence, error):
    said = Predictions([0] * 30, np.tile([confidence, 1 - confidence], (30, 1)), [0, 1])
    table = intervals([1 - right] * 30, {"a": said}, n_resamples=50).set_index("metric")
    row = table.loc["expected_calibration_error"]
    assert row["value"] == pytest.approx(error)
    assert np.isnan(row[["low", "high"]].astype(float)).all()
    assert "resamples don't differ" in row["note"]


# Bad input


@pytest.mark.parametrize("function", [intervals, compare_pairs])
@pytest.mark.parametrize(
    ("y_true", "predictions", "options", "message"),
    [
        (np.eye(2, dtype=int), None, {}, "indicator matrix"),
        ([], None, {}, r"shape \(0,\)"),
        ([0.5, 1.0], None, {}, "dtype float64"),
        ([0, 1], {}, {}, "expected a dict"),
        ([0, 1], {"a": [0, 1], "b": [0, 1]}, {}, "predictions of a are of type list"),
        ([0, 1, 1], None, {}, "There are 2 predictions of a; expected 3"),
        (["x", "y"], None, {}, "strings or ints in both"),
        ([0, 1], None, {"n_resamples": 0}, "n_resamples=0; expected a positive int"),
        ([0, 1], None, {"confidence": 95}, "confidence=95; expected a number between 0 and 1"),
        ([0, 1], None, {"confidence": "high"}, "confidence='high'"),
    ],
)
def test_bad_input(function, y_true, predictions, options, message):
    if predictions is None:
        predictions = {"a": Predictions([0, 1]), "b": Predictions([1, 1])}
    with pytest.raises(ValueError, match=message):
        function(y_true, predictions, **options)


def test_one_model_has_no_pair():
    with pytest.raises(ValueError, match="predictions of a alone"):
        compare_pairs([0], {"a": Predictions([0])})
