"""Where arrays live: NumPy's in the host's memory, CuPy's on a GPU. The only file that knows CuPy.

The array type of the input decides where a function runs, and the output is of the same type. A CUDA source lies beside
the Python file that uses it, is compiled when it is first needed, and never more than once per device.
"""

import math
import re
import sys
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import gen_batches

_PACKAGE = Path(__file__).parent
_C_TYPES = {"uint8": "unsigned char", "float32": "float", "float64": "double"}
_MOST_BLOCKS = 2**31 - 1
_MOST_MEMORY = 4 << 30  # bytes that a batch may take: larger ones are no faster
_PINNED = 32 << 20  # bytes of a piece on its way to the GPU

SHARED_MEMORY = 48 << 10  # bytes that a thread block has on every GPU
WARP = 32
THREADS = 128  # per block; a multiple of WARP


def on_device(a):
    """Tell whether `a` is an array on a GPU, or a list of them."""
    cupy = sys.modules.get("cupy")
    if isinstance(a, (list, tuple)):
        return len(a) > 0 and on_device(a[0])
    return isinstance(a, getattr(cupy, "ndarray", ()))


def namespace(*arrays):
    """Return the module, NumPy or CuPy, whose arrays these are.

    Raises TypeError if some lie in the host's memory and others on a GPU.
    """
    where = {on_device(a) for a in arrays}
    if len(where) > 1:
        raise TypeError(
            "Some of the arrays lie in the host's memory (numpy) and others on a GPU (cupy); expected one kind. "
            "cupy.asarray, or the step ToDevice(), takes arrays to the GPU; cupy.asnumpy, or ToHost(), back."
        )
    return sys.modules["cupy"] if where == {True} else np


def to_host(a):
    """Return an array, or a list of arrays, as NumPy's; what does not lie on a GPU stays as it is."""
    if isinstance(a, list):
        return [to_host(each) for each in a]
    return a.get() if on_device(a) else a


def empty_beside(images, shape, dtype=np.float32):
    """Return an uninitialised array of the kind of `images`, on their device."""
    if not on_device(images):
        return np.empty(shape, dtype)
    cupy = namespace(*images[:1])
    with device_of(images):
        try:
            return cupy.empty(shape, dtype)
        except cupy.cuda.memory.OutOfMemoryError as error:
            needed, free = (n / 2**20 for n in (math.prod(shape) * np.dtype(dtype).itemsize, _free_bytes()))
            raise MemoryError(
                f"The result takes {needed:.3g} MiB, and the GPU has {free:.3g} MiB free. Give fewer images at a "
                "time, or put ToHost() before this step."
            ) from error


def device_of(images):
    """Return a context in which new arrays lie on the device of `images`."""
    return images[0].device if on_device(images) else nullcontext()


def refuse_device(X, who):
    """Raise TypeError if X lies on a GPU, for steps that run on the CPU alone."""
    if on_device(X):
        raise TypeError(f"{who} runs on the CPU, and X lies on a GPU (cupy.ndarray). Put ToHost() before it.")


# --- Steps of a pipeline ----------------------------------------------------------------------------------------------


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
            f"X takes {X.nbytes / 2**20:.3g} MiB, and the GPU has {_free_bytes() / 2**20:.3g} MiB free. Give fewer "
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


def _usable_cupy():
    try:
        import cupy
    except ImportError as error:
        raise ImportError(
            f"Arrays on a GPU are CuPy's, and it cannot be imported ({error}). Install it after the CUDA version that "
            'nvidia-smi shows: pip install "classic_cls[cuda12]" or pip install "classic_cls[cuda13]".'
        ) from error
    if not cupy.is_available():
        raise RuntimeError(_why_no_gpu(cupy.cuda.runtime))
    return cupy


def _why_no_gpu(runtime):
    driver, wanted = runtime.driverGetVersion() // 1000, runtime.runtimeGetVersion() // 1000
    if 0 < driver < wanted:
        return (
            f"This CuPy was built for CUDA {wanted}, and the driver supports CUDA {driver}. Exchange it: "
            f'pip uninstall cupy-cuda{wanted}x && pip install "classic_cls[cuda{driver}]", or renew the driver.'
        )
    missing = "no NVIDIA driver" if driver == 0 else "no GPU (nvidia-smi and CUDA_VISIBLE_DEVICES tell more)"
    return f"CuPy is installed, but it finds {missing}. Leave out ToDevice(), and everything runs on the CPU."


# --- Kernels ----------------------------------------------------------------------------------------------------------


@lru_cache
def load_kernels(source, **names):
    """Return the kernels of a CUDA source of this package, e.g. "features/hog.cu", with its names of types and ints."""
    return Kernels(kernel_code(source, **names))


def kernel_code(source, **names):
    """Return the text of a CUDA source, complete: it is compiled as it is."""
    defined = [_definition(*pair) for pair in names.items()]
    text, header = (_PACKAGE / source).read_text(), (_PACKAGE / "_cuda.cuh").read_text()
    return "".join(defined) + text.replace('#include "_cuda.cuh"\n', header.replace("#pragma once\n", ""))


def _definition(name, value):
    if isinstance(value, int):
        return f"constexpr int {name} = {value};\n"
    return f"typedef {_C_TYPES[np.dtype(value).name]} {name};\n"


class Kernels:
    """The kernels of a CUDA source; CuPy compiles it once per device."""

    # Sums must not depend on which products the compiler fuses. Roots and quotients that must be exact say so.
    options = ("--std=c++17", "--fmad=false", "--prec-sqrt=false", "--prec-div=false")

    def __init__(self, code):
        self._module = sys.modules["cupy"].RawModule(code=code, options=self.options)

    def launch(self, name, n_blocks, *arguments, threads=None, shared=0):
        """Run a kernel on blocks of `threads`, each with `shared` bytes; an int goes as int32, a float as float32."""
        kernel = self._module.get_function(name)
        kernel((n_blocks,), (threads or THREADS,), tuple(map(_scalar, arguments)), shared_mem=shared)


def _scalar(argument):
    if isinstance(argument, (bool, int)):
        return np.int32(argument)
    return np.float32(argument) if type(argument) is float else argument  # np.float64 is a float too


def blocks_for(n_threads):
    """Return the number of thread blocks for so many threads, or fewer: every kernel goes round until all is done."""
    return min(-(-n_threads // THREADS), _MOST_BLOCKS)


def threads_for(n_items):
    """Return how many threads of a block share so many items: whole warps."""
    return min(THREADS, -(-n_items // WARP) * WARP)


# --- Memory -----------------------------------------------------------------------------------------------------------


def for_device_batches(function, images, out, *, workspace):
    """Call ``function(images[s], out[s])`` for slices `s` whose arrays fit into the GPU's memory, and return `out`.

    `workspace` is about how many bytes an image needs there. Where it turns out that more are needed than there are,
    smaller slices follow. Raises MemoryError where a single image is too much.
    """
    with images[0].device:
        start, size = 0, _batch_size(len(images), workspace)
        while start < len(images):
            if _fits(function, images[start : start + size], out[start : start + size]):
                start += size
            elif size == 1:
                raise MemoryError(
                    f"Image {start} alone needs more memory than the GPU has free. ToHost() avoids the GPU."
                )
            else:
                size = -(-size // 2)
    return out


def _batch_size(n_images, workspace):
    return max(1, min(n_images, min(_free_bytes() // 2, _MOST_MEMORY) // workspace))


def _free_bytes():
    cupy = sys.modules["cupy"]
    return cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()


def _fits(function, images, out):
    cupy = sys.modules["cupy"]
    try:
        function(images, out)
    except cupy.cuda.memory.OutOfMemoryError:
        pass  # what the function had allocated is freed only after this
    else:
        return True
    cupy.get_default_memory_pool().free_all_blocks()
    return False
