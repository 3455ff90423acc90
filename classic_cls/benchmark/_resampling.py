"""Metrics and their bootstrap resamples.

Each metric is a function of sums over groups of images. A resample is a count for each image, so that the sums of many
resamples are one sparse product.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import brentq
from scipy.sparse import csr_array, vstack
from scipy.stats import chi2, norm, t

_BINS = 15  # of the expected calibration error
_LARGE = 1.6  # standard deviations from zero, where a bin's gap counts as surely not zero
_PIECE = 64  # resamples drawn at a time


@dataclass(frozen=True)
class Metric:
    """A metric of one model's predictions.

    Attributes
    ----------
    groups : sparse array of shape (n_groups, n_test)
        The sums that `function` takes are ``groups @ counts``.
    function : callable
        Of sums (n_groups, n_resamples); returns the metric in each resample, NaN where it is not defined.
    class_size : float or None
        Mean number of images of a class, where the metric is an average over classes; those without are left out.
    note : str
        What is left out.
    """

    groups: csr_array
    function: Callable
    class_size: float | None = None
    note: str = ""

    @property
    def value(self):
        """The metric of the test itself."""
        return float(self(np.ones((self.groups.shape[1], 1)))[0])

    def __call__(self, counts):
        """Return the metric in each resample, (n_resamples,), of `counts` (n_test, n_resamples)."""
        return self.function(self.groups @ counts)

    def interval(self, values, confidence):
        """Return the ends of the middle share of the values in resamples; NaN where there are none.

        The share is larger for small classes: the expanded percentile interval of Hesterberg.
        """
        if self.class_size is not None:
            n = max(self.class_size, 2)
            confidence = 1 - 2 * norm.cdf(t.ppf((1 - confidence) / 2, n - 1) * np.sqrt(n / (n - 1)))
        return percentiles(values[~np.isnan(values)], confidence)


class CalibrationError(Metric):
    """The expected calibration error, from the summed gaps of each bin.

    Noise makes small gaps larger, so that the error of a test exceeds the truth, by an amount between none, if all true
    gaps are large, and the mean size of the noise, if all are zero. Which of the small ones are zero can't be known;
    the interval is that of Imbens and Manski for what is known within bounds.
    """

    @property
    def value(self):
        """The metric of the test itself."""
        return float(np.abs(self._gaps()).sum())

    def interval(self, values, confidence):
        """Return the ends, from the gaps in resamples, (n_bins, n_resamples)."""
        gaps, error = self._gaps(), self.value
        noise = values - gaps
        spreads = noise.std(1, keepdims=True)
        distances = np.divide(np.abs(gaps), spreads, where=spreads > 0, out=np.zeros_like(gaps))
        signed = np.sign(gaps) * noise
        surplus = np.where(distances > _LARGE, signed, np.abs(noise)).sum(0)
        bias, spread = max(surplus.mean(), 0), signed.sum(0).std()
        if np.isclose(spread, 0):
            return error, error
        reach = brentq(lambda z: norm.cdf(z + bias / spread) - norm.cdf(-z) - confidence, 0, 40)
        calibrated = (distances**2).sum() <= chi2.ppf(confidence, (spreads > 0).sum())
        low = 0 if calibrated else max(error - bias - reach * surplus.std(), 0)
        return float(low), float(min(error + reach * spread, 1))

    def _gaps(self):
        return self(np.ones((self.groups.shape[1], 1)))


def percentiles(values, confidence):
    """Return the ends of the middle share of the values along the first axis; NaN where there are none."""
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    return np.quantile(values, ends, axis=0).tolist() if len(values) else [np.nan, np.nan]


def metrics_of(y_true, said):
    """Return by name what can be computed of predictions: a Metric, or a str that says why not."""
    return {
        "balanced_accuracy": _balanced_accuracy(y_true, said.labels),
        "macro_f1": _macro_f1(y_true, said.labels),
        **{name: _why_not(y_true, said, name) or make(y_true, said) for name, make in _OF_SCORES.items()},
    }


def resampled(y_true, metrics, n_resamples, random_state):
    """Return {key: values of the metric in the resamples}, and how many resamples lack a class of the truth."""
    values, n_lacking = {key: [] for key in metrics}, 0
    rng, true, n = np.random.default_rng(random_state), _indicator(np.unique(y_true), y_true), len(y_true)
    for start in range(0, n_resamples, _PIECE):
        draws = (rng.integers(n, size=n) for _ in range(min(_PIECE, n_resamples - start)))
        counts = np.stack([np.bincount(drawn, minlength=n) for drawn in draws], 1).astype(np.float64)
        n_lacking += int(np.sum((true @ counts == 0).any(0)))
        for key, metric in metrics.items():
            values[key].append(metric(counts))
    return {key: np.concatenate(found, -1) for key, found in values.items()}, n_lacking


def _balanced_accuracy(y_true, labels):
    true = _indicator(np.unique(y_true), y_true)
    return Metric(vstack([true * (y_true == labels), true]).tocsr(), _mean_ratio, len(y_true) / true.shape[0])


def _macro_f1(y_true, labels):
    classes = np.union1d(y_true, labels)
    true, found = _indicator(classes, y_true), _indicator(classes, labels)
    return Metric(
        vstack([2 * true * (y_true == labels), true + found]).tocsr(), _mean_ratio, len(y_true) / len(classes)
    )


def _mean_ratio(sums):
    """Average the ratios of the first half of the sums to the second, where that is not zero."""
    parts, wholes = np.split(sums, 2)
    defined = wholes > 0
    return _mean(np.divide(parts, wholes, where=defined, out=np.zeros(parts.shape)), defined)


def _mean(values, defined):
    count = defined.sum(0)
    return np.divide(values.sum(0), count, where=count > 0, out=np.full(len(count), np.nan))


def _why_not(y_true, said, name):
    if said.scores is None:
        return "there are no scores"
    unknown = np.setdiff1d(y_true, said.classes)
    if len(unknown) and name != "expected_calibration_error":
        return f"the scores have no column for the class {unknown[0]}"
    if name == "roc_auc" and len(np.unique(y_true)) < 2:
        return f"the test has only the class {y_true[0]}"
    return None


def _log_loss(y_true, said):
    """Return the mean of -log of the true class's probability, clipped as scikit-learn does."""
    n, eps = len(y_true), np.finfo(np.float64).eps
    true_class = said.scores[np.arange(n), np.searchsorted(said.classes, y_true)]
    return Metric(csr_array(-np.log(np.clip(true_class, eps, 1 - eps))[None] / n), np.ravel)


def _roc_auc(y_true, said):
    """Return the area of the last of two classes, or of each against the rest, averaged."""
    columns = [1] if len(said.classes) == 2 else range(len(said.classes))
    parts = [_ranks(said.scores[:, k], y_true == said.classes[k]) for k in columns]
    class_size = len(y_true) / len(np.unique(y_true))
    absent = np.setdiff1d(said.classes, y_true).tolist()
    note = f"without the classes that no test image has: {', '.join(map(str, absent))}" if absent else ""
    return Metric(vstack(parts).tocsr(), partial(_mean_area, [part.shape[0] for part in parts]), class_size, note)


def _ranks(scores, positive):
    """Return two halves: the positives at each of their scores; the negatives since the one before, of ties half."""
    levels, level = np.unique(scores[positive], return_inverse=True)
    shape, negative = (len(levels) + 1, len(scores)), np.flatnonzero(~positive)
    here = csr_array((np.ones(len(level)), (level, np.flatnonzero(positive))), shape=shape)
    rows = np.concatenate([np.searchsorted(levels, scores[negative], side) for side in ("left", "right")])
    since = csr_array((np.full(len(rows), 0.5), (rows, np.tile(negative, 2))), shape=shape)
    return vstack([here, since])


def _mean_area(sizes, sums):
    halves = [np.split(part, 2) for part in np.split(sums, np.cumsum(sizes)[:-1])]
    won = np.array([(here * since.cumsum(0)).sum(0) for here, since in halves])
    pairs = np.array([here.sum(0) * since.sum(0) for here, since in halves])
    return _mean(np.divide(won, pairs, where=pairs > 0, out=np.zeros(won.shape)), pairs > 0)


def _expected_calibration_error(y_true, said):
    n, best = len(y_true), said.scores.argmax(1)
    confidence = said.scores[np.arange(n), best]
    gaps = (said.classes[best] == y_true) - confidence
    bins = np.searchsorted(np.linspace(0, 1, _BINS + 1)[1:-1], confidence)  # each with its upper edge
    return CalibrationError((_indicator(np.arange(_BINS), bins) * (gaps / n)).tocsr(), np.asarray)


_OF_SCORES = {
    "log_loss": _log_loss,
    "roc_auc": _roc_auc,
    "expected_calibration_error": _expected_calibration_error,
}


def _indicator(classes, values):
    """Return a sparse array (n_classes, n), 1 where an image has the class."""
    rows = np.searchsorted(classes, values)
    return csr_array((np.ones(len(values)), (rows, np.arange(len(values)))), shape=(len(classes), len(values)))
