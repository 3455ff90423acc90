"""A fitted model in one file, and back: nothing in the file is run."""

import importlib
import json
import operator
import platform
import warnings
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted

import classic_cls

from ._files import replacing
from ._model_file import METADATA, ModelFile, ModelInfo

_FORMAT = 1  # raise it when older versions could misread what `save` writes
_WEIGHTS = ("coef_", "intercept_", "cluster_centers_", "components_")  # never NaN, whatever the estimator


def save(model, path, *, metadata=None):
    """Write a fitted model to one file.

    The file is a zip in the format of `skops <https://skops.readthedocs.io>`_, with a member metadata.json: versions,
    time, parameters, and what `metadata` gives. pickle and joblib can write and read the models of this package too,
    but run whatever code a file holds: :func:`load` does not.

    Parameters
    ----------
    model : estimator
        Fitted: a Pipeline, a classifier, a descriptor. Of functions, those that can be imported by their names;
        no sparse matrices or bytes.
    path : str or path
        Usually ends in ``.skops``. An older file is replaced, and only by a whole one.
    metadata : dict of str to numbers, strings or lists of these, default=None
        Whatever should be known later, such as the number of training images or the accuracy.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    ValueError
        If the model holds what cannot be saved, or weights that are NaN or infinite; or metadata what JSON cannot say.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from classic_cls import load, load_faces, make_hog_svm, save
    >>> faces = load_faces()
    >>> model = make_hog_svm().fit(faces.images, faces.target)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(model, f"{folder}/faces.skops", metadata={"n_train": len(faces.images)})
    ...     again = load(f"{folder}/faces.skops")
    >>> bool((again.predict(faces.images) == model.predict(faces.images)).all())
    True
    """
    about = _about(model, metadata)
    with _replacing(Path(path)) as file:
        _dump(model, file, about)


def load(path, *, trusted=()):
    """Read a model that :func:`save` has written.

    No code of the file is run, and only types that are known to be harmless are constructed: the public estimators of
    this package, and those of scikit-learn that can be trusted without knowing who wrote the file. Memory and time
    stay in proportion to the file's size.

    Parameters
    ----------
    path : str or path
    trusted : sequence of str, default=()
        Full names of further types and functions, where you know who made the file. Forests, and all else built of
        scikit-learn's trees, need ``["sklearn.tree._tree.Tree"]``: a forged tree could crash the process. For the same
        reason :class:`sklearn.svm.SVC` and its like, nearest neighbours, histogram gradient boosting and NumPy's
        generators need their names. The error tells them.

    Returns
    -------
    model : estimator

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    ValueError
        If the file is damaged or no model, holds types that are not trusted, weights that are NaN or infinite, or was
        written by a newer version of this package in a format that this one doesn't know.

    Warns
    -----
    UserWarning
        If the model was fitted with another version of scikit-learn, or not written by :func:`save`.

    See Also
    --------
    inspect_model : What a file holds, without constructing it.

    Examples
    --------
    >>> from classic_cls import load
    >>> load("forest.skops", trusted=["sklearn.tree._tree.Tree"])
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'forest.skops'
    """
    trusted = _checked_names(trusted)
    with open(path, "rb") as file:
        with _damaged(path):
            content = ModelFile(file)
        _check_versions(content.metadata, path)
        return _construct(content, path, trusted)


def inspect_model(path):
    """Tell what a model file holds, without constructing anything of it.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    info : ModelInfo
        Its ``str`` is for people to read.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    ValueError
        If the file is damaged or no model.

    Examples
    --------
    >>> import tempfile
    >>> from classic_cls import HOG, inspect_model, load_faces, save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(HOG(orientations=8).fit(load_faces().images), f"{folder}/hog.skops")
    ...     info = inspect_model(f"{folder}/hog.skops")
    >>> info.metadata["model"], info.untrusted
    ('HOG(orientations=8)', [])
    """
    with open(path, "rb") as file, _damaged(path):
        content = ModelFile(file)
        untrusted = content.untrusted_types(_own_types(content.types))
        return ModelInfo(str(path), content.size, content.metadata or {}, untrusted, content.tree())


# --- Writing ----------------------------------------------------------------------------------------------------------


def _about(model, metadata):
    """Return what goes to metadata.json, as text."""
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise NotFittedError(f"{type(model).__name__} is not fitted; fit it first, then save it.") from error
    about = {
        "format": _FORMAT,
        "classic_cls": classic_cls.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": model.__repr__(N_CHAR_MAX=10_000),
        "user": metadata or {},
    }
    try:
        if not all(isinstance(name, str) for name in about["user"]):
            raise TypeError("a name is no string")
        return json.dumps(about, indent=2, allow_nan=False, default=operator.methodcaller("item"))
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"metadata={metadata!r}; expected a dict of names and numbers (not NaN), strings or lists ({error})."
        ) from error


@contextmanager
def _replacing(path):
    """Give a file to write that takes the place of `path` in the end, or leaves no trace."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to save {path.name!r} in; make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; expected a file to write or replace.")
    with replacing(path) as unfinished, open(unfinished, "w+b") as file:
        yield file


def _dump(model, file, about):
    import skops.io

    try:
        skops.io.dump(_with_checked_numbers(model), file)
        with ZipFile(file, "a") as archive:
            archive.writestr(METADATA, about)
        _check_importable(ModelFile(file).types)
    except OSError:
        raise
    except Exception as error:  # skops and the model's own parts raise many kinds
        raise ValueError(f"{type(model).__name__} cannot be saved: {_in_words(error)}.") from error


def _check_importable(types):
    for name in sorted(types):
        module, _, attribute = name.rpartition(".")
        if not hasattr(importlib.import_module(module), attribute):
            raise ValueError(
                f"it holds {name}, which cannot be imported by that name; expected functions and classes from the top "
                "level of a module, no lambda"
            )


# --- Reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def _damaged(path):
    """Turn all that reading a damaged or forged file may raise into a ValueError that names the file."""
    try:
        yield
    except Exception as error:  # zipfile, json, NumPy, skops and the estimators raise many kinds
        raise ValueError(
            f"{path} is damaged or no model: {_in_words(error)}. Expected a file that classic_cls.save wrote."
        ) from error


def _in_words(error):
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")


def _checked_names(trusted):
    if isinstance(trusted, (str, bool)) or not all(isinstance(name, str) for name in trusted):
        raise TypeError(f"trusted={trusted!r}; expected a list of names, such as ['sklearn.tree._tree.Tree'].")
    return list(trusted)


def _check_versions(metadata, path):
    if metadata is None:
        warnings.warn(
            f"{path} has no metadata, so classic_cls.save has not written it; with which versions is unknown.",
            stacklevel=3,
        )
        return
    if metadata["format"] > _FORMAT:
        raise ValueError(
            f"{path} was written by classic_cls {metadata['classic_cls']}, this is {classic_cls.__version__} and does "
            "not know that format; upgrade classic_cls."
        )
    if metadata["scikit-learn"] != sklearn.__version__:
        warnings.warn(
            f"{path} was written with scikit-learn {metadata['scikit-learn']}, this is {sklearn.__version__}; the "
            "model may answer differently, or fail. Install that version, or fit the model again.",
            stacklevel=3,
        )


def _construct(content, path, trusted):
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    allowed = [*trusted, *_own_types(content.types)]
    with _damaged(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)  # one for each estimator, after ours
        try:
            if content.unchecked_types().issubset(allowed):
                return _with_checked_numbers(skops.io.load(content.file, trusted=allowed))
        except UntrustedTypesFoundException:
            pass
        refused = content.untrusted_types(allowed)
    raise ValueError(
        f"{path} holds types that are not trusted: {', '.join(refused)}. If you know who made the file, and that "
        f"these are harmless, load it with trusted={trusted + refused}."
    )


def _own_types(types):
    """Return those of the named types that are public estimators of this package."""
    return [name for name in types if name.startswith("classic_cls.") and _is_own(name)]


def _is_own(name):
    short = name.rpartition(".")[2]
    found = getattr(classic_cls, short) if short in classic_cls.__all__ else None
    estimator = isinstance(found, type) and issubclass(found, BaseEstimator)
    return estimator and f"{found.__module__}.{found.__name__}" == name


def _with_checked_numbers(model):
    """Return the model if nothing in it would pass in silence, or crash compiled code that does not look."""
    if not isinstance(model, BaseEstimator):
        raise TypeError(f"expected an estimator, not {model!r:.80}")
    for estimator in _estimators(model, set()):
        own, kind = type(estimator).__module__.startswith("classic_cls."), type(estimator).__name__
        for name, value in vars(estimator).items():
            if (name in _WEIGHTS or (own and name.endswith("_"))) and not _is_finite(value):
                raise ValueError(f"{kind}.{name} holds NaN or infinity")
        shape = np.shape(getattr(estimator, "cluster_centers_", None))
        width = getattr(estimator, "n_features_in_", None)
        if shape and shape[1:] != (width,):  # k-means would read beyond the end
            raise ValueError(f"{kind}.cluster_centers_ has shape {shape}, but there are {width} features")
    return model


def _is_finite(value):
    floating = isinstance(value, float) or (isinstance(value, np.ndarray) and value.dtype.kind == "f")
    return not floating or bool(np.isfinite(value).all())


def _estimators(value, seen):
    """Yield the estimators that `value` is or holds, each once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, BaseEstimator):
        yield value
    if isinstance(value, (BaseEstimator, dict)):
        parts = (vars(value) if isinstance(value, BaseEstimator) else value).values()
    else:
        boxed = isinstance(value, np.ndarray) and value.dtype == object
        parts = value.flat if boxed else value if isinstance(value, (list, tuple)) else ()
    for part in parts:
        yield from _estimators(part, seen)
