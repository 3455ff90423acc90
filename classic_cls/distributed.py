"""More than one machine: fitted models applied to blocks of images, and fitted to blocks of features, by dask.

Images are a dask array chunked along its first axis, or a dask bag of paths. Estimators stay those of scikit-learn:
what is fitted here can be saved, loaded and used without dask.
"""

import copy
import io
from functools import partial

import numpy as np
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ._dask import (
    add_up,
    blocks_of,
    cut,
    each_block,
    gather,
    import_dask,
    in_blocks,
    is_array,
    known_sizes,
    one_block_wide,
    sizes_of,
)
from ._images import one_of, positive_int, take
from .ridge import RidgeLOOClassifier, _LeftOut, _normal_equations, _Problem

_METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


def transform_blocks(transformer, X):
    """Describe images block by block, on whichever dask cluster computes the result.

    Parameters
    ----------
    transformer : transformer or Pipeline
        Fitted: a descriptor, or a model's steps before the classifier, ``model[:-1]``. It is copied, and sent to each
        worker once. Leave its `n_jobs` at None: the workers are the threads.
    X : dask.array.Array of shape (n, height, width), (n, height, width, 3) or (n, n_features), or dask.bag.Bag
        Images or rows, of which a block is what a worker describes at a time; or paths (str or bytes of encoded
        pictures, also as a dask array of shape (n,)) for a Pipeline that begins with :class:`ReadImages`. Not even the
        lengths of the blocks need be known.

    Returns
    -------
    features : dask.array.Array of shape (n, n_features)
        Lazy, chunked as X along the first axis, n unknown of a bag; of the dtype that the transformer gives, float32
        of a descriptor. A descriptor's numbers are the bytes that it gives in memory; what multiplies matrices of all
        rows at once, as PCA and linear models do, may round differently.

    Raises
    ------
    ImportError
        If dask is not installed.
    NotFittedError
        If the transformer is not fitted.
    TypeError
        If X is no dask collection, or holds paths and the transformer takes images.
    ValueError
        If X has images of unknown size, or of another than the transformer was fitted on.

    See Also
    --------
    compute_blocks : Computes the result, and names a block that kills its workers.
    compute_features : On one machine, into a folder.

    Examples
    --------
    >>> import dask.array as da
    >>> from classic_cls import HOG, load_digits, transform_blocks
    >>> digits = load_digits()
    >>> hog = HOG(pixels_per_cell=4, cells_per_block=1).fit(digits.images)
    >>> transform_blocks(hog, da.from_array(digits.images, chunks=(500, -1, -1)))
    dask.array<HOG-transform, shape=(1797, 36), dtype=float32, chunksize=(500, 36), chunktype=numpy.ndarray>
    """
    return _map_blocks(transformer, "transform", X)


def predict_blocks(model, X, method="predict"):
    """Classify images block by block, on whichever dask cluster computes the result.

    Parameters
    ----------
    model : estimator or Pipeline
        Fitted, with that method; as in :func:`transform_blocks`.
    X : dask.array.Array or dask.bag.Bag
        As in :func:`transform_blocks`; or its result, for a classifier of features.
    method : {"predict", "predict_proba", "predict_log_proba", "decision_function"}, default="predict"
        What is called for each block.

    Returns
    -------
    predictions : dask.array.Array of shape (n,) or (n, n_classes)
        Lazy, chunked as X along the first axis; of the dtype that the method gives.

    Raises
    ------
    AttributeError
        If the model lacks the method.
    ImportError, NotFittedError, TypeError, ValueError
        As :func:`transform_blocks`.

    Examples
    --------
    >>> import dask
    >>> import dask.array as da
    >>> from classic_cls import load_faces, make_hog_svm, predict_blocks
    >>> faces = load_faces()
    >>> model = make_hog_svm().fit(faces.images[faces.train], faces.target[faces.train])
    >>> predictions = predict_blocks(model, da.from_array(faces.images[faces.test], chunks=(20, -1, -1)))
    >>> with dask.config.set(scheduler="synchronous"):
    ...     (predictions.compute() == model.predict(faces.images[faces.test])).all()
    np.True_
    """
    return _map_blocks(model, one_of(method, "method", _METHODS), X)


def compute_blocks(X):
    """Compute a dask array as ``X.compute()`` does, with a report where that fails for the workers.

    A block whose worker dies goes to another, as often as dask's ``distributed.scheduler.allowed-failures`` says.

    Parameters
    ----------
    X : dask.array.Array
        What :func:`transform_blocks` or :func:`predict_blocks` gives.

    Returns
    -------
    array : ndarray
        All blocks, on this machine.

    Raises
    ------
    RuntimeError
        If a block kills every worker that tries it: its number, and its first and last image or path. If the cluster
        has had no worker for 20 seconds, or what dask's ``distributed.scheduler.no-workers-timeout`` says.
    Exception
        What a block raises, such as ValueError for a picture that cannot be read.

    Examples
    --------
    >>> import dask
    >>> import dask.array as da
    >>> from classic_cls import compute_blocks
    >>> with dask.config.set(scheduler="synchronous"):
    ...     compute_blocks(da.arange(5, chunks=2) ** 2)
    array([ 0,  1,  4,  9, 16])
    """
    X = one_block_wide(X)
    return np.concatenate(gather(blocks_of(X), known_sizes(X)))


def sample_images(X, n_images, *, random_state=None):
    """Draw images from all blocks, to fit on one machine what needs no more than a sample: vocabularies, dictionaries.

    Parameters
    ----------
    X : dask.array.Array or dask.bag.Bag
        Images, paths or anything else with one row or item per image, such as their labels. Where its blocks' lengths
        are unknown, it is computed twice, first to count.
    n_images : int
        How many to draw, without replacement.
    random_state : int, RandomState or None, default=None
        The same int draws the same rows of any X of that length, however it is chunked: images, and their labels.

    Returns
    -------
    sample : ndarray of shape (n_images, ...), or list of length n_images
        In the order of X; a list from a bag.

    Raises
    ------
    ValueError
        If there are fewer images.
    ImportError, TypeError, RuntimeError
        As :func:`transform_blocks` and :func:`compute_blocks`.

    Examples
    --------
    >>> import dask
    >>> import dask.array as da
    >>> from classic_cls import BagOfVisualWords, load_textures, sample_images, transform_blocks
    >>> images = da.from_array(load_textures().images, chunks=(50, -1, -1))
    >>> with dask.config.set(scheduler="synchronous"):
    ...     sample = sample_images(images, 30, random_state=0)
    >>> words = BagOfVisualWords(n_words=20, random_state=0).fit(sample)
    >>> transform_blocks(words, images).shape[1]
    20
    """
    n_images, X = positive_int(n_images, "n_images"), one_block_wide(X)
    sizes = sizes_of(X)
    if sum(sizes) < n_images:
        raise ValueError(f"n_images={n_images}, and X holds {sum(sizes)}; draw no more than that.")
    chosen = np.sort(check_random_state(random_state).permutation(sum(sizes))[:n_images])
    parts = gather(each_block(take, blocks_of(X), in_blocks(chosen, sizes)), sizes)
    return np.concatenate(parts) if hasattr(X, "chunks") else [item for part in parts for item in part]


def fit_blocks(classifier, X, y):
    """Fit a least-squares classifier to blocks of features, by sums over the blocks: the fit to all rows, to rounding.

    Sums, then products of the centred features, are made on the workers and added up there; what comes back is one
    matrix (n_features, n_features), float64, and `max_left_out` rows. X is computed twice (three times where its
    blocks' lengths are unknown): ``X.persist()`` it where the cluster's memory suffices.

    Parameters
    ----------
    classifier : RidgeLOOClassifier
        Fitted here, as by its own ``fit``.
    X : dask.array.Array of shape (n, n_features)
        Features, such as :func:`transform_blocks` gives.
    y : array of shape (n,), or indicator matrix of shape (n, n_labels)
        Labels, in memory or as a dask array.

    Returns
    -------
    classifier : RidgeLOOClassifier
        The same, fitted.

    Raises
    ------
    TypeError
        If the classifier is another; fit that to :func:`sample_images` of the features.
    ValueError
        As :class:`RidgeLOOClassifier`, and if X and y differ in length.
    ImportError, RuntimeError
        As :func:`transform_blocks` and :func:`compute_blocks`.

    Examples
    --------
    >>> import dask
    >>> import dask.array as da
    >>> from classic_cls import HOG, RidgeLOOClassifier, fit_blocks, load_digits, predict_blocks, transform_blocks
    >>> digits = load_digits()
    >>> images = da.from_array(digits.images[digits.train], chunks=(500, -1, -1))
    >>> hog = HOG(pixels_per_cell=2, cells_per_block=2).fit(digits.images[:1])
    >>> with dask.config.set(scheduler="synchronous"):
    ...     ridge = fit_blocks(RidgeLOOClassifier(), transform_blocks(hog, images), digits.target[digits.train])
    >>> ridge.score(hog.transform(digits.images[digits.test]), digits.target[digits.test]) > 0.9
    True
    """
    if not isinstance(classifier, RidgeLOOClassifier):
        raise TypeError(
            f"{type(classifier).__name__} is not fitted by sums over blocks; expected RidgeLOOClassifier. Fit others "
            "to a sample: sample_images(X, n_images)."
        )
    X = _feature_blocks(X)
    sizes = sizes_of(X)
    y = check_array(np.asarray(y), ensure_2d=False, dtype=None, input_name="y")
    check_consistent_length(range(sum(sizes)), y)
    validate_data(classifier, np.empty((1, X.shape[1])), skip_check_array=True)  # remembers n_features_in_

    def make_problem(Y, weights, chosen):
        return _problem(X, sizes, Y, weights, chosen)

    return classifier._fit(y, X.dtype, make_problem)


# --- Models, block by block -------------------------------------------------------------------------------------------


def _map_blocks(model, method, X):
    """Return the dask array whose blocks are what the model's method gives of those of X."""
    dask, _ = import_dask()
    X = one_block_wide(X)
    none = _of_no_images(model, method, X)
    shared = dask.delayed(copy.deepcopy(model), pure=True, traverse=False)  # the user may fit it anew meanwhile
    blocks, function = blocks_of(X), partial(_of_block, method=method, none=none)
    name = f"{type(model).__name__}-{method}-{dask.base.tokenize(shared.key, blocks[0].key, function)}"
    zeros = (0,) * (none.ndim - 1)
    task = dask.delayed(function, pure=True, traverse=False)
    parts = [task(shared, block, dask_key_name=(name, i, *zeros)) for i, block in enumerate(blocks)]
    tasks = {part.key: part.dask[part.key] for part in parts}
    graph = dask.highlevelgraph.HighLevelGraph.from_collections(name, tasks, dependencies=[shared, *blocks])
    rows = X.chunks[0] if is_array(X) else (np.nan,) * len(blocks)
    return dask.array.Array(graph, name, (rows, *((k,) for k in none.shape[1:])), meta=none)


def _of_no_images(model, method, X):
    """Return what the method gives of no images, its shape and dtype found with a blank one; no task runs."""
    if not hasattr(model, method):
        raise AttributeError(f"{type(model).__name__} has no {method}.")
    check_is_fitted(model)
    if not _holds_paths(X):
        return np.asarray(getattr(model, method)(np.zeros((1, *X.shape[1:]), X.dtype)))[:0]
    try:
        return np.asarray(getattr(model, method)([_blank_picture(model)]))[:0]
    except TypeError as error:
        raise TypeError(
            f"X holds paths, and {type(model).__name__} takes none; expected a Pipeline that begins with "
            "ReadImages(size)."
        ) from error


def _blank_picture(model):
    """Return an encoded picture, of the size that the model's steps were fitted on if that matters."""
    from PIL import Image

    steps = [step for _, step in getattr(model, "steps", ())]
    height, width, _ = next((step.image_shape_ for step in steps if hasattr(step, "image_shape_")), (None,) * 3)
    file = io.BytesIO()
    Image.new("RGB", (width or 64, height or 64)).save(file, "PNG")
    return file.getvalue()


def _of_block(model, images, method, none):
    """Return what the method gives of a block, on a worker."""
    if len(images) == 0:
        return none
    rows = np.asarray(getattr(model, method)(images))
    if rows.shape[1:] != none.shape[1:] or rows.dtype != none.dtype:
        raise ValueError(
            f"{type(model).__name__}.{method} gave rows of shape {rows.shape[1:]}, {rows.dtype}, and for a blank image "
            f"{none.shape[1:]}, {none.dtype}; expected the same for all images."
        )
    return rows


# --- Least squares by sums over blocks --------------------------------------------------------------------------------


def _problem(X, sizes, Y, weights, chosen):
    """Return the normal equations that RidgeLOOClassifier solves, and the rows that it leaves out."""
    blocks, share = blocks_of(X), weights / weights.sum()
    parts = each_block(_mean_and_rows, blocks, cut(share, sizes), in_blocks(chosen, sizes))
    means, rows = zip(*gather(parts, sizes), strict=True)
    _check_finite(means)
    mean, target_mean = np.sum(means, axis=0).astype(X.dtype), share @ Y
    both = [(mean, target_mean)] * len(blocks)
    parts = each_block(_equations, blocks, cut(Y.astype(np.int8), sizes), cut(weights, sizes), both)
    ((gram, moments),) = gather([add_up(parts)], sizes)
    left_out = _LeftOut(np.concatenate(rows) - mean, Y[chosen], weights[chosen], share[chosen])
    return _Problem(mean, target_mean, gram, moments, sum(sizes), left_out)


def _mean_and_rows(X, share, chosen):
    return share.astype(np.float64) @ X, X[chosen]


def _equations(X, Y, weights, means):
    mean, target_mean = means
    return _normal_equations(X, Y - target_mean, mean, weights) if len(X) else (0.0, 0.0)


def _check_finite(means):
    bad = [i for i, mean in enumerate(means) if not np.isfinite(mean).all()]
    if bad:
        raise ValueError(f"X contains NaN or infinity in block {bad[0]}. Mend or drop those rows.")


def _feature_blocks(X):
    X = one_block_wide(X)
    if not is_array(X) or X.ndim != 2:
        raise ValueError(f"X is {X}; expected a dask array of features, (n, n_features).")
    return X if X.dtype in (np.float32, np.float64) else X.astype(np.float32)


def _holds_paths(X):
    return not is_array(X) or X.dtype.kind in "OU"
