"""What a model costs: time for one image and for many, size, threads, memory."""

import ctypes
import gc
import pickle
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from joblib import cpu_count, effective_n_jobs

from .._images import positive_int

_ENOUGH = 1  # second of latencies
_SHORT = 10  # seconds: a batch that is predicted three times


@dataclass(frozen=True)
class Cost:
    """What :func:`measure_cost` found.

    Attributes
    ----------
    latency_ms : float
        Median time to predict one image, in milliseconds.
    images_per_second : float
        Images predicted in a second, where all come in one batch.
    model_bytes : int or None
        Size of the pickled model; None if it cannot be pickled.
    threads : int or None
        See :func:`threads`.
    cpus : int
        CPUs that this process may use.
    device : str
        The `device` parameter of the model or of one of its steps where there is one, else where the images lie: "cpu",
        or what CuPy and PyTorch call it.
    """

    latency_ms: float
    images_per_second: float
    model_bytes: int | None
    threads: int | None
    cpus: int
    device: str


def measure_cost(model, images, *, n_latency=20):
    """Measure what it takes to predict with a fitted model.

    Parameters
    ----------
    model : estimator
        Fitted; it takes images.
    images : array or list of images
        At least one.
    n_latency : int, default=20
        Images predicted one by one, at most; see :func:`latency_ms`.

    Returns
    -------
    cost : Cost

    Raises
    ------
    ValueError
        If there is no image, or `n_latency` is not a positive int.

    Examples
    --------
    >>> from classic_cls import load_digits, make_hog_svm
    >>> from classic_cls.benchmark.cost import measure_cost
    >>> digits = load_digits()
    >>> model = make_hog_svm(n_jobs=2).fit(digits.images[:200], digits.target[:200])
    >>> cost = measure_cost(model, digits.images[200:])
    >>> cost.latency_ms < 1000, cost.model_bytes > 10_000, cost.threads, cost.device
    (True, True, 2, 'cpu')
    """
    latency = latency_ms(model, images, n_latency)
    seconds, _ = timed_predict(model, images)
    return Cost(
        latency, len(images) / seconds, model_bytes(model), threads(model), cpu_count(), device_name(model, images)
    )


def latency_ms(model, images, n_latency=20):
    """Return the median time, in milliseconds, that a fitted model takes for one image.

    One prediction goes ahead to warm up. Then come the images one after another, until there were `n_latency`
    predictions or a second is over.

    Parameters
    ----------
    model : estimator
        Fitted.
    images : array or list of images
        At least one.
    n_latency : int, default=20
        Number of predictions.

    Returns
    -------
    milliseconds : float

    Raises
    ------
    ValueError
        If there is no image, or `n_latency` is not a positive int.
    """
    positive_int(n_latency, "n_latency")
    if len(images) == 0:
        raise ValueError("There is no image to predict; expected at least one.")
    model.predict(images[:1])
    seconds = []
    while len(seconds) < n_latency and sum(seconds) < _ENOUGH:
        k = len(seconds) % len(images)
        seconds.append(timed(partial(model.predict, images[k : k + 1]))[0])
    return 1000 * float(np.median(seconds))


def timed_predict(model, images):
    """Return the seconds that predicting a batch takes, the best of three if it is short, and the predictions."""
    predict = partial(model.predict, images)
    runs = [timed(predict)]
    while len(runs) < 3 and runs[0][0] < _SHORT:
        runs.append(timed(predict))
    return min(seconds for seconds, _ in runs), runs[0][1]


def timed(call):
    """Return the seconds that a call takes, and what it returns."""
    start = perf_counter()
    result = call()
    return perf_counter() - start, result


def model_bytes(model):
    """Return the size of the pickled model in bytes, or None if it cannot be pickled."""
    try:
        return len(pickle.dumps(model))
    except (pickle.PicklingError, AttributeError, TypeError):  # a lambda in a step, for one
        return None


def threads(model):
    """Return the threads (or processes) that a model asks for.

    Parameters
    ----------
    model : estimator
        Fitted or not.

    Returns
    -------
    threads : int or None
        The largest `n_jobs` of the model and its steps as joblib reads it: -1 is every CPU, None is 1 or what
        ``joblib.parallel_config`` says. 1 where there is no such parameter; None for what has no parameters at all.
        Threads of OpenMP and of the linear algebra library are not counted.

    Examples
    --------
    >>> from classic_cls import make_color_forest
    >>> from classic_cls.benchmark.cost import threads
    >>> threads(make_color_forest(n_jobs=3))
    3
    """
    if not hasattr(model, "get_params"):
        return None
    return max(map(effective_n_jobs, _parameters(model, "n_jobs")), default=1)


def _parameters(model, name):
    """Return the values of the parameters called `name` of a model and its steps."""
    params = getattr(model, "get_params", dict)()
    return [value for key, value in params.items() if key.split("__")[-1] == name]


def device_name(model, images):
    """Return where a model computes: its `device` parameter or that of a step, else where the images lie."""
    named = [str(device) for device in _parameters(model, "device") if device is not None]
    return named[0] if named else str(getattr(images, "device", "cpu"))


@dataclass
class PeakMemory:
    """What :func:`peak_memory` measures.

    Attributes
    ----------
    bytes : int or None
        The largest resident memory of this process during the block above what it had at the start of it. None before
        the end of the block, and where the system doesn't tell.
    """

    bytes: int | None = None


@contextmanager
def peak_memory():
    """Measure the memory that a block needs: the peak of this process's resident memory beyond what it had.

    Linux keeps that mark itself (``VmHWM``), so no peak is missed however short; it is put back at the start through
    ``/proc/self/clear_refs``, and ``ru_maxrss`` with it. Elsewhere there is no measurement. Blocks may be nested.
    Memory that the process holds but doesn't use is first given back to the system, as far as the C library can, so
    that it is counted when the block takes it. Memory of child processes is not counted.

    Yields
    ------
    memory : PeakMemory
        Its `bytes` are set at the end of the block.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls.benchmark.cost import peak_memory
    >>> with peak_memory() as memory:
    ...     total = np.ones(5_000_000).sum()
    >>> memory.bytes is None or 35e6 < memory.bytes < 60e6
    True
    """
    memory = PeakMemory()
    _raise_marks()
    start = _put_back_mark()
    block = _Block(start or 0)
    _open_blocks.append(block)
    try:
        yield memory
    finally:
        _raise_marks()
        _open_blocks.remove(block)
        memory.bytes = None if start is None else block.highest - start


@dataclass(eq=False)
class _Block:
    highest: int


_open_blocks = []  # the kernel keeps one mark for all of them


def _raise_marks():
    """Note the kernel's mark for every open block, before it is put back or the block ends."""
    for block in _open_blocks:
        block.highest = max(block.highest, _mark() or 0)


def _put_back_mark():
    """Lower the kernel's mark to the memory that is resident now, and return it; None where that can't be done."""
    if sys.platform != "linux":
        return None
    _give_back_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _mark()


def _give_back_memory():
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl hasn't
    if trim:
        trim(0)


def _mark():
    """Return the largest resident memory, in bytes, since the mark was put back; None where the system doesn't tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), None)
