"""Accuracy against the number of labels: how many a model needs."""

import base64
import json
import numbers
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from sklearn.base import clone, is_clusterer
from sklearn.utils import Bunch

from .._files import replacing
from .._images import positive_int, take
from ..datasets import load_dataset
from ..pipelines import PIPELINES
from .runner import check_names

SIZES = (10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class LabelEfficiency:
    """What :func:`label_efficiency` found.

    Attributes
    ----------
    records : list of dict
        One for each fit, of plain numbers and strings. The keys are listed in :func:`label_efficiency`.
    """

    records: list

    @property
    def table(self):
        """A :class:`pandas.DataFrame`, one row for each model and number of labels per class.

        Its columns are ``model``, ``labels_per_class``, ``n_labels``, ``seeds`` (how many), ``accuracy`` (their mean),
        ``spread`` (their standard deviation; NaN for one seed), ``lowest``, ``highest`` and ``fit_seconds`` (mean).
        Failed fits are left out.
        """
        import pandas as pd

        columns = ["model", "labels_per_class", "n_labels", "accuracy", "fit_seconds"]
        fits = pd.DataFrame([record for record in self.records if not record["error"]], columns=columns)
        in_order = dict.fromkeys(record["model"] for record in self.records)
        fits["model"] = pd.Categorical(fits["model"], in_order)
        rows = fits.groupby(["model", "labels_per_class"], observed=True).agg(
            n_labels=("n_labels", "first"),
            seeds=("accuracy", "count"),
            accuracy=("accuracy", "mean"),
            spread=("accuracy", "std"),
            lowest=("accuracy", "min"),
            highest=("accuracy", "max"),
            fit_seconds=("fit_seconds", "mean"),
        )
        return rows.reset_index().astype({"model": str})

    @property
    def failed(self):
        """The records of the fits that raised an error."""
        return [record for record in self.records if record["error"]]

    def to_json(self, path):
        """Write the records to `path`, a JSON list; an older file is replaced only by a whole one."""
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(self.records, indent=2, allow_nan=False) + "\n")

    @classmethod
    def from_json(cls, path):
        """Read what :meth:`to_json` wrote.

        Parameters
        ----------
        path : str or path
            The file.

        Returns
        -------
        result : LabelEfficiency

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is not one that :meth:`to_json` wrote.
        """
        try:
            records = json.loads(Path(path).read_text())
        except ValueError as error:  # not JSON, or not even text
            raise ValueError(f"{path} is not JSON ({error}); expected a file of LabelEfficiency.to_json.") from error
        if not isinstance(records, list) or not all(
            isinstance(row, dict) and set(row) == set(_KEYS) for row in records
        ):
            raise ValueError(f"{path} holds other JSON than LabelEfficiency.to_json writes; give another file.")
        return cls(records)


def label_efficiency(
    models, dataset, *, labels_per_class=SIZES, seeds=3, n_test=None, n_jobs=None, progress=None, done=None
):
    """Fit models on a few, more and many labelled images, and score each on the same test images.

    A model is fitted on K random training images of each class. These are the same for all models, others for each
    seed, and nested: with the same seed, the images of a smaller K are among those of a larger. A class that has fewer
    than K training images gives all of them (``n_labels`` tells how many images that makes); a K that not even the
    largest class has is left out.

    Parameters
    ----------
    models : dict of str to estimator or str, or list of str
        Classifiers of images, or names out of ``classic_cls.pipelines.PIPELINES``, by the names to list them under.
        They are cloned, and all that is called ``random_state`` in them, at any depth, is set to the seed.
    dataset : str, path or Bunch
        What :func:`classic_cls.load_dataset` reads or returns, with one label for each image.
    labels_per_class : sequence of int, default=(10, 20, 50, 100, 200, 500, 1000)
        The K.
    seeds : int or sequence of int, default=3
        The seeds, or how many: 3 means 0, 1 and 2.
    n_test : int, default=None
        Score on this many random test images, always the same; None means on all.
    n_jobs : int, default=None
        Threads of the named pipelines.
    progress : callable, default=None
        Called as ``progress(result, total, name)`` before each fit, with the LabelEfficiency so far, the number of
        records there will be and what is fitted next; and at the end with ``name=None``. To lose nothing when a long
        run is stopped, let it call ``result.to_json``.
    done : LabelEfficiency, default=None
        What an earlier run with this data set found. Its records are kept, of other models, too; a fit that is among
        them is not repeated unless it failed. The same name is taken for the same model.

    Returns
    -------
    result : LabelEfficiency
        Each record has ``dataset``, ``model``, ``labels_per_class``, ``n_labels`` (of all classes together), ``seed``,
        ``n_train`` (images to draw from), ``n_test``, ``accuracy`` in [0, 1], ``fit_seconds``, ``correct`` (which test
        images were right: 1 bit each, :func:`numpy.packbits`, in base 64) and ``error``. Where a model fails, its
        message is in ``error`` and None in place of the numbers; the others still run.

    Raises
    ------
    FileNotFoundError
        If `dataset` is a path that does not exist.
    TypeError
        If a model is no classifier.
    ValueError
        If a name is unknown, a parameter is out of range, images have several labels, or `done` is of other data.

    See Also
    --------
    crossing : From how many labels on one model is ahead of another.
    classic_cls.LabelEfficiencyDisplay : Draws the curves.

    Examples
    --------
    >>> from sklearn.dummy import DummyClassifier
    >>> from classic_cls.benchmark import label_efficiency
    >>> models = {"hog-svm": "hog-svm", "majority": DummyClassifier()}
    >>> result = label_efficiency(models, "faces", labels_per_class=[5, 20], seeds=2)
    >>> result.table[["model", "labels_per_class", "n_labels", "seeds"]]
          model  labels_per_class  n_labels  seeds
    0   hog-svm                 5        10      2
    1   hog-svm                20        40      2
    2  majority                 5        10      2
    3  majority                20        40      2
    """
    models = {name: _checked_model(model, n_jobs) for name, model in _by_name(models).items()}
    dataset = dataset if isinstance(dataset, Bunch) else load_dataset(dataset)
    sizes, seeds = _checked_sizes(labels_per_class, dataset), _checked_seeds(seeds)
    test = _checked_test(n_test, dataset)
    records = _kept(done, _about(dataset, test))
    finished = {(record["seed"], record["labels_per_class"], record["model"]) for record in records}
    jobs = [job for job in ((seed, k, name) for seed in seeds for k in sizes for name in models) if job not in finished]
    total = len(records) + len(jobs)
    for seed, k, name in jobs:
        if progress:
            progress(LabelEfficiency([*records]), total, f"{name}, {k} labels per class, seed {seed}")
        labelled = _labelled(dataset, k, seed)
        record = dict.fromkeys(_KEYS) | _about(dataset, test)
        record |= {"model": name, "labels_per_class": k, "n_labels": len(labelled), "seed": seed}
        records.append(record | _measured(models[name], dataset, labelled, test, seed))
    result = LabelEfficiency(records)
    if progress:
        progress(result, total, None)
    return result


_KEYS = (
    "dataset",
    "model",
    "labels_per_class",
    "n_labels",
    "seed",
    "n_train",
    "n_test",
    "accuracy",
    "fit_seconds",
    "correct",
    "error",
)


def _by_name(models):
    models = models if isinstance(models, dict) else {name: name for name in check_names(models)}
    if not models:
        raise ValueError("There are no models; expected one or more.")
    return models


def _checked_model(model, n_jobs):
    if isinstance(model, str):
        model = PIPELINES[check_names(model)[0]](n_jobs=n_jobs)
    if not (hasattr(model, "fit") and hasattr(model, "predict")) or is_clusterer(model):
        raise TypeError(f"A model is {model!r}; expected a classifier, with fit and predict, or the name of one.")
    return clone(model)


def _checked_sizes(sizes, dataset):
    if np.ndim(dataset.target) != 1:
        raise ValueError(f"The target has shape {np.shape(dataset.target)}; expected one label for each image.")
    sizes = sorted({positive_int(k, "labels_per_class") for k in sizes})
    largest = np.unique(dataset.target[dataset.train], return_counts=True)[1].max()
    possible = [k for k in sizes if k <= largest]
    if not possible:
        raise ValueError(f"labels_per_class={sizes}; expected a number up to {largest}, the size of the largest class.")
    return possible


def _checked_seeds(seeds):
    if isinstance(seeds, numbers.Integral):
        return list(range(positive_int(seeds, "seeds")))
    seeds = list(seeds)
    if not seeds or not all(isinstance(seed, numbers.Integral) and 0 <= seed < 2**32 for seed in seeds):
        raise ValueError(f"seeds={seeds!r}; expected how many, or ints from 0 to 4294967295.")
    return list(dict.fromkeys(map(int, seeds)))


def _checked_test(n_test, dataset):
    """Return the indices of the test images."""
    if n_test is None:
        return dataset.test
    if positive_int(n_test, "n_test") > len(dataset.test):
        raise ValueError(f"n_test={n_test}; expected at most {len(dataset.test)}, the number of test images.")
    return np.random.default_rng(0).permutation(dataset.test)[:n_test]


def _about(dataset, test):
    return {"dataset": dataset.get("name", "custom"), "n_train": len(dataset.train), "n_test": len(test)}


def _kept(done, about):
    """Return the records of `done` that need not be made again."""
    records = [] if done is None else [record for record in done.records if not record["error"]]
    for record in records:
        other = {key: record[key] for key in about}
        if other != about:
            raise ValueError(f"done has results of {other}, and this run is of {about}; start anew, without done.")
    return records


def _labelled(dataset, k, seed):
    """Return the indices of up to k training images of each class, in random order."""
    rng = np.random.default_rng(seed)
    target = dataset.target[dataset.train]
    members = [rng.permutation(dataset.train[target == label])[:k] for label in np.unique(target)]
    return rng.permutation(np.concatenate(members))


def _measured(model, dataset, labelled, test, seed):
    try:
        estimator = _seeded(model, seed)
        start = perf_counter()
        estimator.fit(take(dataset.images, labelled), dataset.target[labelled])
        seconds = perf_counter() - start
        correct = _correct(estimator.predict(take(dataset.images, test)), dataset.target[test])
    except Exception as error:  # one failing fit must not lose the others
        return {"error": f"{type(error).__name__}: {error}"}
    packed = base64.b64encode(np.packbits(correct)).decode()
    return {"accuracy": float(np.mean(correct)), "fit_seconds": seconds, "correct": packed}


def _seeded(model, seed):
    names = [name for name in model.get_params() if name.split("__")[-1] == "random_state"]
    return clone(model).set_params(**dict.fromkeys(names, seed))


def _correct(predicted, target):
    if np.shape(predicted) != target.shape:
        raise ValueError(f"predict returned shape {np.shape(predicted)}; expected {target.shape}, a class per image.")
    return np.asarray(predicted) == target
