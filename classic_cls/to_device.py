"""The steps of a pipeline that take arrays to a GPU and back."""

import math
import re
import sys

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import gen_batches

from ._arrays import _usable_cupy, free_bytes, on_device, to_host

_PINNED = 32 << 20  # bytes of a piece on its way to the GPU


class ToDevice(TransformerMixin, BaseEstimator):
    """Take arrays to a GPU: what follows in the pipeline runs there, as far as it can.

    uint8 images go over the bus as uint8, large arrays in pieces through two page-locked buffers, of which one is
    filled while the other is sent. :class:`ToHost` is the way back, for steps that run on the CPU alone (random
    forests, ``KeypointSIFT``) and for scikit-learn's metrics.

    Parameters
    ----------
    device : str, default="cuda"
        "cuda" is the current GPU, "cuda:1" the second one.

    See Also
    --------
    ToHost : The way back.

    Notes
    -----
    Needs CuPy: ``pip install "classic_cls[cuda12]"`` or ``"classic_cls[cuda13]"``, after the driver's CUDA version.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import LinearSVC
    >>> from classic_cls import HOG, ToDevice, ToHost
    >>> make_pipeline(ToDevice(), HOG(), ToHost(), LinearSVC()).steps[0]
    ('todevice', ToDevice())
    """

    def __init__(self, device="cuda"):
        self.device = device

    def fit(self, X, y=None):
        """Check that there is such a GPU.

        Parameters
        ----------
        X, y : ignored

        Returns
        -------
        self : ToDevice

        Raises
        ------
        ImportError
            If CuPy is not installed.
        RuntimeError
            If there is no GPU that CuPy can use, or none of that number.
        ValueError
            If `device` is not "cuda" or "cuda:" and a number.
        """
        _device(self.device)
        return self

    def transform(self, X):
        """Copy arrays to the GPU.

        Parameters
        ----------
        X : array or data frame, or list of arrays
            Numbers of any shape; what lies on that GPU already is not copied.

        Returns
        -------
        X : cupy.ndarray, or list of them
            Of the same shape and dtype.

        Raises
        ------
        MemoryError
            If X needs more memory than the GPU has free.
        """
        several = isinstance(X, (list, tuple)) and len(X) > 0 and all(np.ndim(image) >= 2 for image in X)
        with _device(self.device):
            return [_sent(image) for image in X] if several else _sent(X)

    def get_feature_names_out(self, input_features=None):
        """Return the names that came in."""
        return input_features

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        return _any_array(super().__sklearn_tags__())


class ToHost(TransformerMixin, BaseEstimator):
    """Take arrays from the GPU to the host's memory, as NumPy arrays; others stay as they are.

    See Also
    --------
    ToDevice : The way there.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import ToHost
    >>> ToHost().fit_transform(np.eye(2))
    array([[1., 0.],
           [0., 1.]])
    """

    def fit(self, X, y=None):
        """Do nothing.

        Parameters
        ----------
        X, y : ignored

        Returns
        -------
        self : ToHost
        """
        return self

    def transform(self, X):
        """Copy arrays to the host.

        Parameters
        ----------
        X : array, or list of arrays
            In CuPy's arrays or others.

        Returns
        -------
        X : ndarray, or list of them
            Of the same shape and dtype.
        """
        return to_host(X)

    def get_feature_names_out(self, input_features=None):
        """Return the names that came in."""
        return input_features

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        return _any_array(super().__sklearn_tags__())


def _sent(X):
    """Return an array as one on the current GPU."""
    cupy = sys.modules["cupy"]
    X = X if on_device(X) else np.asarray(X)
    try:
        return cupy.asarray(X) if on_device(X) or X.nbytes <= _PINNED else _sent_in_pieces(X)
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise MemoryError(
            f"X takes {X.nbytes / 2**20:.3g} MiB, and the GPU has {free_bytes() / 2**20:.3g} MiB free. Give fewer "
            "images at a time: compute_features(model[:-1], X, folder) goes chunk by chunk."
        ) from error


def _sent_in_pieces(X):
    """Copy an array to the current GPU; one piece is put into page-locked memory while another is on its way.

    CuPy alone would page-lock as much memory as X takes, and copy there first.
    """
    cuda, there = sys.modules["cupy"].cuda, sys.modules["cupy"].empty(X.shape, X.dtype)
    stream, n_rows = cuda.Stream(non_blocking=True), max(1, _PINNED // X[0].nbytes)
    stream.wait_event(cuda.get_current_stream().record())  # whose kernels may still use that memory
    buffers = [(_page_locked((n_rows, *X.shape[1:]), X.dtype), cuda.Event()) for _ in range(2)]
    for i, rows in enumerate(gen_batches(len(X), n_rows)):
        buffer, was_sent = buffers[i % 2]
        was_sent.synchronize()
        piece = buffer[: rows.stop - rows.start]
        piece[...] = X[rows]
        there[rows].set(piece, stream=stream)
        was_sent.record(stream)
    stream.synchronize()
    return there


def _page_locked(shape, dtype):
    n_bytes = math.prod(shape) * dtype.itemsize
    memory = sys.modules["cupy"].cuda.alloc_pinned_memory(n_bytes)
    return np.frombuffer(memory, dtype, math.prod(shape)).reshape(shape)


def _any_array(tags):
    tags.input_tags.three_d_array = True
    tags.input_tags.allow_nan = True
    tags.requires_fit = False
    return tags


def check_device_name(name):
    """Return the number in the name of a device, None for "cuda"; raise a ValueError if it is no such name."""
    found = re.fullmatch(r"cuda(?::([0-9]+))?", name) if isinstance(name, str) else None
    if not found:
        raise ValueError(f"device={name!r}; expected 'cuda', or 'cuda:1' for the second GPU.")
    return None if found[1] is None else int(found[1])


def _device(name):
    """Return CuPy's device of that name; raise if there is none."""
    number, cupy = check_device_name(name), _usable_cupy()
    number, count = cupy.cuda.Device().id if number is None else number, cupy.cuda.runtime.getDeviceCount()
    if number >= count:
        raise RuntimeError(f"device={name!r}, but there are {count} GPUs: 'cuda:0' to 'cuda:{count - 1}'.")
    return cupy.cuda.Device(number)
