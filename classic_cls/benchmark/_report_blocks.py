"""What the page says about a data set, block by block: sentences, tables, figures."""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning

from ._report_figures import Picture, picture
from .failures import most_confused, per_class
from .statistics import sentence

_METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "roc_auc": "ROC AUC",
    "expected_calibration_error": "calibration error",
}
# Of the records: heading, format, unit.
_COSTS = {
    "fit_seconds": ("fit, s", "{:,.2f}", 1),
    "fit_peak_bytes": ("fit, MB", "{:,.0f}", 1e6),
    "latency_ms": ("one image, ms", "{:,.2f}", 1),
    "images_per_second": ("images/s", "{:,.0f}", 1),
    "model_bytes": ("model, MB", "{:,.2f}", 1e6),
    "threads": ("threads", "{:.0f}", 1),
}
_MODELS = 4  # in a figure: the best
_CLASSES = 30  # in a confusion matrix that one can read
_PICTURES = 12


class Cell(NamedTuple):
    """What stands in a table's cell, what it is sorted by, and the interval below it."""

    text: str
    key: str
    interval: str = ""


class Rows(NamedTuple):
    """A table."""

    columns: list
    cells: list


class Block(NamedTuple):
    """A heading and what stands below it."""

    heading: str
    sentences: list = []
    rows: Rows | None = None
    pictures: list[Picture] = []
    notes: list = []


class Part(NamedTuple):
    """All about one data set."""

    name: str
    size: str
    warnings: list
    blocks: list


def part(test, records):
    """Say all about a data set.

    Parameters
    ----------
    test : Evidence
        What the models said of its test images.
    records : list of dict
        What :func:`.run` recorded.

    Returns
    -------
    part : Part
    """
    data = test.dataset
    size = f"{len(data.train):,} images to train, {len(data.test):,} to test, {len(data.target_names)} classes."
    failed = [f"{row['pipeline']} failed: {row['error']}" for row in records if row["error"]]
    n_leaked = len(test.leaks.leaked)
    leaks = [f"Test images that have a copy among the training images, see below: {n_leaked}."] if n_leaked else []
    makers = (
        _findings,
        _scores,
        _differences,
        _leaks,
        _confidence,
        _robustness,
        _confusions,
        _mistakes,
        _disagreements,
        _classes,
    )
    blocks = [block for maker in makers if (block := maker(test, records))]
    return Part(test.name, size, leaks + failed, blocks)


def _findings(test, records):
    said = [f"{sentence(comparison)}." for comparison in test.findings]
    return Block("What was found", said or [f"{test.ranked[0]} is the only model."])


def _scores(test, records):
    from ..plots.intervals import IntervalsDisplay

    costs = {row["pipeline"]: row for row in records}
    scores = test.intervals.set_index(["model", "metric"])
    cells = [
        [_name(name)]
        + [_number(*scores.loc[(name, metric), ["value", "low", "high"]]) for metric in _METRICS]
        + [_cost(costs[name][key], form, unit) for key, (_, form, unit) in _COSTS.items()]
        for name in test.ranked
    ]
    columns = ["model", *_METRICS.values(), *(heading for heading, *_ in _COSTS.values())]
    forest = picture(IntervalsDisplay.from_table(test.intervals), "Accuracy on the test images, with 95 % intervals.")
    return Block("Scores and costs", [], Rows(columns, cells), [forest], _notes(test.intervals))


def _notes(intervals):
    """Say once what holds for several models."""
    noted = intervals[intervals["note"] != ""]
    grouped = noted.groupby(["note", "metric"], sort=False)["model"].agg(", ".join).reset_index()
    grouped = grouped.groupby(["note", "model"], sort=False)["metric"].agg(list).reset_index()
    said = [f"{', '.join(_METRICS[m] for m in row.metric)} of {row.model}: {row.note}" for row in grouped.itertuples()]
    return [f"{text.rstrip('.')}." for text in said]


def _differences(test, records):
    if not test.comparisons:
        return None
    cells = [
        [
            Cell(f"{c.first} - {c.second}", f"{c.first} {c.second}"),
            Cell(f"{c.difference:+.1f}", f"{c.difference:.6g}", f"{c.low:+.1f} to {c.high:+.1f}"),
            *(Cell(str(n), str(n)) for n in (c.only_first, c.only_second)),
            *(Cell("< 0.001" if p < 0.001 else f"{p:.3f}", f"{p:.6g}") for p in (c.p_value, c.p_corrected)),
        ]
        for c in sorted(test.comparisons, key=lambda c: -abs(c.difference))
    ]
    columns = ["pair", "points", "only first right", "only second right", "p (McNemar)", "p (Holm)"]
    note = "On the same images: McNemar's test, bootstrap intervals of the difference; Holm's correction for all pairs."
    return Block("Difference of each pair", rows=Rows(columns, cells), notes=[note])


def _leaks(test, records):
    from ..plots.duplicates import DuplicatesDisplay

    captions = {
        "between": "Test images beside the training images that they copy.",
        "conflicts": "Copies of unlike label.",
    }
    labels = np.asarray(test.dataset.target_names)[np.asarray(test.dataset.target)]
    found = {text: getattr(test.leaks, kind) for kind, text in captions.items() if len(getattr(test.leaks, kind))}
    options = {"labels": labels, "n_pairs": _PICTURES}
    pictures = [
        picture(DuplicatesDisplay.from_duplicates(pairs, test.dataset.images, **options), text)
        for text, pairs in found.items()
    ]
    return Block("Images that occur twice", [test.leaks.summary()], pictures=pictures)


def _confidence(test, records):
    from ..plots.reject_curve import RejectCurveDisplay
    from ..plots.reliability import ReliabilityDisplay

    said = {name: test.predictions[name] for name in _sure(test)[:_MODELS]}
    if not said:
        return None
    captions = {
        RejectCurveDisplay: "Accuracy where the least confident images are handed to a person.",
        ReliabilityDisplay: "How often models are right when they are so sure; on the diagonal as often as they say.",
    }
    pictures = [picture(display.from_predictions(test.target, said), text) for display, text in captions.items()]
    return Block("How far their confidence can be trusted", pictures=pictures)


def _robustness(test, records):
    from ..plots.robustness import RobustnessDisplay

    if test.robustness is None:
        return None
    table = test.robustness.by_kind.join(test.robustness.summary[["corrupted"]])
    ranked = [name for name in test.ranked if name in table.index]
    cells = [[_name(name), *map(_number, table.loc[name])] for name in ranked]
    shown = test.robustness.table.query("model in @ranked[:@_MODELS]")
    pictures = [picture(RobustnessDisplay(shown), "Accuracy on corrupted test images; severity 0 is clean.")]
    note = "Mean accuracy over five severities of each kind; the last column is the mean over kinds."
    return Block("In bad light, blurred, turned", [], Rows(["model", *table.columns], cells), pictures, [note])


def _confusions(test, records):
    from sklearn.metrics import ConfusionMatrixDisplay

    best, names = test.ranked[0], np.asarray(test.dataset.target_names).astype(str)
    table = most_confused(test.target, test.predictions[best], names).head(10)
    cells = [[_name(row.true), _name(row.predicted), _whole(row.n), _number(row.share)] for row in table.itertuples()]
    pictures = []
    if len(names) <= _CLASSES:
        labels = test.target, test.predictions[best].labels
        shown = ConfusionMatrixDisplay.from_predictions(
            *labels,
            labels=np.arange(len(names)),
            display_labels=names,
            normalize="true",
            values_format=".2f",
            include_values=len(names) <= 12,
            xticks_rotation="vertical",
            cmap="Blues",
        )
        pictures = [picture(shown, f"Of the images of a class (row), the share that {best} takes for each (column).")]
    return Block(f"What {best} confuses", [], Rows(["class", "taken for", "images", "share"], cells), pictures)


def _mistakes(test, records):
    from ..plots.mistakes import MistakesDisplay

    sure = _sure(test)
    if not sure or (test.predictions[sure[0]].labels == test.target).all():
        return None
    options = {"n": _PICTURES, "target_names": test.dataset.target_names}
    shown = MistakesDisplay.from_predictions(test.images, test.target, test.predictions[sure[0]], **options)
    text = f"The test images of which {sure[0]} is wrong and surest: what it said, how sure it was, what it is."
    return Block(f"The surest mistakes of {sure[0]}", pictures=[picture(shown, text)])


def _disagreements(test, records):
    from ..plots.disagreements import DisagreementsDisplay

    ours = [name for name in test.ranked if name not in test.outside]
    others = [name for name in test.ranked if name in test.outside] or ours[1:]
    if not ours or not others:
        return None
    first, second = ours[0], others[0]
    pair = {name: test.predictions[name] for name in (first, second)}
    if (pair[first].labels == pair[second].labels).all():
        return None
    options = {"n": _PICTURES // 2, "target_names": test.dataset.target_names}
    shown = DisagreementsDisplay.from_predictions(test.images, test.target, pair, **options)
    return Block(f"Where {first} and {second} disagree", pictures=[picture(shown, "What each said of the same image.")])


def _classes(test, records):
    said = {name: test.predictions[name] for name in test.ranked[:_MODELS]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)  # the table shows a dash
        table = per_class(test.target, said, np.asarray(test.dataset.target_names))
    cells = [
        [
            *(_name(row["class"]), _name(row.model), _whole(row.n)),
            *(_number(row.recall, row.recall_low, row.recall_high), _number(row.precision), _number(row.f1)),
        ]
        for _, row in table.sort_values("class", kind="stable").iterrows()
    ]
    return Block("Class by class", rows=Rows(["class", "model", "images", "recall", "precision", "F1"], cells))


def _sure(test):
    """Return the models that say how sure they are, the best first; a constant answer is no such model."""
    return [name for name in test.ranked if test.predictions[name].scores is not None and name != "majority"]


def _name(text):
    return Cell(str(text), str(text))


def _whole(n):
    return Cell(f"{n:,}", str(n))


def _number(value, low=np.nan, high=np.nan):
    if np.isnan(value):
        return Cell("-", "")
    return Cell(f"{value:.3f}", f"{value:.6g}", "" if np.isnan(low) else f"{low:.3f} - {high:.3f}")


def _cost(value, form, unit):
    return Cell("-", "") if value is None else Cell(form.format(value / unit), f"{value:.6g}")
