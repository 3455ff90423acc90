"""Digests that tell two models, or two inputs, apart: the same in every process, whatever they were unpickled from."""

import hashlib
import os
from types import BuiltinFunctionType, FunctionType

import numpy as np
from sklearn.base import BaseEstimator

_NO_MATTER = ("n_jobs", "verbose", "memory")  # parameters that the features don't depend on
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), np.generic)


def fingerprint(value):
    """Return a SHA-256, in hexadecimal, of an estimator with its parameters and all that it has learned.

    Pickles of equal objects differ, by what is shared in them; so the object is walked instead. Raises TypeError for
    what has no lasting identity: lambdas, open files.
    """
    try:
        return _hexdigest(*_parts(value))
    except RecursionError:
        raise TypeError(f"{type(value).__name__} holds itself, so what it computes has no lasting name.") from None


def _parts(value):
    kind = type(value)
    if isinstance(value, _PLAIN):
        return kind.__name__, repr(value)
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return "name", _importable_name(value)
    if isinstance(value, np.ndarray):
        return "ndarray", value.dtype.str, str(value.shape), _content(value)
    if isinstance(value, BaseEstimator):
        state = {name: each for name, each in vars(value).items() if name not in _NO_MATTER}
        return _importable_name(kind), fingerprint(state)
    if isinstance(value, dict):
        return "dict", *sorted(fingerprint(name) + fingerprint(each) for name, each in value.items())
    if isinstance(value, (set, frozenset)):
        return kind.__name__, *sorted(map(fingerprint, value))
    if kind in (list, tuple):
        return kind.__name__, *map(fingerprint, value)
    return _importable_name(kind), *map(fingerprint, _state(value))


def _importable_name(value):
    name = f"{value.__module__}.{value.__qualname__}"
    if "<" in name:
        raise TypeError(f"{name} cannot be told from others of that name; use a function from a module's top level.")
    return name


def _content(array):
    if array.dtype.hasobject:
        return fingerprint(array.tolist())
    return hashlib.sha256(np.ascontiguousarray(array)).hexdigest()


def _state(value):
    """Return what `value` is made of, as pickle would take it apart."""
    try:
        state = value.__reduce_ex__(4)
    except TypeError as error:
        raise TypeError(f"{value!r:.80} has no lasting identity ({error}); keep it out of the transformer.") from error
    if isinstance(state, str):
        return [state]
    return [list(part) if i in (3, 4) and part is not None else part for i, part in enumerate(state)]


def _hexdigest(*parts):
    return hashlib.sha256("\0".join(f"{len(part)}:{part}" for part in parts).encode(errors="surrogatepass")).hexdigest()


def input_digests(X):
    """Return ``(n, 16)`` uint8: of an image a digest of its pixels, of a path one of where, how large and how old."""
    digests = [_path_digest(x) if isinstance(x, (str, os.PathLike)) else _image_digest(x) for x in X]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def _path_digest(path):
    try:
        status = os.stat(path)
        state = status.st_size, status.st_mtime_ns
    except OSError:
        state = "not there"  # reading says more
    return hashlib.blake2b(os.fsencode(os.path.abspath(path)) + f"\0{state}".encode(), digest_size=16).digest()


def _image_digest(image):
    image = np.asarray(image)
    digest = hashlib.blake2b(f"{image.dtype.str} {image.shape} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image))
    return digest.digest()
