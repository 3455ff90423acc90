"""Fits pipelines to more images than fit into memory."""

from contextlib import nullcontext

import numpy as np
from joblib import parallel_config
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state

from ._images import one_of, positive_int, take
from .feature_store import _checked_inputs, _checked_labels, compute_features
from .features.read_images import ReadImages, read_pictures


def fit_out_of_core(
    pipeline,
    X,
    y,
    folder,
    *,
    max_images=5000,
    chunk_size=1024,
    errors="raise",
    overwrite=False,
    n_jobs=None,
    random_state=0,
    progress=None,
):
    """Fit a pipeline to more images than fit into memory.

    All steps before the classifier learn from a sample of the images, with their labels: a vocabulary, principal
    components or a :class:`FlipAverage` need no more. The features of all images go to a folder, chunk by chunk
    (:func:`compute_features`), and the classifier learns from these as one memory-mapped array.

    In memory are the sample, or one chunk, and what the classifier makes of its array. :class:`LinearSVC`,
    :class:`RidgeLOOClassifier`, :class:`sklearn.linear_model.SGDClassifier` and random forests read it where it is;
    :class:`sklearn.svm.LinearSVC` copies it, at 16 bytes for each number that isn't zero.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        From images to classes, or, starting with :class:`ReadImages`, from paths to classes. Fitted in place.
    X : sequence of str or path, array, or list of images
        Paths where the pipeline starts with :class:`ReadImages`; else images, such as an array in a file,
        ``np.load(path, mmap_mode="r")``.
    y : array of shape (n,) or (n, n_labels)
        A label for each of X, numbers or strings.
    folder : str or path
        Where the features go: new, empty, or with what an interrupted call has left, which then goes on. That
        takes the same arguments, and an int as `random_state` of every step that draws at random. On the disk they
        take twice their size while the classifier is fitted. Afterwards ``FeatureStore.open(folder)`` reads them.
    max_images : int, default=5000
        The steps before the classifier learn from so many images, drawn at random, where there are more.
        Raise it for steps that learn more from more, such as :class:`RBFNystroem` with more landmarks.
    chunk_size : int, default=1024
        Images in a chunk.
    errors : {"raise", "skip"}, default="raise"
        What a picture does that cannot be read, whatever :class:`ReadImages` says; "skip" leaves it out, with its
        label, and warns.
    overwrite : bool, default=False
        Delete other features that the folder holds.
    n_jobs : int, default=None
        Number of threads, to read pictures and for the steps whose own `n_jobs` is None.
    random_state : int, RandomState or None, default=0
        Draws the sample.
    progress : callable, default=None
        Called as ``progress(stage, n_done, n)``; `n` is None where a stage is no counted one.

    Returns
    -------
    pipeline : sklearn.pipeline.Pipeline
        The same object, fitted. With no more than `max_images` images it is what ``pipeline.fit(X, y)`` gives.

    Raises
    ------
    TypeError
        If X holds paths and the pipeline doesn't read them, or the other way round.
    ValueError
        If the pipeline has no step before the classifier; if not one picture of the sample can be read.
    ValueError, OSError, FileExistsError
        As :func:`compute_features`.

    See Also
    --------
    compute_features : The features alone.

    Examples
    --------
    >>> import tempfile
    >>> from classic_cls import HOG, LinearSVC, fit_out_of_core, load_digits
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> digits = load_digits()
    >>> model = make_pipeline(HOG(pixels_per_cell=4, cells_per_block=1), PCA(20, random_state=0), LinearSVC())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model = fit_out_of_core(model, digits.images, digits.target, folder, max_images=500)
    >>> model.score(digits.images, digits.target) > 0.7
    True
    """
    X, paths = _checked_inputs(X)
    y = _checked_labels(y, len(X))
    one_of(errors, "errors", ("raise", "skip"))
    reading = _reading(pipeline, paths)
    features = _steps_before_the_classifier(pipeline)
    show = progress or (lambda stage, n_done, n: None)
    with nullcontext() if n_jobs is None else parallel_config(n_jobs=n_jobs):
        chosen = _drawn(len(X), positive_int(max_images, "max_images"), random_state)
        show(f"learning features from {len(chosen):,} images", 0, None)
        features.fit(*_sample(X, y, chosen, reading, errors))
        show("computing features", 0, len(X))
        store = compute_features(
            features,
            X,
            folder,
            y,
            chunk_size=chunk_size,
            errors=errors,
            overwrite=overwrite,
            progress=lambda n_done, n: show("computing features", n_done, n),
            **(reading or {}),
        )
        show(f"fitting {type(pipeline[-1]).__name__}", 0, None)
        with store.memmap() as rows:
            pipeline[-1].fit(rows, store.labels)
    pipeline.steps[-1 - len(features) : -1] = features.steps  # a pipeline with a memory has fitted copies
    return pipeline


def _reading(pipeline, paths):
    """Return the options of the pipeline's first step if that reads pictures."""
    reads = isinstance(pipeline[0], ReadImages)
    if paths and not reads:
        raise TypeError("X holds paths, which the pipeline does not read; put ReadImages(size) before its first step.")
    if reads and not paths:
        raise TypeError("The pipeline starts with ReadImages, which reads paths, and X holds other things.")
    return {name: getattr(pipeline[0], name) for name in ("size", "color", "max_pixels", "draft")} if reads else None


def _steps_before_the_classifier(pipeline):
    steps = pipeline.steps[1:-1] if isinstance(pipeline[0], ReadImages) else pipeline.steps[:-1]
    if not steps:
        raise ValueError(f"{pipeline!r:.200} has no step from images to features; expected one before the classifier.")
    return Pipeline(steps, memory=pipeline.memory)


def _drawn(n, max_images, random_state):
    """Return which of `n` images are the sample, in their order: all, where that is no more than `max_images`."""
    return np.sort(check_random_state(random_state).permutation(n)[:max_images])


def _sample(X, y, chosen, reading, errors):
    some = take(X, chosen)
    if reading is None:
        return some, y[chosen]
    indices, images, skipped = read_pictures(some, errors=errors, **reading)
    if len(indices) == 0:
        raise ValueError(f"No picture of the sample could be read; the first, {skipped[0].path}, {skipped[0].reason}")
    return images, y[chosen[indices]]
