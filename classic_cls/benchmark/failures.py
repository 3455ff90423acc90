"""Where models fail: on which classes, on which images, and whether they know it.

A model comes as a ``Predictions``: its ``labels`` (n_test,) of the test images, in their order, and where it has
probabilities ``scores`` (n_test, n_classes) with the columns' labels ``classes`` (n_classes,). Several models are a
dict of them by name. The confidence of a model is the probability that it gives to the label it says.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from ._labels import class_names, read_labels
from .confidence import RejectCurve, confident_mistakes, reject_curve, reliability
from .scores import wilson_interval

__all__ = [
    "Disagreements",
    "RejectCurve",
    "confident_mistakes",
    "confusion",
    "disagreements",
    "most_confused",
    "per_class",
    "reject_curve",
    "reliability",
]


def per_class(target, predictions, target_names=None):
    """Score every model on every class.

    Parameters
    ----------
    target : array of shape (n_test,)
        The true labels.
    predictions : dict of str to Predictions
        What each model said.
    target_names : array of str of shape (n_labels,), default=None
        Names to show for the labels, which are then indices into them.

    Returns
    -------
    table : pandas.DataFrame
        A row for each model and class, with the columns ``model``, ``class``, ``n`` (test images of the class),
        ``n_predicted``, ``precision``, ``recall``, ``recall_low`` and ``recall_high`` (its 95 % Wilson interval), and
        ``f1``. The classes are those that occur in `target`, or that any of the models knows or says.

    Raises
    ------
    ValueError
        If labels are not as many as the test images, not of one kind, or have no name.

    Warns
    -----
    UndefinedMetricWarning
        Where a class has no test image, its recall and interval are NaN; where a model never says it, its precision
        is NaN; where both, F1 is, too.

    Examples
    --------
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls.benchmark.failures import per_class
    >>> table = per_class([0, 0, 1, 1], {"svm": Predictions(labels=[0, 1, 1, 1], classes=None)}, ["cat", "dog"])
    >>> table[["model", "class", "n", "precision", "recall"]].round(2)
      model class  n  precision  recall
    0   svm   cat  2       1.00     0.5
    1   svm   dog  2       0.67     1.0
    """
    target, labels, classes = read_labels(target, predictions)
    names = class_names(classes, target_names)
    tables = [_scores_by_class(target, said, classes) for said in labels.values()]
    for model, table in zip(labels, tables, strict=True):
        table.insert(0, "model", model)
        table.insert(1, "class", names)
        _warn_of_nan(names[table["n_predicted"] == 0], f"{model} never says", "precision")
    _warn_of_nan(names[tables[0]["n"] == 0], "No test image is of class", "recall")
    return pd.concat(tables, ignore_index=True)


def _scores_by_class(target, labels, classes):
    precision, recall, f1, n = precision_recall_fscore_support(target, labels, labels=classes, zero_division=np.nan)
    counts = confusion_matrix(target, labels, labels=classes)
    hits, n_predicted = counts.diagonal(), counts.sum(axis=0)
    intervals = [wilson_interval(hit, of) if of else (np.nan, np.nan) for hit, of in zip(hits, n, strict=True)]
    low, high = np.transpose(intervals)
    columns = {"n": n, "n_predicted": n_predicted, "precision": precision, "recall": recall}
    return pd.DataFrame(columns | {"recall_low": low, "recall_high": high, "f1": f1})


def _warn_of_nan(names, why, score):
    if len(names):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        shown = ", ".join(map(repr, names[:3].tolist())) + more
        warnings.warn(f"{why} {shown}: the {score} is NaN.", UndefinedMetricWarning, stacklevel=3)


def confusion(target, prediction, target_names=None):
    """Count which classes a model takes for which.

    Parameters
    ----------
    target : array of shape (n_test,)
        The true labels.
    prediction : Predictions
        What the model said.
    target_names : array of str of shape (n_labels,), default=None
        Names to show for the labels, which are then indices into them.

    Returns
    -------
    table : pandas.DataFrame of shape (n_classes, n_classes)
        Numbers of test images: a row for each true class, a column for each predicted one. scikit-learn draws it:
        ``ConfusionMatrixDisplay(table.to_numpy(), display_labels=table.index).plot()``.

    Raises
    ------
    ValueError
        As in :func:`per_class`.

    Examples
    --------
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls.benchmark.failures import confusion
    >>> confusion([0, 0, 1, 1], Predictions(labels=[0, 1, 1, 1], classes=None), ["cat", "dog"])
    predicted  cat  dog
    true
    cat          1    1
    dog          0    2
    """
    target, labels, classes = read_labels(target, {"prediction": prediction})
    names = class_names(classes, target_names)
    counts = confusion_matrix(target, labels["prediction"], labels=classes)
    return pd.DataFrame(counts, pd.Index(names, name="true"), pd.Index(names, name="predicted"))


def most_confused(target, prediction, target_names=None):
    """List the mistakes by pair of classes, the most frequent first.

    Parameters
    ----------
    target, prediction, target_names
        As in :func:`confusion`.

    Returns
    -------
    table : pandas.DataFrame
        With the columns ``true``, ``predicted``, ``n`` (test images) and ``share`` (of those of the true class). Only
        pairs that occur; cats taken for dogs are one pair, and dogs taken for cats another.

    Raises
    ------
    ValueError
        As in :func:`per_class`.

    Examples
    --------
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls.benchmark.failures import most_confused
    >>> most_confused([0, 0, 1, 1], Predictions(labels=[0, 1, 1, 1], classes=None), ["cat", "dog"])
      true predicted  n  share
    0  cat       dog  1    0.5
    """
    table = confusion(target, prediction, target_names)
    counts, names = table.to_numpy(), table.index.to_numpy()
    true, predicted = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    n = counts[true, predicted]
    columns = {"true": names[true], "predicted": names[predicted], "n": n, "share": n / counts.sum(axis=1)[true]}
    return pd.DataFrame(columns).sort_values("n", ascending=False, kind="stable", ignore_index=True)


@dataclass(frozen=True, eq=False)
class Disagreements:
    """Indices of the test images on which two models say different labels, ascending; see :func:`disagreements`.

    Attributes
    ----------
    only_a, only_b : ndarray of int
        Only the first model is right; only the second is.
    both_wrong : ndarray of int
        Neither is right, and they differ.
    """

    only_a: np.ndarray
    only_b: np.ndarray
    both_wrong: np.ndarray


def disagreements(target, a, b):
    """Find the test images on which two models disagree.

    Parameters
    ----------
    target : array of shape (n_test,)
        The true labels.
    a, b : Predictions
        What the models said.

    Returns
    -------
    disagreements : Disagreements

    Raises
    ------
    ValueError
        As in :func:`per_class`.

    Examples
    --------
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls.benchmark.failures import disagreements
    >>> a, b = Predictions(labels=[0, 1, 2, 2], classes=None), Predictions(labels=[1, 1, 1, 2], classes=None)
    >>> disagreements([0, 0, 1, 1], a, b)
    Disagreements(only_a=array([0]), only_b=array([2]), both_wrong=array([], dtype=int64))
    """
    target, labels, _ = read_labels(target, {"a": a, "b": b})
    a, b = labels.values()
    kinds = a == target, b == target, (a != target) & (b != target)
    return Disagreements(*(np.flatnonzero(kind & (a != b)) for kind in kinds))
