"""The steps of a pipeline that take arrays to a GPU and back."""

import re
import sys

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from ._arrays import _usable_cupy, free_bytes, on_device, to_host
from ._sending import Streamed, sent

_SHARE = 1 / 4  # of the GPU's free memory, for images: kernels need several times as much beside them


class ToDevice(TransformerMixin, BaseEstimator):
    """Take arrays to a GPU: what follows in the pipeline runs there, as far as it can.

    uint8 images go over the bus as uint8, large arrays in pieces through two page-locked buffers, of which one is
    filled while the other is sent. Images that would take more than a quarter of the GPU's free memory stay on the
    host for now: the steps for images that follow send them part by part, the next part while the GPU computes.
    :class:`ToHost` is the way back, for steps that run on the CPU alone (random forests, ``KeypointSIFT``) and for
    scikit-learn's metrics.

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
            Of the same shape and dtype. Where X is images, an array (n, height, width[, channels]) or a list, of more
            than a quarter of the GPU's free memory, or flat rows of more than all of it: an object, or list of them,
            with that shape and dtype, which this package's steps for images take as they take a cupy.ndarray, and
            `ToHost` gives back as it was. Other steps, and NumPy's functions, refuse it with a TypeError.

        Raises
        ------
        MemoryError
            If X turns out to need more memory than the GPU has free.
        """
        several = isinstance(X, (list, tuple)) and len(X) > 0 and all(np.ndim(image) >= 2 for image in X)
        arrays = [_as_array(each) for each in (X if several else [X])]
        with _device(self.device):
            there = _to_device(arrays, _SHARE if several or arrays[0].ndim > 2 else 1)
        return there if several else there[0]

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


def _as_array(X):
    if isinstance(X, Streamed):
        return X.get()
    return X if on_device(X) else np.asarray(X)


def _to_device(arrays, share):
    """Return arrays on the current GPU; some on the host that take more than a share of its free memory go later."""
    cupy, free, n_bytes = sys.modules["cupy"], free_bytes(), sum(array.nbytes for array in arrays)
    if n_bytes > share * free and not any(map(on_device, arrays)):
        return [Streamed(array, cupy.cuda.Device().id) for array in arrays]
    try:
        return [sent(array) for array in arrays]
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise MemoryError(
            f"X takes {n_bytes / 2**20:.3g} MiB, and the GPU has {free / 2**20:.3g} MiB free. Give fewer images at a "
            "time: compute_features(model[:-1], X, folder) goes chunk by chunk."
        ) from error


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
