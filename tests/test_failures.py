import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import classification_report

from classic_cls.benchmark.failures import (
    confident_mistakes,
    confusion,
    disagreements,
    most_confused,
    per_class,
    reject_curve,
    reliability,
)
from classic_cls.benchmark.scores import classification_scores

NAMES = ["cat", "dog", "emu"]


def said(labels, scores=None, classes=None):
    scores = None if scores is None else np.asarray(scores, float)
    return SimpleNamespace(labels=np.asarray(labels), scores=scores, classes=classes)


def sure(labels, confidence):
    """A prediction of classes 0 and 1 that gives `confidence` to what it says."""
    rows = [[c, 1 - c] if label == 0 else [1 - c, c] for label, c in zip(labels, confidence, strict=True)]
    return said(labels, rows, np.array([0, 1]))


@pytest.fixture
def noisy():
    """Target and a prediction of three classes, with probabilities in tenths, so that many are tied."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, 400)
    scores = rng.multinomial(10, [0.2, 0.3, 0.5], 400)
    scores[np.arange(400), target] += 2
    return target, said(scores.argmax(1), scores / 12, np.arange(3))


def test_per_class_agrees_with_scikit_learn(noisy):
    target, prediction = noisy
    flipped = said(2 - prediction.labels)
    table = per_class(target, {"one": prediction, "other": flipped}, NAMES)
    assert table["model"].tolist() == ["one"] * 3 + ["other"] * 3
    assert table["class"].tolist() == NAMES * 2
    for model, labels in (("one", prediction.labels), ("other", flipped.labels)):
        report = classification_report(target, labels, target_names=NAMES, output_dict=True)
        rows = table[table["model"] == model].set_index("class")
        for name in NAMES:
            expected = [report[name][key] for key in ("precision", "recall", "f1-score", "support")]
            assert rows.loc[name, ["precision", "recall", "f1", "n"]].tolist() == pytest.approx(expected)
        assert rows["n_predicted"].tolist() == np.bincount(labels).tolist()


def test_interval_of_recall_is_that_of_accuracy(noisy):
    target, prediction = noisy
    table = per_class(target, {"model": prediction})
    for k in range(3):
        scores = classification_scores(target[target == k], prediction.labels[target == k])
        expected = scores["accuracy"], scores["accuracy_low"], scores["accuracy_high"]
        assert tuple(table.loc[k, ["recall", "recall_low", "recall_high"]]) == pytest.approx(expected)


def test_undefined_scores_are_told():
    """Class 1 is never said, class 2 has no test image, class 4 neither; class 5 is only known to the other model."""
    one = said([0, 0, 2], classes=np.array([0, 1, 2, 4]))
    with pytest.warns(UndefinedMetricWarning) as told:
        table = per_class([0, 1, 0], {"one": one, "other": said([5, 1, 0])})
    assert [str(warning.message) for warning in told] == [
        "one never says 1, 4, 5: the precision is NaN.",
        "other never says 2, 4: the precision is NaN.",
        "No test image is of class 2, 4, 5: the recall is NaN.",
    ]
    rows = table[table["model"] == "one"].set_index("class")
    assert rows.index.tolist() == [0, 1, 2, 4, 5]
    assert np.isnan(rows["precision"]).tolist() == [False, True, False, True, True]
    for column in ("recall", "recall_low", "recall_high"):
        assert np.isnan(rows[column]).tolist() == [False, False, True, True, True]
    assert rows["f1"].tolist() == pytest.approx([0.5, 0, 0, np.nan, np.nan], nan_ok=True)
    with pytest.warns(UndefinedMetricWarning, match="never says 'a', 'b', 'c' and 2 more: the precision"):
        per_class(list("abcdez"), {"model": said(["z"] * 6)})


def test_nothing_is_told_where_all_is_defined(noisy):
    target, prediction = noisy
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not per_class(target, {"model": prediction}).isna().any(axis=None)


def test_confusion_counts_true_by_row_and_names_classes():
    prediction = said([1, 1, 0, 1, 0], classes=np.arange(3))
    table = confusion([0, 1, 0, 0, 0], prediction, NAMES)
    assert table.to_numpy().tolist() == [[2, 2, 0], [0, 1, 0], [0, 0, 0]]
    assert table.index.tolist() == table.columns.tolist() == NAMES
    assert (table.index.name, table.columns.name) == ("true", "predicted")
    words = confusion(["b", "a"], said(["b", "b"]))
    assert words.loc["a", "b"] == words.loc["b", "b"] == 1


def test_most_confused_pairs_come_first():
    target, labels = [0, 0, 0, 1, 1, 2, 2, 2, 2], [1, 1, 0, 0, 2, 2, 0, 0, 0]
    table = most_confused(target, said(labels), NAMES)
    rows = list(table.itertuples(index=False, name=None))
    assert rows == [("emu", "cat", 3, 3 / 4), ("cat", "dog", 2, 2 / 3), ("dog", "cat", 1, 0.5), ("dog", "emu", 1, 0.5)]
    assert len(most_confused(target, said(target))) == 0


def test_disagreements_part_the_images():
    target, a, b = [0, 0, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 1, 0, 1, 2, 3]
    found = disagreements(target, said(a), said(b))
    assert [part.tolist() for part in (found.only_a, found.only_b, found.both_wrong)] == [[1, 5], [2], [4]]


def test_surest_mistakes_come_first():
    prediction = sure([0, 1, 1, 0, 1], [0.7, 0.9, 0.95, 0.6, 0.7])
    table = confident_mistakes([1, 0, 1, 1, 0], prediction, target_names=NAMES)
    assert table["image"].tolist() == [1, 0, 4, 3]
    assert table["confidence"].tolist() == [0.9, 0.7, 0.7, 0.6]
    assert table["true"].tolist() == ["cat", "dog", "cat", "dog"]
    assert table["predicted"].tolist() == ["dog", "cat", "dog", "cat"]
    assert confident_mistakes([1, 0, 1, 1, 0], prediction, 2)["image"].tolist() == [1, 0]
    assert len(confident_mistakes([0, 1, 1, 0, 1], prediction)) == 0


def test_confidence_is_in_the_label_that_is_said():
    """SVC's labels, for one, need not be the most probable ones; nor need the columns be sorted."""
    prediction = said(["b", "c"], [[0.5, 0.1, 0.4], [0.2, 0.3, 0.5]], np.array(["c", "a", "b"]))
    assert confident_mistakes(["a", "a"], prediction)["confidence"].tolist() == [0.4, 0.2]


def test_reject_curve_by_hand():
    """Confidences 0.9 (right), 0.8 (right and wrong, tied), 0.6 (right)."""
    curve = reject_curve([0, 1, 1, 0], sure([0, 1, 0, 0], [0.8, 0.9, 0.8, 0.6]))
    assert curve.coverage.tolist() == [0.25, 0.75, 1]
    assert curve.accuracy.tolist() == pytest.approx([1, 2 / 3, 3 / 4])
    assert curve.area == pytest.approx((0 + 1 / 3 + 1 / 3 + 1 / 4) / 4)
    at = {0.01: 1, 0.25: 1, 0.26: 2 / 3, 0.75: 2 / 3, 0.9: 0.75, 1: 0.75}
    assert {coverage: curve.accuracy_at(coverage) for coverage in at} == pytest.approx(at)
    least = {0: 1, 0.7: 1, 0.75: 1, 0.76: 0.25, 1: 0.25}
    assert {accuracy: curve.coverage_at(accuracy) for accuracy in least} == least
    assert reject_curve([1, 0], sure([0, 1], [0.8, 0.9])).coverage_at(0.5) == 0


def test_reject_curve_by_its_definition(noisy):
    """Every image's own confidence is a threshold; the area is the mean error rate over them."""
    target, prediction = noisy
    confidence, right = prediction.scores.max(1), prediction.labels == target
    thresholds = np.unique(confidence)[::-1]
    assert 4 < len(thresholds) < 12
    curve = reject_curve(target, prediction)
    assert curve.coverage == pytest.approx([np.mean(confidence >= t) for t in thresholds])
    assert curve.accuracy == pytest.approx([right[confidence >= t].mean() for t in thresholds])
    assert curve.area == pytest.approx(np.mean([1 - right[confidence >= t].mean() for t in confidence]))
    order = np.random.default_rng(1).permutation(len(target))
    again = reject_curve(target[order], said(prediction.labels[order], prediction.scores[order], prediction.classes))
    assert again.accuracy.tolist() == curve.accuracy.tolist()
    assert again.area == curve.area


@pytest.mark.parametrize("coverage", [0, -0.1, 1.1, np.nan])
def test_coverage_out_of_range(noisy, coverage):
    curve = reject_curve(*noisy)
    with pytest.raises(ValueError, match=r"coverage=.*; expected a share"):
        curve.accuracy_at(coverage)
    with pytest.raises(ValueError, match=r"accuracy=.*; expected a share"):
        curve.coverage_at(-1 if coverage == 0 else coverage)


def test_reliability_by_hand():
    confidence = [0.5, 0.55, 0.6, 0.75, 1.0, 0.95]
    table = reliability([0, 0, 1, 0, 1, 1], sure([0, 1, 1, 0, 1, 0], confidence), n_bins=4)
    expected = {"low": [0.25, 0.5, 0.75], "high": [0.5, 0.75, 1], "confidence": [0.5, 1.9 / 3, 0.975]}
    expected |= {"accuracy": [1, 2 / 3, 0.5], "count": [1, 3, 2]}
    pd.testing.assert_frame_equal(table, pd.DataFrame(expected), check_names=False)
    assert reliability([0], said([1], [[1, 0]], [0, 1]))["low"].tolist() == [0]


def test_reliability_keeps_every_image(noisy):
    target, prediction = noisy
    for n_bins in (1, 7, 15):
        table = reliability(target, prediction, n_bins)
        assert table["count"].sum() == 400
        assert np.average(table["accuracy"], weights=table["count"]) == pytest.approx(
            np.mean(target == prediction.labels)
        )
        assert ((table["low"] <= table["confidence"]) & (table["confidence"] <= table["high"])).all()


@pytest.mark.parametrize("function", [confident_mistakes, reject_curve, reliability])
def test_confidence_needs_probabilities(function):
    probable, classes = [[0.5, 0.5], [0.4, 0.6]], np.array([0, 1])
    for prediction, message in [
        (said([0, 1]), "has no scores.*CalibratedClassifierCV"),
        (said([0, 1], probable), "no classes"),
        (said([0, 1], [[3, -2], [0, 1]], classes), "range from -2 to 3; expected probabilities"),
        (said([0, 1], [[np.nan, 0], [0, 1]], classes), "scores contains NaN"),
        (said([0, 1], probable[:1], classes), r"shape \(1, 2\); expected \(2, 2\)"),
        (said([0, 2], probable, classes), "label 2 is predicted, and no column"),
    ]:
        with pytest.raises(ValueError, match=message):
            function([0, 1], prediction)


@pytest.mark.parametrize("function", [confusion, most_confused, reject_curve, reliability, confident_mistakes])
@pytest.mark.parametrize(
    ("target", "labels", "message"),
    [
        ([0, 1, 1], [0, 1], "prediction has 2 labels and the target has 3"),
        ([[0, 1], [1, 0]], [0, 1], r"'target' have shape \(2, 2\); expected \(n_test,\).*several labels"),
        ([0, 1], [[0, 1]], r"'prediction' have shape \(1, 2\)"),
        ([], [], r"shape \(0,\)"),
        ([0, 1], ["cat", "dog"], "Mix of label input types"),
    ],
)
def test_labels_that_do_not_fit(function, target, labels, message):
    with pytest.raises(ValueError, match=message):
        function(target, said(labels))


def test_names_must_fit_the_labels():
    with pytest.raises(ValueError, match="has 1 names, and there are labels from 0 to 1"):
        confusion([0, 1], said([0, 1]), ["cat"])
    with pytest.raises(ValueError, match="names for labels 0, 1, 2 and so on, and the labels are <U1; leave it out"):
        confusion(["a"], said(["a"]), NAMES)


def test_numbers_must_be_positive(noisy):
    with pytest.raises(ValueError, match="n=0; expected a positive int"):
        confident_mistakes(*noisy, n=0)
    with pytest.raises(ValueError, match=r"n_bins=1\.5; expected a positive int"):
        reliability(*noisy, n_bins=1.5)
