"""Runs pipelines on a data set and records what came of it."""

import inspect
import numbers
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.base import clone, is_clusterer
from sklearn.dummy import DummyClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import Bunch

from .._images import as_pixels, take
from ..datasets import load_dataset
from ..features.resize import Resize
from ..onnx import OnnxClassifier
from ..pipelines import DEFAULT_PIPELINES, PIPELINES
from .corruptions import Robustness, robustness
from .cost import device_name, latency_ms, model_bytes, peak_memory, threads, timed, timed_predict
from .forecast import long_fit
from .predictions import Predictions, read_predictions
from .results import BenchmarkResult, Evidence
from .scores import classification_scores, clustering_scores, multilabel_scores

FLOORS = ("majority", "pixels-svm")
_SCORES = (
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "mean_average_precision",
    "adjusted_rand",
    "normalized_mutual_info",
    "matched_accuracy",
    "fit_seconds",
    "fit_peak_bytes",
    "predict_seconds",
    "images_per_second",
    "latency_ms",
    "model_bytes",
    "threads",
)


def run(
    pipelines=None,
    dataset="digits",
    *,
    against=None,
    corrupted=False,
    random_state=0,
    n_jobs=None,
    progress=None,
    announce=None,
):
    """Fit pipelines on a data set's training images and score them on its test images.

    Two floors are always among them: "majority" answers with the most frequent class, and "pixels-svm" is a
    linear SVM on standardised pixels (of pictures resized to 32 x 32 where they differ in size or are larger
    than 64 x 64).

    Parameters
    ----------
    pipelines : list of str or dict of str to estimator, default=None
        Names out of ``classic_cls.pipelines.PIPELINES``, or your own estimators that take images, by the
        names to list them under; they are cloned, not fitted in place. None means all of PIPELINES but "balanced" and
        "best", which take longer.
    dataset : str, path or Bunch, default="digits"
        What :func:`classic_cls.load_dataset` reads or returns.
    against : dict of str to str, path or Predictions, default=None
        Models from elsewhere, by the names to list them under: what they said of the test images, as
        :class:`Predictions` or a file (.npz or .csv) of them, see :func:`read_predictions`; or an .onnx file, which is
        run as :class:`classic_cls.OnnxClassifier`.
    corrupted : bool, default=False
        Whether to score classifiers on corrupted test images, too, see :func:`.robustness`; these are forty predictions
        of the whole test more.
    random_state : int or None, default=0
        Seed of the named pipelines, the floors, and the split of a folder. Estimators of your own keep
        theirs.
    n_jobs : int, default=None
        Threads or processes of the named pipelines.
    progress : callable, default=None
        Called as ``progress(done, total, name)`` before each pipeline, and at the end with ``name=None``.
    announce : callable, default=None
        Called as ``announce(name, forecast)`` before a fit that will take a minute or more; ``str(forecast)`` reads
        "about 9 min and 3.1 GiB". It comes from a short fit on 200 of the images, which is made only where there are
        2,000 or more.

    Returns
    -------
    result : BenchmarkResult
        Each record has ``dataset``, ``pipeline``, ``n_train``, ``n_test``; for classifiers ``accuracy`` with
        its 95 % Wilson interval ``accuracy_low`` and ``accuracy_high``, ``balanced_accuracy``, and where the
        target is an indicator matrix ``mean_average_precision``, see :func:`.scores.multilabel_scores`; for
        clusterers, which are asked for as many clusters as there are classes, ``adjusted_rand``,
        ``normalized_mutual_info`` and ``matched_accuracy`` (clusters matched to classes on the training
        images); ``fit_seconds``, ``fit_peak_bytes`` (the fit's peak memory beyond what the process held before; None
        where it cannot be measured, see :func:`.cost.peak_memory`), ``predict_seconds`` (best of three, if they are
        short), ``images_per_second`` of prediction, ``latency_ms`` (median time for one image), ``model_bytes`` of the
        pickled model (None if it cannot be pickled), ``threads`` (what ``n_jobs`` comes to, see
        :func:`.cost.threads`), ``device``, ``seed``, and ``error``. All scores are those of the test images. A
        pipeline that fails has its message in ``error`` and None for the numbers; the others still run. What the
        classifiers said of each test image is in ``evidence``, and ``report(path)`` makes a page of it all.

    Raises
    ------
    FileNotFoundError
        If `dataset` or a file of `against` does not exist.
    ValueError
        If a name is unknown or taken, the data set is not one, or predictions don't fit its test images.

    Examples
    --------
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from classic_cls import HOG, benchmark
    >>> own = make_pipeline(HOG(pixels_per_cell=4, cells_per_block=2), RidgeClassifier())
    >>> result = benchmark.run({"hog-ridge": own}, "digits")
    >>> result.table["pipeline"].tolist()
    ['hog-ridge', 'pixels-svm', 'majority']
    """
    if not isinstance(random_state, numbers.Integral | None):
        raise ValueError(f"random_state={random_state!r}; expected an int, or None.")
    random_state = None if random_state is None else int(random_state)
    makers = _chosen(pipelines, random_state, n_jobs)
    if not isinstance(dataset, Bunch):
        dataset = load_dataset(dataset, random_state=random_state)
    outside = _outside(against or {}, dataset, taken={*makers, *FLOORS})
    makers |= {name: maker for name, maker in outside.items() if callable(maker)}
    makers |= {"pixels-svm": partial(_pixels_svm, dataset, random_state), "majority": _majority}
    runs = {name: _from_predictions(name, dataset, given) for name, given in outside.items() if not callable(given)}
    for done, (name, make) in enumerate(makers.items()):
        if progress:
            progress(done, len(makers), name)
        runs[name] = _run_one(name, make, dataset, random_state, corrupted, announce)
    if progress:
        progress(len(makers), len(makers), None)
    return BenchmarkResult([run.record for run in runs.values()], _evidence(dataset, runs, tuple(outside)))


class _Run(NamedTuple):
    """One model's record, what it said of the test images if these are single labels, and of corrupted ones."""

    record: dict
    said: Predictions | None = None
    corrupted: tuple = ()


def _evidence(dataset, runs, outside):
    said = {name: run.said for name, run in runs.items() if run.said is not None}
    corrupted = [record for run in runs.values() for record in run.corrupted]
    return [Evidence(dataset, said, outside, Robustness(corrupted) if corrupted else None)] if said else []


def _outside(against, dataset, taken):
    """Return, by name, the predictions of models from elsewhere, or a function that makes the classifier."""
    doubled = sorted(set(against) & taken)
    if doubled:
        raise ValueError(f"against: {doubled[0]!r} is also the name of a pipeline; give the model another name.")
    if against and np.ndim(dataset.target) != 1:
        raise ValueError(
            f"against: the target has shape {np.shape(dataset.target)}; expected one label for each image, "
            "for models with several are not compared."
        )
    return {name: _from_elsewhere(source, dataset) for name, source in against.items()}


def _from_elsewhere(source, dataset):
    if isinstance(source, Predictions):
        if len(source.labels) != len(dataset.test):
            raise ValueError(f"There are {len(source.labels)} predictions for {len(dataset.test)} test images.")
        return source
    if Path(source).suffix.lower() != ".onnx":
        return read_predictions(source, dataset)
    if not Path(source).is_file():
        raise FileNotFoundError(f"There is no file {str(source)!r}.")
    return partial(_cloned, OnnxClassifier(source))


def _chosen(pipelines, random_state, n_jobs):
    """Return {name: function of the number of classes that makes the estimator}."""
    if isinstance(pipelines, dict):
        taken = sorted(set(pipelines) & set(FLOORS))
        if taken:
            raise ValueError(f"{taken[0]!r} is a floor that always runs; give your pipeline another name.")
        return {name: partial(_cloned, estimator) for name, estimator in pipelines.items()}
    names = check_names(pipelines)
    return {name: partial(_named, PIPELINES[name], random_state, n_jobs) for name in names}


def check_names(names):
    """Return `names`, or the default ones for None; raise a ValueError for one that is not in PIPELINES."""
    names = DEFAULT_PIPELINES if names is None else [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in PIPELINES:
            raise ValueError(f"There is no pipeline {name!r}; choose from {', '.join(PIPELINES)}.")
    return names


def _cloned(estimator, n_classes):
    return clone(estimator)


def _named(factory, random_state, n_jobs, n_classes):
    clusters = {"n_clusters": n_classes} if "n_clusters" in inspect.signature(factory).parameters else {}
    return factory(image_shape=None, n_jobs=n_jobs, random_state=random_state, **clusters)


def _majority(n_classes):
    return DummyClassifier(strategy="most_frequent")


def _pixels_svm(dataset, random_state, n_classes):
    sizes = {np.shape(image)[:2] for image in dataset.images}
    resize = [Resize((32, 32))] if len(sizes) > 1 or max(max(sizes)) > 64 else []
    svm = LinearSVC(C=0.01, random_state=random_state)
    classifier = OneVsRestClassifier(svm) if np.ndim(dataset.target) == 2 else svm
    return make_pipeline(*resize, FunctionTransformer(_pixel_rows), StandardScaler(), classifier)


def _pixel_rows(images):
    pixels = as_pixels(images)
    return pixels.reshape(len(pixels), -1).astype(np.float32)


def _record(name, dataset, seed):
    record = {"dataset": dataset.get("name", "custom"), "pipeline": name}
    record |= {"n_train": len(dataset.train), "n_test": len(dataset.test)}
    return record | dict.fromkeys(_SCORES) | {"device": "cpu", "seed": seed, "error": None}


def _from_predictions(name, dataset, said):
    return _Run(_record(name, dataset, None) | _right(dataset, said.labels), said)


def _run_one(name, make, dataset, seed, corrupted, announce):
    record = _record(name, dataset, seed)
    try:
        estimator = make(len(dataset.target_names))
        record["device"] = device_name(estimator, dataset.images)
        _announce(name, estimator, dataset, announce)
        scores, said = _measured(estimator, dataset)
        robust = robustness({name: estimator}, dataset).records if corrupted and said is not None else ()
        return _Run(record | scores, said, robust)
    except Exception as error:  # one failing pipeline must not lose the others
        return _Run(record | {"error": f"{type(error).__name__}: {error}"})


def _announce(name, estimator, dataset, announce):
    if announce is None or not isinstance(estimator, Pipeline):
        return
    expected = long_fit(estimator, take(dataset.images, dataset.train), dataset.target[dataset.train])
    if expected:
        announce(name, expected)


def _measured(estimator, dataset):
    X_train, X_test = (take(dataset.images, part) for part in (dataset.train, dataset.test))
    y_train = dataset.target[dataset.train]
    with peak_memory() as fit_memory:
        fit_seconds, _ = timed(lambda: estimator.fit(X_train, y_train))
    predict_seconds, predicted = timed_predict(estimator, X_test)
    said = None
    if is_clusterer(estimator):
        scores = clustering_scores(dataset.target[dataset.test], predicted, y_train, estimator.predict(X_train))
    elif np.ndim(y_train) == 2:
        scores = multilabel_scores(dataset.target[dataset.test], predicted, _label_scores(estimator, X_test))
    else:
        scores, said = _right(dataset, predicted), _said(estimator, predicted, X_test)
    costs = {
        "fit_seconds": fit_seconds,
        "fit_peak_bytes": fit_memory.bytes,
        "predict_seconds": predict_seconds,
        "images_per_second": len(X_test) / predict_seconds,
        "latency_ms": latency_ms(estimator, X_test),
        "model_bytes": model_bytes(estimator),
        "threads": threads(estimator),
    }
    return scores | costs, said


def _right(dataset, predicted):
    return classification_scores(dataset.target[dataset.test], predicted)


def _said(estimator, predicted, X):
    if not hasattr(estimator, "predict_proba"):
        return Predictions(predicted)
    return Predictions(predicted, estimator.predict_proba(X), estimator.classes_)


def _label_scores(estimator, X):
    if hasattr(estimator, "decision_function"):
        return estimator.decision_function(X)
    return np.column_stack([proba[:, -1] for proba in estimator.predict_proba(X)])  # a list, label by label
