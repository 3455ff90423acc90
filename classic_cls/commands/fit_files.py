"""``classic-cls fit`` of many pictures: they are read when they are needed, and their features wait on the disk."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from sklearn import svm
from sklearn.pipeline import FeatureUnion, Pipeline

from ..benchmark.scores import classification_scores
from ..datasets import EMBEDDED, check_classes, list_image_folder
from ..feature_store import FeatureStore
from ..features.color_histogram import ColorHistogram
from ..features.hog import HOG
from ..features.read_images import ReadImages
from ..features.resize import Resize
from ..out_of_core import fit_out_of_core
from ..svm import LinearSVC
from .common import UserError
from .evaluate import predict_files
from .progress import stages
from .saved_model import SavedModel
from .training_data import available_bytes, bytes_of_one, check_left, labelled_files

_CHUNK, _CHUNK_BYTES = 1024, 1 << 27  # pictures of a chunk, at most
_FEW, _FEW_BYTES = 5000, 1 << 28  # pictures that are not worth a store


@dataclass(frozen=True)
class TrainingFiles:
    """Pictures in files, with the names of their classes.

    Attributes
    ----------
    name : str
        What the user called the folder.
    files_train, files_test : list of Path
    y_train, y_test : ndarray of str
        Of the files; after the fit, of those that could be read.
    reader : ReadImages
        The step that reads them.
    skipped : tuple of Skipped
    key : str or None
        After the fit: tells the features, their files' sizes and times among them, from others.
    """

    name: str
    files_train: list
    y_train: np.ndarray
    files_test: list
    y_test: np.ndarray
    reader: ReadImages
    skipped: tuple = ()
    key: str | None = None

    @property
    def described(self):
        """One line for the user."""
        counts = f"{len(self.y_train):,} pictures of {len(np.unique(self.y_train))} classes to train"
        return f"{counts}, {len(self.y_test):,} to test" if len(self.y_test) else f"{counts}, no test part"

    @property
    def about(self):
        """What is saved with the model: plain numbers, strings and lists."""
        return {
            "data": self.name,
            "n_train": len(self.y_train),
            "n_skipped": len(self.skipped),
            "classes": np.unique(self.y_train).tolist(),
            "size": self.reader.size and [self.reader.size] * 2,
            "color": self.reader.color,
            "features": self.key,
        }


def needs_store(pipeline, data, size):
    """Tell whether the pictures would fill the memory for nothing: no step before the classifier learns from them.

    Parameters
    ----------
    pipeline : Pipeline
        From images to classes.
    data : str
        What the user wants to learn.
    size : int or None
        Height and width that pictures are resized to.
    """
    if not _is_folder(data) or any(_learns(step) for step in pipeline[:-1]):
        return False
    files = labelled_files(list_image_folder(data).values())[0]
    return len(files) > _FEW or len(files) * bytes_of_one(files, size) > _FEW_BYTES


def _learns(step):
    if isinstance(step, (FeatureUnion, Pipeline)):
        parts = step.steps if isinstance(step, Pipeline) else step.transformer_list
        return any(_learns(part) for _, part in parts)
    return not isinstance(step, (ColorHistogram, HOG, Resize))


def _is_folder(data):
    return data not in EMBEDDED and Path(data).is_dir()


def fit_files(pipeline, arguments, store):
    """Fit a pipeline to the pictures of a folder, through a feature store.

    Parameters
    ----------
    pipeline : Pipeline
        From images to classes.
    arguments : Namespace
        Of ``classic-cls fit``.
    store : Path
        The store's folder.

    Returns
    -------
    model : Pipeline
        From paths to classes.
    data : TrainingFiles
    seconds : float
    scores : dict
        Of the test part; empty if there is none.
    """
    data = _list_files(arguments)
    chunk_size = _chunk_size(data, arguments.max_images)
    print(f"{data.name}: {data.described}", flush=True)
    model = Pipeline([("read", data.reader), *pipeline.steps[:-1], (pipeline.steps[-1][0], _in_place(pipeline[-1]))])
    start = perf_counter()
    with stages() as progress, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* pictures are left out")  # they are named in the end
        options = {"errors": arguments.errors, "n_jobs": arguments.n_jobs, "overwrite": arguments.overwrite}
        options |= {"max_images": arguments.max_images, "chunk_size": chunk_size, "random_state": arguments.seed}
        fit_out_of_core(model, data.files_train, data.y_train, store, progress=progress, **options)
    seconds = perf_counter() - start
    data = _after_the_fit(data, FeatureStore.open(store))
    return model, *_tested(model, data, arguments, seconds)


def _list_files(arguments):
    if not _is_folder(arguments.data):
        raise UserError(f"--store is for folders of pictures, and {arguments.data} is none. Leave it out.")
    parts = list_image_folder(arguments.data)
    check_classes(Path(arguments.data), parts, least=1)
    train, test = (labelled_files([folder]) for folder in (parts.get("train", parts.get("")), parts.get("test", {})))
    reader = ReadImages(arguments.size, draft=arguments.draft, n_jobs=arguments.n_jobs)
    return TrainingFiles(arguments.data, *train, *test, reader)


def _chunk_size(data, max_images):
    """Return how many pictures to have in memory at a time, or say that the sample does not fit."""
    each = bytes_of_one(data.files_train, data.reader.size)
    n, available = min(max_images, len(data.files_train)), available_bytes()
    if n * each > available:
        raise UserError(
            f"The {n:,} pictures that features are learned from take about {n * each / 1e9:,.1f} GB as images, and "
            f"{available / 1e9:,.1f} GB of memory are available; a smaller --size or --max-images takes less."
        )
    return int(min(_CHUNK, max(1, _CHUNK_BYTES // max(each, 1))))


def _in_place(classifier):
    """Return a classifier that learns the same without a copy of the features, where there is one."""
    if isinstance(classifier, svm.LinearSVC):
        return LinearSVC(classifier.C, tol=classifier.tol, max_iter=classifier.max_iter)
    return classifier


def _after_the_fit(data, store):
    check_left(data.y_train.tolist(), store.labels, store.skipped)
    return replace(data, y_train=store.labels, skipped=store.skipped, key=store.manifest["key"])


def _tested(model, data, arguments, seconds):
    """Return the data without what of the test part could not be read, the seconds, and the scores of the rest."""
    if not data.files_test:
        return data, seconds, {}
    reading = {name: value for name, value in data.reader.get_params().items() if name != "errors"}
    saved = SavedModel(arguments.output, model[1:], reading)
    kept, predicted, failed = predict_files(saved, data.files_test, arguments.errors, "testing")
    labels = data.y_test[kept]
    scores = {"n_test": len(labels)} | classification_scores(labels, predicted)
    return replace(data, y_test=labels, skipped=(*data.skipped, *failed)), seconds, scores
