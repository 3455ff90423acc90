"""Reads what models said: labels and confidences, checked against the test images."""

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.multiclass import unique_labels

_ROUNDING = 1e-6  # of float32 probabilities


def read_labels(target, predictions):
    """Return the target, {model: labels}, and the sorted classes of all."""
    target = _column(target, "target")
    labels = {name: _column(prediction.labels, name) for name, prediction in predictions.items()}
    for name, said in labels.items():
        if len(said) != len(target):
            raise ValueError(
                f"{name} has {len(said)} labels and the target has {len(target)}; expected one for each test image."
            )
    known = [prediction.classes for prediction in predictions.values() if prediction.classes is not None]
    return target, labels, unique_labels(target, *labels.values(), *known)


def _column(labels, name):
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(
            f"The labels of {name!r} have shape {labels.shape}; expected (n_test,), one label for each test image. "
            "Images with several labels are not supported here."
        )
    return labels


def class_names(labels, target_names=None):
    """Return the names of labels: the labels themselves, or the entries of `target_names` that they are indices of."""
    if target_names is None:
        return np.asarray(labels)
    labels, target_names = np.asarray(labels), np.asarray(target_names)
    if labels.dtype.kind not in "biu":
        raise ValueError(
            f"target_names has names for labels 0, 1, 2 and so on, and the labels are {labels.dtype}; leave it out."
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < len(target_names):
        raise ValueError(
            f"target_names has {len(target_names)} names, and there are labels from {labels.min()} to {labels.max()}; "
            "expected a name for each label."
        )
    return target_names[labels.astype(int)]


def read_confidence(target, prediction):
    """Return the target, the labels, and the probability that the model gives to the label it says."""
    target, labels, _ = read_labels(target, {"prediction": prediction})
    labels = labels["prediction"]
    if prediction.scores is None or prediction.classes is None:
        raise ValueError(
            "The prediction has no scores, or no classes that say what their columns are; confidence needs "
            "probabilities, (n_test, n_classes). A classifier without predict_proba gets it from scikit-learn's "
            "CalibratedClassifierCV."
        )
    scores, classes = check_array(prediction.scores, dtype=np.float64, input_name="scores"), prediction.classes
    column = {label: k for k, label in enumerate(np.asarray(classes).tolist())}
    _check_scores(scores, column, labels)
    said = scores[np.arange(len(labels)), [column[label] for label in labels.tolist()]]
    return target, labels, said.clip(0, 1)


def _check_scores(scores, classes, labels):
    if scores.shape != (len(labels), len(classes)):
        raise ValueError(
            f"The scores have shape {scores.shape}; expected {(len(labels), len(classes))}, a row for each test image "
            "and a column for each class."
        )
    if scores.min() < -_ROUNDING or scores.max() > 1 + _ROUNDING:
        raise ValueError(f"The scores range from {scores.min():.6g} to {scores.max():.6g}; expected probabilities.")
    strange = sorted(set(labels.tolist()) - set(classes))
    if strange:
        raise ValueError(f"The label {strange[0]!r} is predicted, and no column of the scores is its own.")
