"""A model in a file as ``predict`` and ``evaluate`` use it: it reads pictures as those that it learned were read."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from .._images import pair
from ..features.read_images import ReadImages, read_pictures
from ..persistence import inspect_model, load
from .common import UserError, warn

_PIXELS = 1 << 24  # in a batch of pictures
_PICTURES = 256  # in a batch
_ANY_SIZE = 32  # read at a time, where pictures keep their sizes: large ones may be among them


@dataclass(frozen=True)
class SavedModel:
    """A classifier of images, and how it reads pictures.

    Attributes
    ----------
    path : Path
        Of the file.
    classifier : estimator
        From images to classes.
    options : dict or None
        Of :func:`classic_cls.read_pictures`; None where the file does not say.
    """

    path: object
    classifier: object
    options: dict | None

    @property
    def classes(self):
        """The names of the classes, an array of str."""
        return np.asarray(self.classifier.classes_).astype(str)

    def check_reads(self):
        """Raise an error if the file does not say how to read pictures."""
        if self.options is None:
            raise UserError(
                f"{self.path} does not say what size and colour its images are to have. Expected a model of "
                "`classic-cls fit`, or a pipeline that starts with ReadImages."
            )

    def check_probabilities(self):
        """Raise an error if the classifier has none."""
        if not hasattr(self.classifier, "predict_proba"):
            last = self.classifier[-1] if isinstance(self.classifier, Pipeline) else self.classifier
            raise UserError(
                f"--proba: {self.path} has no probabilities, {type(last).__name__} gives none. Leave --proba out, or "
                "fit another pipeline, such as fast."
            )

    def read(self, paths, errors, ahead=True):
        """Read pictures batch by batch, whatever their number.

        Parameters
        ----------
        paths : iterable of str or path
        errors : {"raise", "skip"}
        ahead : bool, default=True
            Whether the next batch may be read while the caller works on one, where pictures are read on several
            threads. That also asks for paths ahead, so False is for paths that take their time.

        Returns
        -------
        batches : iterator of (paths, indices, images, skipped)
            As :func:`classic_cls.read_pictures` returns them for these paths.
        """
        batches = self._read(iter(paths), errors)
        return _ahead(batches) if ahead and effective_n_jobs(self.options.get("n_jobs")) > 1 else batches

    def _read(self, paths, errors):
        size = self.options["size"]
        while batch := list(islice(paths, _batch_size(size))):
            indices, images, skipped = read_pictures(batch, errors=errors, **self.options)
            while size is None and _has_room(batch, images) and (more := list(islice(paths, _ANY_SIZE))):
                found = read_pictures(more, errors=errors, **self.options)
                indices = np.concatenate([indices, len(batch) + found[0]])
                batch, images, skipped = batch + more, images + found[1], skipped + found[2]
            yield batch, indices, images, skipped

    def labels(self, images):
        """Return the class names of images."""
        labels = np.asarray(self.classifier.predict(images)).astype(str)
        if labels.ndim != 1:
            raise UserError(f"{self.path} gives an image several labels; expected a model with one for each.")
        return labels


def _has_room(batch, images):
    return len(batch) + _ANY_SIZE <= _PICTURES and sum(math.prod(image.shape[:2]) for image in images) < _PIXELS


def _ahead(batches):
    """Yield the batches; another thread is always at work on the next."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield batch


def _batch_size(size):
    if size is None:
        return _ANY_SIZE
    height, width = pair(size, "size")
    return min(_PICTURES, max(1, _PIXELS // (height * width)))


def load_saved_model(path, trusted):
    """Load a model, and find out how it reads pictures.

    Parameters
    ----------
    path : Path
    trusted : list of str
        As in :func:`classic_cls.load`.

    Returns
    -------
    model : SavedModel

    Raises
    ------
    OSError, ValueError, UserError
        If the file is no model, none of a classifier, or holds types that are not trusted.
    """
    info = inspect_model(path)
    refused = sorted(set(info.untrusted).difference(trusted))
    if refused:
        raise UserError(
            f"{path} holds types that are not trusted: {', '.join(refused)}. If you know who made the file, and that "
            f"these are harmless, add --trust {','.join([*trusted, *refused])}"
        )
    model = _load(path, trusted)
    if not is_classifier(model):
        raise UserError(f"{path} holds a {type(model).__name__} that is no classifier, but {_shown(model)}.")
    first = model[0] if isinstance(model, Pipeline) else None
    if isinstance(first, ReadImages):
        return SavedModel(path, model[1:], _without_errors(first.get_params()))
    about = info.metadata.get("user", {})
    known = "size" in about and "color" in about
    return SavedModel(path, model, {"size": about["size"], "color": about["color"]} if known else None)


def _load(path, trusted):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load(path, trusted=trusted)
    for each in caught:
        warn(f"warning: {each.message}")
    return model


def _shown(model):
    return " ".join(repr(model).split())[:100]


def _without_errors(options):
    return {name: value for name, value in options.items() if name != "errors"}
