"""What a model, such as a deep one trained elsewhere, said of the test images; and files that carry it."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._files import replacing
from ._prediction_files import file_format

_SUM_TOLERANCE = 0.01  # rows of float16, or rounded to a few decimals, sum to one no better


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said of the test images, in the order of the test.

    Parameters
    ----------
    labels : array of shape (n_test,)
        The predicted classes, in the labels of the data set's ``target``.
    scores : array of shape (n_test, n_classes), default=None
        Probabilities; each row sums to one (to 0.01, and is then divided by its sum).
    classes : array of shape (n_classes,), default=None
        The label of each column of `scores`, in any order.

    Attributes
    ----------
    labels : ndarray of shape (n_test,)
    scores : ndarray of shape (n_test, n_classes), float64, or None
    classes : ndarray of shape (n_classes,), or None
        Sorted, and the columns of `scores` with it.

    Raises
    ------
    ValueError
        If shapes don't fit, a class has two columns, or `scores` are no probabilities; logits need a softmax first.

    Examples
    --------
    >>> from classic_cls.benchmark.predictions import Predictions
    >>> Predictions([1, 0], scores=[[0.9, 0.1], [0.2, 0.8]], classes=[1, 0]).scores
    array([[0.1, 0.9],
           [0.8, 0.2]])
    """

    labels: np.ndarray
    scores: np.ndarray | None = None
    classes: np.ndarray | None = None

    def __post_init__(self):
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or labels.dtype.kind not in "biuU":
            raise ValueError(
                f"The labels have shape {labels.shape} and dtype {labels.dtype}; expected (n_test,) ints or strings, "
                "one for each test image. Scores of the classes go into scores."
            )
        object.__setattr__(self, "labels", labels)  # the dataclass is frozen
        if self.scores is None:
            object.__setattr__(self, "classes", None)
            return
        if self.classes is None:
            raise ValueError("There are scores but no classes; expected classes, the label of each column.")
        classes = np.asarray(self.classes)
        scores = _probabilities(self.scores, (len(labels), len(classes)))
        if _doubled(classes):
            raise ValueError(f"The classes name {_some(_doubled(classes))} twice; expected one column for each class.")
        if (classes.dtype.kind == "U") != (labels.dtype.kind == "U"):
            raise ValueError(
                f"The classes are {classes.dtype} and the labels {labels.dtype}; expected the same of both."
            )
        order = np.argsort(classes)
        object.__setattr__(self, "classes", classes[order])
        object.__setattr__(self, "scores", scores[:, order])


def read_predictions(path, dataset):
    """Read a model's predictions of a data set's test images.

    Parameters
    ----------
    path : str or path
        An ``.npz`` file with ``y_pred``, or with ``scores`` of shape (n_test, n_classes) and ``classes``, or with all
        three; or a ``.csv`` file with a column ``y_pred`` (or ``label``), or with one column of scores for each class,
        named after it, or both. Without ``y_pred`` the class with the highest score is taken. Either may carry ``ids``
        (``.csv``: ``id``), by which rows in another order are put in that of the test: positions in the test, from 0,
        or ``dataset.filenames``; and ``fingerprint``, that of :func:`split_fingerprint`, which is then compared.
    dataset : Bunch
        See :mod:`classic_cls.datasets`; one label for each image.

    Returns
    -------
    predictions : Predictions
        In the order of ``dataset.test``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file can't be read, holds Python objects (which could run code), is of another split, names unknown
        classes or images, lacks some or has them twice, or its scores are no probabilities.

    Notes
    -----
    Classes are given as labels (``dataset.target``) or as ``dataset.target_names``. Names that are numbers may read as
    other labels: of the folders "0" to "10", label 2 is the name "10". Such numbers are refused; strings in an
    ``.npz`` file are always taken for names first.

    Examples
    --------
    >>> import tempfile
    >>> from classic_cls import load_faces
    >>> from classic_cls.benchmark.predictions import Predictions, read_predictions, write_predictions
    >>> faces = load_faces()
    >>> always_face = Predictions(0 * faces.test)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_predictions(f"{folder}/always.csv", always_face, faces)
    ...     print(open(f"{folder}/always.csv").readline().strip())
    ...     read_predictions(f"{folder}/always.csv", faces).labels[:3]
    id,y_pred,fingerprint
    array([0, 0, 0])
    """
    read, _ = file_format(path)
    _check_one_label(dataset)
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}; expected predictions, .npz or .csv.")
    try:
        content = read(path)
        _check_fingerprint(content, dataset)
        return _in_order(_predictions(content, dataset), content.get("ids"), dataset)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_predictions(path, predictions, dataset):
    """Write predictions so that :func:`read_predictions` reads them, here or elsewhere.

    The file names the classes by ``target_names`` and carries the images' ids and the split's fingerprint. An older
    file is replaced only by a whole one.

    Parameters
    ----------
    path : str or path
        Ends in ``.npz`` or ``.csv``.
    predictions : Predictions
        In the order of ``dataset.test``.
    dataset : Bunch
        See :mod:`classic_cls.datasets`; one label for each image.

    Raises
    ------
    ValueError
        If the predictions don't fit the data set, or can't be told from a ``.csv`` file: see the notes to
        :func:`read_predictions`.
    """
    read, write = file_format(path)
    _check_one_label(dataset)
    content = _content(predictions, dataset)
    with replacing(path) as unfinished:
        write(unfinished, content)
        _check_readable(read, unfinished, Path(path), dataset)


def split_fingerprint(dataset):
    """Return 16 hexadecimal digits that tell a data set's test images and labels, in their order, from others.

    Parameters
    ----------
    dataset : Bunch
        See :mod:`classic_cls.datasets`.

    Returns
    -------
    fingerprint : str
        The first digits of the SHA-256 of the number of test images, the shape, dtype and pixels of each, and their
        labels as text. An array of images and the list of them have the same.

    Examples
    --------
    >>> from classic_cls import load_digits
    >>> from classic_cls.benchmark.predictions import split_fingerprint
    >>> split_fingerprint(load_digits())
    '...'
    """
    digest = hashlib.sha256(f"{len(dataset.test)}\n".encode())
    for k in dataset.test:
        image = np.asarray(dataset.images[k])
        digest.update(f"{image.shape} {image.dtype.name}\n".encode())
        digest.update(image.astype(image.dtype.newbyteorder("<"), copy=False).tobytes())
    digest.update(json.dumps(np.asarray(dataset.target)[dataset.test].astype(str).tolist()).encode())
    return digest.hexdigest()[:16]


def _check_one_label(dataset):
    if np.ndim(dataset.target) != 1:
        raise ValueError(
            f"The data set's target has shape {np.shape(dataset.target)}, an indicator matrix of several labels per "
            "image; predictions are compared where each image has one, (n,)."
        )


def _check_fingerprint(content, dataset):
    found, expected = np.unique(content.get("fingerprint", [])).astype(str).tolist(), split_fingerprint(dataset)
    if found not in ([], [expected]):
        raise ValueError(
            f"has the fingerprint {_some(found)}, but this test split has {expected}: other images, labels or order. "
            "Predict this split, or load the data set as it was loaded then."
        )


def _predictions(content, dataset):
    """Return the predictions in the order of the file."""
    labels = scores = classes = None
    if "y_pred" in content:
        labels = _as_labels(content["y_pred"], "y_pred", dataset)
    if "scores" in content:
        classes = _as_labels(content.get("classes", np.empty(0, int)), "classes", dataset)
        _check_complete(classes, dataset)
        scores = _probabilities(content["scores"], (content["scores"].shape[:1] or (1,)) + classes.shape)
        likeliest = classes[scores.argmax(1)]
        labels = likeliest if labels is None else labels
        _check_agree(labels, likeliest)
    if labels is None:
        raise ValueError(f"has {', '.join(content) or 'nothing'}; expected y_pred, or scores of the classes.")
    return Predictions(labels, scores, classes)


def _as_labels(values, what, dataset):
    """Return labels of the data set for values that are such, or names of classes."""
    if values.ndim != 1 or values.dtype.kind not in "biuU":
        raise ValueError(f"{what} has shape {values.shape} and dtype {values.dtype}; expected (n,) ints or strings.")
    labels, names = _classes(dataset)
    found, where = np.unique(values.astype(str), return_inverse=True)
    readings = [reading for reading in (names, labels.astype(str)) if np.isin(found, reading).all()]
    if not readings:
        unknown = min((np.setdiff1d(found, reading) for reading in (names, labels.astype(str))), key=len)
        raise ValueError(f"{what} has {_some(unknown)}; expected classes of the data set, {_some(names)}.")
    first, last = ([reading.tolist().index(value) for value in found] for reading in (readings[0], readings[-1]))
    if values.dtype.kind != "U" and first != last:
        raise ValueError(
            f"{what} holds numbers that are labels and, with another meaning, names of classes. Write them to an .npz "
            "file as strings, dataset.target_names[y_pred], which are taken for names."
        )
    return labels[np.array(first, int)[where]]


def _classes(dataset):
    """Return the labels, sorted, and the name of each."""
    labels, names = np.unique(dataset.target), np.asarray(dataset.target_names, str)
    if labels.dtype.kind in "iu" and labels[0] >= 0 and labels[-1] < len(names):
        return np.arange(len(names), dtype=labels.dtype), names
    return labels, labels.astype(str)


def _check_complete(classes, dataset):
    labels, names = _classes(dataset)
    missing, doubled = names[~np.isin(labels, classes)], _doubled(classes)
    if len(missing) or doubled:
        wrong = f"no column for {_some(missing)}" if len(missing) else f"two columns for {_some(doubled)}"
        raise ValueError(f"scores have {wrong}; expected one for each class, named in classes (.csv: in the header).")


def _check_agree(labels, likeliest):
    if len(labels) == len(likeliest) and 2 * np.sum(labels == likeliest) < len(labels):
        raise ValueError(
            f"y_pred is the class with the highest score in only {np.sum(labels == likeliest)} of {len(labels)} rows; "
            "are the classes in the order of the columns?"
        )


def _in_order(predictions, ids, dataset):
    n, n_test = len(predictions.labels), len(dataset.test)
    if ids is not None:
        order = _order(ids, n, dataset)
        scores = None if predictions.scores is None else predictions.scores[order]
        return Predictions(predictions.labels[order], scores, predictions.classes)
    if n != n_test:
        raise ValueError(f"has {n} rows; expected {n_test}, one for each test image.")
    return predictions


def _order(ids, n, dataset):
    """Return the row of each test image."""
    if ids.shape != (n,) or ids.dtype.kind not in "iuU":
        raise ValueError(f"ids have shape {ids.shape} and dtype {ids.dtype}; expected ({n},) ints or strings.")
    rows = {key: k for k, key in enumerate(ids.astype(str).tolist())}
    expected = [str(k) for k in range(len(dataset.test))]
    if not rows.keys() <= set(expected):
        expected = np.asarray(_ids(dataset)).astype(str).tolist()
    known = set(expected)
    unknown, missing = [key for key in rows if key not in known], [key for key in expected if key not in rows]
    for wrong, which in ((unknown, "unknown"), (_doubled(ids), "doubled"), (missing, "missing")):
        if wrong:
            raise ValueError(
                f"ids has {len(wrong)} {which}, {_some(wrong)}; expected each test image once, {_some(expected)}."
            )
    return [rows[key] for key in expected]


def _ids(dataset):
    return dataset.filenames[dataset.test] if "filenames" in dataset else np.arange(len(dataset.test))


def _content(predictions, dataset):
    """Return what goes into the file."""
    n_test = len(dataset.test)
    if len(predictions.labels) != n_test:
        raise ValueError(f"There are {len(predictions.labels)} predictions; expected {n_test}, one per test image.")
    content = {"ids": _ids(dataset), "y_pred": _names(predictions.labels, dataset)}
    if predictions.scores is not None:
        content |= {"scores": predictions.scores, "classes": _names(predictions.classes, dataset)}
        _check_complete(predictions.classes, dataset)
    return content | {"fingerprint": np.array(split_fingerprint(dataset))}


def _names(values, dataset):
    labels, names = _classes(dataset)
    position = {label: k for k, label in enumerate(labels.tolist())}
    unknown = sorted(set(values.tolist()) - position.keys())
    if unknown:
        raise ValueError(f"The predictions have {_some(unknown)}; expected labels of the data set, {_some(labels)}.")
    return names[[position[value] for value in values.tolist()]]


def _check_readable(read, unfinished, path, dataset):
    try:
        _predictions(read(unfinished), dataset)
    except ValueError as error:
        raise ValueError(f"{path} would not be read as written: {error} An .npz file would.") from error


def _probabilities(scores, shape):
    """Return the scores in float64, each row divided by its sum, or say why they are none."""
    try:
        scores = np.asarray(scores).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"scores can't be read as numbers ({error}).") from error
    if scores.shape != shape:
        raise ValueError(f"scores have shape {scores.shape}; expected {shape}, (n_test, n_classes).")
    bad = np.flatnonzero(~np.isfinite(scores).all(1))
    if len(bad):
        raise ValueError(f"scores have NaN or infinity in {len(bad)} rows, {_some(bad)}; expected probabilities.")
    sums = scores.sum(1)
    bad = np.flatnonzero((scores < 0).any(1) | (np.abs(sums - 1) > _SUM_TOLERANCE))
    if len(bad):
        raise ValueError(
            f"scores are no probabilities in {len(bad)} rows, {_some(bad)}: from {scores[bad[0]].min():.3g} to "
            f"{scores[bad[0]].max():.3g} with sum {sums[bad[0]]:.3g} in the first. {_remedy(scores)}"
        )
    return scores / sums[:, None]


def _remedy(scores):
    if scores.max() <= 0 and np.allclose(np.exp(scores).sum(1), 1, atol=_SUM_TOLERANCE):
        return "They look like log-probabilities; apply exp."
    if scores.min() < 0 or scores.max() > 1:
        return "They look like logits; apply softmax."
    return "Expected rows that sum to one; sigmoids of one class each don't, a softmax over the classes does."


def _doubled(values):
    found, counts = np.unique(values, return_counts=True)
    return found[counts > 1].tolist()


def _some(values):
    values = np.asarray(values).tolist()
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
