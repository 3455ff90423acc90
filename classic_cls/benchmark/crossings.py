"""From how many labels on one model is ahead of another."""

import base64
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True)
class Crossing:
    """What :func:`crossing` found.

    Attributes
    ----------
    leader, other : str
        The model that is ahead at the largest size, and the other one.
    labels_per_class : float
        From here on `leader` stays ahead: 0 if it is ahead at all sizes, inf if the two are level at the largest.
    low, high : float or None
        Confidence interval of `labels_per_class`: 0 if it reaches below the smallest size and inf if beyond the
        largest; None where there are too few seeds for one.
    crossings : tuple of float
        All the labels per class at which the curves cross.
    sizes : tuple of int
        The labels per class at which both were measured.
    unclear : tuple of int
        Those at which the margin of error does not tell who is ahead; all of them where there is no interval.
    confidence : float
        Of the interval and of each margin of error.
    """

    leader: str
    other: str
    labels_per_class: float
    low: float | None
    high: float | None
    crossings: tuple
    sizes: tuple
    unclear: tuple
    confidence: float

    @property
    def sentence(self):
        """The finding in words, with what it leaves open."""
        leader, other, at = self.leader, self.other, self.labels_per_class
        if np.isinf(at):
            return f"{leader} and {other} are level at {_count(self.sizes[-1])} labels per class, the largest size."
        if at == 0:
            return f"{leader} is ahead of {other} at all sizes, {self._range()} labels per class{self._doubt()}."
        if len(self.crossings) == 1:
            return f"{leader} overtakes {other} at about {_count(at)} labels per class ({self._interval()})."
        several = f"{leader} and {other} cross {len(self.crossings)} times, at about {_listed(self.crossings)}"
        return f"{several} labels per class; {leader} stays ahead from about {_count(at)} on ({self._interval()})."

    def _range(self):
        return " to ".join(map(_count, dict.fromkeys((self.sizes[0], self.sizes[-1]))))

    def _doubt(self):
        if self.low is None:
            return " (too few seeds for a margin of error)"
        if not self.unclear:
            return ""
        where = "every size" if self.unclear == self.sizes else _listed(self.unclear)
        return f", but within the {self._percent()} margin of error at {where}"

    def _interval(self):
        if self.low is None:
            return "too few seeds for an interval"
        low = _count(self.low) if self.low else f"below {_count(self.sizes[0])}"
        high = f"beyond {_count(self.sizes[-1])}" if np.isinf(self.high) else _count(self.high)
        return f"{self._percent()} interval {low} to {high}"

    def _percent(self):
        return f"{100 * self.confidence:g} %"


def crossing(result, a, b, *, confidence=0.95):
    """Find the number of labels per class from which one of two models stays ahead.

    The difference of the mean accuracies is interpolated linearly in the logarithm of the labels per class, and so is
    its margin of error. The interval holds what the margin leaves possible: it ends where the leader would overtake if
    it were better, or worse, by the margin at each size. Nothing is extrapolated.

    A margin covers both the choice of the labels and the random numbers of a fit (seeds) and the choice of the test
    images, which all fits share: a two-way analysis of variance of the differences, image by image and seed by seed,
    gives the variance of their mean if seeds and images were drawn anew [1]_. Three seeds alone say little about the
    variance between seeds, so that of a size is pooled with those of the next smaller and larger; Student's t, with
    Satterthwaite's degrees of freedom, allows for what they still don't know. Between two sizes the margin is a little
    too wide, so that the interval holds the crossing somewhat more often than it says.

    Parameters
    ----------
    result : LabelEfficiency
        What :func:`label_efficiency` returned.
    a, b : str
        Names of two models in it. They are compared at the sizes, and over the seeds, that both have.
    confidence : float, default=0.95
        Of the interval, between 0 and 1.

    Returns
    -------
    crossing : Crossing
        ``sentence`` says what it means.

    Raises
    ------
    ValueError
        If `confidence` is out of range, a model has no result, or the two share no size and seed.

    References
    ----------
    .. [1] D. D. Dorfman, K. S. Berbaum, C. E. Metz, "Receiver operating characteristic rating analysis", Investigative
       Radiology 27, 1992: the same model, with readers for seeds and cases for test images.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from classic_cls.benchmark import crossing, label_efficiency
    >>> models = {"hog-svm": "hog-svm", "majority": DummyClassifier()}
    >>> result = label_efficiency(models, "faces", labels_per_class=[5, 20], seeds=2)
    >>> crossing(result, "majority", "hog-svm").sentence
    'hog-svm is ahead of majority at all sizes, 5 to 20 labels per class.'
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence!r}; expected a number between 0 and 1, such as 0.95.")
    by_size = _differences(result, a, b)
    sizes, differences = tuple(by_size), list(by_size.values())
    mean = np.array([each.mean() for each in differences])
    leader, other, lead = (b, a, mean) if mean[-1] >= 0 else (a, b, -mean)
    margin = _margins(differences, confidence)
    low, high = (None, None) if margin is None else (_rises(sizes, lead + margin), _rises(sizes, lead - margin))
    unclear = sizes if margin is None else tuple(k for k, d, m in zip(sizes, mean, margin, strict=True) if abs(d) <= m)
    changes = np.flatnonzero((lead[1:] > 0) != (lead[:-1] > 0))
    crossings = tuple(_zero(sizes, lead, k) for k in changes)
    return Crossing(leader, other, _rises(sizes, lead), low, high, crossings, sizes, unclear, confidence)


def _differences(result, a, b):
    """Return {size: array (n_seeds, n_test) of 1 where only b is right, -1 where only a is, else 0}."""
    right_a, right_b = _correct(result, a), _correct(result, b)
    common = sorted(right_a.keys() & right_b.keys())
    if not common:
        raise ValueError(f"{a!r} and {b!r} were never fitted with the same seed to the same number of labels.")
    by_size = {}
    for size, seed in common:
        by_size.setdefault(size, []).append(right_b[size, seed] - right_a[size, seed])
    return {size: np.array(rows) for size, rows in by_size.items()}


def _correct(result, model):
    """Return {(size, seed): float array (n_test,), 1 where `model` is right}."""
    records = [record for record in result.records if not record["error"]]
    found = {
        (row["labels_per_class"], row["seed"]): _unpacked(row["correct"], row["n_test"])
        for row in records
        if row["model"] == model
    }
    if not found:
        names = ", ".join(dict.fromkeys(row["model"] for row in records))
        raise ValueError(f"There is no result of {model!r}; expected one of {names or 'none: all fits failed'}.")
    return found


def _unpacked(bits, n):
    return np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8), count=n).astype(float)


def _margins(differences, confidence):
    """Return the mean difference's margin of error at each size; None if one and its neighbours have one seed each."""
    n_seeds = np.array([len(each) for each in differences])
    place = np.arange(len(differences))
    near = np.abs(place[:, None] - place) <= 1
    freedom = near @ (n_seeds - 1)
    if not freedom.all():
        return None
    between_seeds = near @ [len(each) * each.mean(axis=1).var() for each in differences] / freedom / n_seeds
    variance = between_seeds + [_between_images(each) for each in differences]
    tiny = 1e-12
    freedom = freedom * ((variance + tiny) / (between_seeds + tiny)) ** 2
    return student.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance)


def _between_images(difference):
    """Return the part of the mean's variance that comes from the images, less what the seeds' part already has."""
    n_seeds, n = difference.shape
    by_image = difference.mean(axis=0)
    rest = difference - by_image - difference.mean(axis=1, keepdims=True) + by_image.mean()
    chance = np.sum(rest**2) / max(n_seeds - 1, 1) / n_seeds
    return max(np.sum((by_image - by_image.mean()) ** 2) - chance, 0) / max(n - 1, 1) / n


def _rises(sizes, values):
    """Return from where values stay above zero: 0 if they are at every size, inf if not even at the last."""
    not_above = np.flatnonzero(values <= 0)
    if not len(not_above):
        return 0.0
    return np.inf if not_above[-1] == len(values) - 1 else _zero(sizes, values, not_above[-1])


def _zero(sizes, values, k):
    """Return where the values go through zero between the sizes k and k + 1."""
    share = values[k] / (values[k] - values[k + 1])
    return float(sizes[k] * (sizes[k + 1] / sizes[k]) ** share)


def _listed(numbers):
    *most, last = map(_count, numbers)
    return f"{', '.join(most)} and {last}" if most else last


def _count(number):
    """Return a number of labels to two digits, or a whole one as it is.

    Examples
    --------
    >>> _count(1234.5), _count(1250), _count(8.04)
    ('1,200', '1,250', '8')
    """
    rounded = number if float(number).is_integer() else float(f"{number:.2g}")
    return f"{rounded:,.15g}"
