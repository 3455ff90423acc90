"""Where arrays live: NumPy's in the host's memory, CuPy's on a GPU.

The array type of the input decides where a function runs, and the output is of the same type. A CUDA source lies beside
the Python file that uses it, is compiled when it is first needed, and never more than once per device. Only this file,
`_sending.py` and `to_device.py` know CuPy.
"""

import math
import re
import sys
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

import numpy as np

from ._sending import Streamed, sending

_PACKAGE = Path(__file__).parent
_C_TYPES = {"uint8": "unsigned char", "float32": "float", "float64": "double"}
_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.MULTILINE)
_MOST_BLOCKS = 2**31 - 1
_MOST_MEMORY = 4 << 30  # bytes that a batch may take: larger ones are no faster

SHARED_MEMORY = 48 << 10  # bytes that a thread block has on every GPU
WARP = 32
THREADS = 128  # per block; a multiple of WARP


def on_device(a):
    """Tell whether `a` is an array on a GPU, or meant for one, or a list of them."""
    cupy = sys.modules.get("cupy")
    if isinstance(a, (list, tuple)):
        return len(a) > 0 and on_device(a[0])
    return isinstance(a, (Streamed, getattr(cupy, "ndarray", Streamed)))


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
            needed, free = (n / 2**20 for n in (math.prod(shape) * np.dtype(dtype).itemsize, free_bytes()))
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
        raise TypeError(
            f"{who} runs on the CPU, and X lies on a GPU (cupy.ndarray, or what ToDevice() gave). Put ToHost() before "
            "it."
        )


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
def load_kernels(source, sizes=(), **names):
    """Return the kernels of a CUDA source of this package, e.g. "features/hog.cu".

    They are compiled for its names, which stand for types and ints, and for `sizes`, pairs of a name and an int: these
    only spare the GPU work, while a name decides what there is to compile.
    """
    return Kernels(kernel_code(source, sizes, **names))


def kernel_code(source, sizes=(), **names):
    """Return the text of a CUDA source, complete: it is compiled as it is."""
    defined = [_definition(*pair) for pair in names.items()]
    defined += [f"const int {name} = {value};\n" for name, value in sizes]
    return "".join(defined) + _with_headers(_PACKAGE / source)


def _with_headers(path):
    """Return a source's text, with that of its headers, from its folder or the package's, where it includes them."""
    text = path.read_text().replace("#pragma once\n", "")
    return _INCLUDE.sub(lambda found: _with_headers(_header(path.parent, found[1])), text)


def _header(folder, name):
    return next(path for path in (folder / name, _PACKAGE / name) if path.exists())


def _definition(name, value):
    if isinstance(value, int):
        return f"constexpr int {name} = {value};\n"
    return f"typedef {_C_TYPES[np.dtype(value).name]} {name};\n"


class Kernels:
    """The kernels of a CUDA source; CuPy compiles it once per device."""

    # Sums must not depend on which products the compiler fuses. Roots and quotients that must be exact say so.
    options = ("--std=c++17", "--fmad=false", "--prec-sqrt=false", "--prec-div=false")

    def __init__(self, code):
        self._function = lru_cache(sys.modules["cupy"].RawModule(code=code, options=self.options).get_function)

    def launch(self, name, n_blocks, *arguments, threads=None, shared=0):
        """Run a kernel on blocks of `threads`, each with `shared` bytes; an int goes as int32, a float as float32."""
        self._function(name)((n_blocks,), (threads or THREADS,), tuple(map(_scalar, arguments)), shared_mem=shared)


def _scalar(argument):
    if isinstance(argument, (bool, int)):
        return np.int32(argument)
    return np.float32(argument) if type(argument) is float else argument  # np.float64 is a float too


def blocks_for(n_threads):
    """Return the number of thread blocks for so many threads, or fewer: every kernel goes round until all is done."""
    return min(-(-n_threads // THREADS), _MOST_BLOCKS)


def threads_for(n_items, most=None):
    """Return how many threads of a block share so many items: whole warps."""
    return min(most or THREADS, -(-n_items // WARP) * WARP)


def constant(xp, make, *arguments):
    """Return the array that ``make(*arguments)`` makes, on the current GPU, where it is kept for the next call."""
    return _constant(xp, xp.cuda.Device().id, xp.cuda.get_current_stream().ptr, make, *arguments)


@lru_cache
def _constant(xp, device, stream, make, *arguments):
    return xp.asarray(make(*arguments))  # on its way: another stream gets its own


def count(numbers, n):
    """Return how often each of the integers from 0 to n - 1 occurs among `numbers`, which are no others."""
    xp = namespace(numbers)
    if not on_device(numbers):
        return xp.bincount(numbers, minlength=n)
    import cupyx

    counts = xp.zeros(n, np.int32)
    cupyx.scatter_add(counts, numbers, 1)  # bincount looks for other numbers first, which the host waits for
    return counts


def sum_of_squares(a):
    """Return the sum of an array's squares as a float; NaN or infinity where one of them is, or it is too large."""
    xp = namespace(a)
    if not on_device(a):
        return float(xp.vdot(a, a))
    return float(_squares(xp)(a))


@lru_cache
def _squares(xp):
    """Return the kernel; it takes a quarter of the time of ``vdot``."""
    return xp.ReductionKernel("T x", "T y", "x * x", "a + b", "y = a", "0", "classic_cls_sum_of_squares")


# --- Memory -----------------------------------------------------------------------------------------------------------


def for_device_batches(function, images, out, *, workspace):
    """Call ``function(images[s], out[s])`` for slices `s` whose arrays fit into the GPU's memory, and return `out`.

    `workspace` is about how many bytes an image needs there. Where it turns out that more are needed than there are,
    smaller slices follow. Raises MemoryError where a single image is too much. Images that lie on the host still are
    sent slice by slice: the next one while the GPU computes.
    """
    with images[0].device, sending(images) as send:
        start, size = 0, _batch_size(images, workspace)
        while start < len(images):
            if _fits(function, send, slice(start, min(start + size, len(images))), out):
                start += size
            elif size == 1:
                raise MemoryError(
                    f"Image {start} alone needs more memory than the GPU has free. ToHost() avoids the GPU."
                )
            else:
                size = -(-size // 2)
    return out


def _batch_size(images, workspace):
    if isinstance(images[0], Streamed):  # some lie there, others are on their way
        workspace += 2 * max(image.nbytes for image in images[:64])
    return max(1, min(len(images), min(free_bytes() // 2, _MOST_MEMORY) // workspace))


def free_bytes():
    """Return how many bytes the current GPU has free, those included that CuPy holds in reserve."""
    cupy = sys.modules["cupy"]
    return cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes()


def _fits(function, send, rows, out):
    cupy = sys.modules["cupy"]
    try:
        function(send(rows), out[rows])
    except cupy.cuda.memory.OutOfMemoryError:
        pass  # what the function had allocated is freed only after this
    else:
        return True
    cupy.get_default_memory_pool().free_all_blocks()
    return False
