"""Whether a model knows when it fails: its surest mistakes, what rejecting unsure images gains, reliability."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .._images import positive_int
from ._labels import class_names, read_confidence


def confident_mistakes(target, prediction, n=20, target_names=None):
    """List the mistakes that a model was surest of.

    Parameters
    ----------
    target : array of shape (n_test,)
        The true labels.
    prediction : Predictions
        What the model said, with scores.
    n : int, default=20
        Number of mistakes, at most.
    target_names : array of str of shape (n_labels,), default=None
        Names to show for the labels, which are then indices into them.

    Returns
    -------
    table : pandas.DataFrame
        By falling confidence, with the columns ``image`` (index among the test images), ``true``, ``predicted`` and
        ``confidence``.

    Raises
    ------
    ValueError
        As in :func:`per_class`; if there are no scores, they are no probabilities, or `n` is not a positive int.

    Examples
    --------
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls.benchmark.failures import confident_mistakes
    >>> said = Predictions(labels=[1, 1, 1], scores=[[0.4, 0.6], [0.1, 0.9], [0.2, 0.8]], classes=[0, 1])
    >>> confident_mistakes([0, 0, 1], said, target_names=["cat", "dog"])
       image true predicted  confidence
    0      1  cat       dog         0.9
    1      0  cat       dog         0.6
    """
    n = positive_int(n, "n")
    target, labels, confidence = read_confidence(target, prediction)
    wrong = np.flatnonzero(labels != target)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:n]
    true, predicted = (class_names(which[wrong], target_names) for which in (target, labels))
    return pd.DataFrame({"image": wrong, "true": true, "predicted": predicted, "confidence": confidence[wrong]})


@dataclass(frozen=True, eq=False)
class RejectCurve:
    """Accuracy on the images that are kept, where the least confident are handed to a person; see :func:`reject_curve`.

    Attributes
    ----------
    coverage : ndarray of shape (n_points,)
        Share of the images that are kept, rising to 1.
    accuracy : ndarray of shape (n_points,)
        Share of right labels among those kept.
    area : float
        Area under the curve of the error rate against the coverage (AURC); 0 is best.
    """

    coverage: np.ndarray
    accuracy: np.ndarray
    area: float

    def accuracy_at(self, coverage):
        """Return the accuracy where at least a share `coverage` of the images, in (0, 1], is kept."""
        if not 0 < coverage <= 1:
            raise ValueError(f"coverage={coverage!r}; expected a share of the images, above 0 and at most 1.")
        return float(self.accuracy[np.searchsorted(self.coverage, coverage)])

    def coverage_at(self, accuracy):
        """Return the largest share of images that can be kept with at least this accuracy, in [0, 1]; 0 if none."""
        if not 0 <= accuracy <= 1:
            raise ValueError(f"accuracy={accuracy!r}; expected a share of right labels, from 0 to 1.")
        return float(self.coverage[self.accuracy >= accuracy].max(initial=0))


def reject_curve(target, prediction):
    """Find how accurate a model is on the images that it is confident of.

    Parameters
    ----------
    target : array of shape (n_test,)
        The true labels.
    prediction : Predictions
        What the model said, with scores.

    Returns
    -------
    curve : RejectCurve
        One point for each confidence that occurs: images that are equally confident are kept or rejected together. Its
        area is the mean, over all test images, of the error rate among the images that are at least as confident.

    Raises
    ------
    ValueError
        As in :func:`confident_mistakes`.

    References
    ----------
    Y. Geifman and R. El-Yaniv, "Selective classification for deep neural networks", NIPS 2017; the area: Y. Geifman,
    G. Uziel and R. El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers", ICLR 2019.

    Examples
    --------
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls.benchmark.failures import reject_curve
    >>> said = Predictions(labels=[1, 1, 1], scores=[[0.4, 0.6], [0.1, 0.9], [0.2, 0.8]], classes=[0, 1])
    >>> curve = reject_curve([0, 1, 1], said)
    >>> curve.accuracy_at(1), curve.coverage_at(0.9)
    (0.6666666666666666, 0.6666666666666666)
    """
    target, labels, confidence = read_confidence(target, prediction)
    order = np.argsort(-confidence)
    right, confidence = (labels == target)[order], confidence[order]
    kept = 1 + np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True))  # where a tie ends
    accuracy = np.cumsum(right)[kept - 1] / kept
    area = np.average(1 - accuracy, weights=np.diff(kept, prepend=0))
    return RejectCurve(kept / len(target), accuracy, float(area))


def reliability(target, prediction, n_bins=15):
    """Compare a model's confidence with its accuracy, in bins of equal width.

    Parameters
    ----------
    target : array of shape (n_test,)
        The true labels.
    prediction : Predictions
        What the model said, with scores.
    n_bins : int, default=15
        Number of bins of [0, 1]; a confidence on an edge belongs to the bin below.

    Returns
    -------
    table : pandas.DataFrame
        A row for each bin that holds an image, with the columns ``low`` and ``high`` (its edges), ``confidence``
        (mean), ``accuracy``, and ``count``.

    Raises
    ------
    ValueError
        As in :func:`confident_mistakes`, or if `n_bins` is not a positive int.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls.benchmark.failures import reliability
    >>> said = Predictions(labels=[1, 1, 1], scores=[[0.4, 0.6], [0.1, 0.9], [0.2, 0.8]], classes=[0, 1])
    >>> reliability([0, 1, 1], said, n_bins=4)
        low  high  confidence  accuracy  count
    0  0.50  0.75        0.60       0.0      1
    1  0.75  1.00        0.85       1.0      2
    """
    edges = np.linspace(0, 1, positive_int(n_bins, "n_bins") + 1)
    target, labels, confidence = read_confidence(target, prediction)
    bins = (np.searchsorted(edges, confidence) - 1).clip(0)
    images = pd.DataFrame({"bin": bins, "confidence": confidence, "accuracy": labels == target})
    grouped = images.groupby("bin")
    means = grouped.mean()
    table = means.assign(count=grouped.size(), low=edges[means.index], high=edges[means.index + 1])
    return table[["low", "high", "confidence", "accuracy", "count"]].reset_index(drop=True)
