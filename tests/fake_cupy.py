"""CuPy without a GPU: arrays that NumPy cannot see, and kernels that run on the CPU.

As strict as CuPy where code written for NumPy goes wrong on a GPU: no conversion to NumPy but by ``get``, no mixing of
the two but for scalars, reductions that give arrays, no ``initial=``. What is allocated holds NaN. Sums that would
depend on the order in which threads come are refused.

Kernels run at once, asynchronous copies as late as can be: when the current stream waits for them, or the host.
`history` tells what was launched, and `problems` what no result shows.
"""

import itertools
import sys
import weakref
from types import ModuleType, SimpleNamespace

import cuda_on_cpu
import numpy as np
import scipy.linalg
from sklearn.externals import array_api_compat
from sklearn.externals.array_api_compat.common import _helpers

from classic_cls import _arrays
from classic_cls.features._hog_tiles import tiles_for

history = []  # ("kernel", when), ("copy", for what was launched until when it waits), ("wait",): the host for a result
problems = []


class ndarray:
    """An array on the device."""

    __hash__ = None

    def __init__(self, hidden):
        self._hidden = hidden

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return _on_hidden(getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        return _on_hidden(function, args, kwargs)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)  # such as __array_interface__, by which NumPy would read what is hidden
        attribute = getattr(self._hidden, name)
        if callable(attribute):
            return lambda *args, **kwargs: _on_hidden(attribute, args, kwargs)
        return _wrapped(attribute)

    def get(self):
        history.append(("wait",))
        return self._hidden.copy()

    def set(self, array, stream):
        """Copy an array on the host, later: when the stream comes to it."""
        if (array.shape, array.dtype) != (self.shape, self.dtype) or not array.flags.c_contiguous:
            raise ValueError(f"{array.shape} {array.dtype} for {self.shape} {self.dtype}")
        if not isinstance(_memory(array), PageLocked):
            raise ValueError("an asynchronous copy from memory that is not page-locked")
        if not self._hidden.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        if _allocated.get(id(_owner(self._hidden)), 0) > stream.waited_for:
            raise RuntimeError("the current stream may still use what lay in this memory before")
        history.append(("copy", stream.waited_for))
        stream.work.append(Copy(_Place(array, _memory(array)), _Place(self._hidden, _owner(self._hidden))))

    @property
    def device(self):
        return Device(0)

    @property
    def data(self):
        return SimpleNamespace(ptr=self._hidden.ctypes.data)

    def __getitem__(self, index):
        return _on_hidden(self._hidden.__getitem__, (index,), {})

    def __setitem__(self, index, value):
        _on_hidden(self._hidden.__setitem__, (index, value), {})

    def __len__(self):
        return len(self._hidden)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self):
        history.append(("wait",))
        return bool(self._hidden)

    def __float__(self):
        history.append(("wait",))
        return float(self._hidden)

    def __int__(self):
        history.append(("wait",))
        return int(self._hidden)

    def __index__(self):
        return self._hidden.__index__()

    def __repr__(self):
        return repr(self._hidden)


def _forward(name):
    def method(self, *others):
        return _on_hidden(getattr(self._hidden, name), others, {})

    setattr(ndarray, name, method)


for _operator in ("add", "sub", "mul", "truediv", "floordiv", "pow", "mod", "matmul", "and", "or", "xor"):
    for _prefix in ("", "r", "i"):
        _forward(f"__{_prefix}{_operator}__")
for _operator in ("neg", "abs", "invert", "eq", "ne", "lt", "le", "gt", "ge"):
    _forward(f"__{_operator}__")


def _on_hidden(function, args, kwargs):
    if "initial" in kwargs:
        raise TypeError("CuPy's reductions take no initial=")
    return _wrapped(function(*map(_unwrapped, args), **{k: _unwrapped(v) for k, v in kwargs.items()}))


def _unwrapped(value):
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrapped(v) for v in value)
    return value._hidden if isinstance(value, ndarray) else value


def _wrapped(value):
    if isinstance(value, (tuple, list)) and any(isinstance(v, np.ndarray) for v in value):
        return getattr(value, "_make", type(value))(_wrapped(v) for v in value)
    return ndarray(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic)) else value


class Stream:
    """Work that waits until it is asked for: whoever comes too early sees what was there before."""

    ptr = 0

    def __init__(self, non_blocking=False):
        self.work, self.waited_for = [], 0

    def record(self):
        event = Event()
        event.record(self)
        return event

    def wait_event(self, event):
        if isinstance(event.stream, CurrentStream):
            self.waited_for = max(self.waited_for, event.time)

    def synchronize(self):
        self.record().synchronize()


class CurrentStream(Stream):
    """Where kernels run, each at once."""

    def wait_event(self, event):
        for copy in event.stream.work[: event.n_before]:
            copy.run()


class Event:
    """A place in a stream's work."""

    def __init__(self):
        self.stream = None

    def record(self, stream=None):
        stream = stream or sys.modules["cupy"].current
        self.stream, self.n_before, self.time = stream, len(stream.work), next(_clock)

    def synchronize(self):
        if isinstance(self.stream, CurrentStream):
            history.append(("wait",))
        elif self.stream:
            for copy in self.stream.work[: self.n_before]:
                copy.finish()


class Copy:
    """A copy from page-locked memory, which must stay as it is until the host knows that the copy is over."""

    def __init__(self, source, target):
        self.source, self.target, self.copied, self.finished = source, target, None, False
        weakref.finalize(source.owner(), self.lose_source)

    def run(self):
        if self.copied is None:
            self.copied = self.source.array().copy()
            self.target.array()[...] = self.copied

    def finish(self):
        self.run()
        if not (self.finished or np.array_equal(self.source.array(), self.copied, equal_nan=True)):
            raise RuntimeError("page-locked memory was filled anew before its copy was over")
        self.finished = True

    def lose_source(self):
        if not self.finished:
            problems.append("page-locked memory was given back before its copy was over")


class _Place:
    """Where an array lies in memory that somebody else keeps, or not."""

    def __init__(self, array, owner):
        start = np.frombuffer(owner, np.uint8).ctypes.data if isinstance(owner, PageLocked) else owner.ctypes.data
        self.owner, self.offset, self.like = weakref.ref(owner), array.ctypes.data - start, (array.shape, array.dtype)

    def array(self):
        if self.owner() is None:
            raise RuntimeError("a copy from or to memory that was given back")
        return np.ndarray(*self.like, buffer=self.owner(), offset=self.offset)


class PageLocked(bytearray):
    """Memory on the host that a GPU reads by itself."""


_clock = itertools.count(1)
_allocated = {}  # when, by the id of what `empty` gave


def _owner(array):
    return array if not isinstance(array.base, np.ndarray) else _owner(array.base)


def _memory(array):
    base = _owner(array).base
    return base.obj if isinstance(base, memoryview) else base


class Device:
    """One of two devices."""

    current = 0

    def __init__(self, number=None):
        self.id = Device.current if number is None else number

    def __enter__(self):
        self.before, Device.current = Device.current, self.id
        return self

    def __exit__(self, *error):
        Device.current = self.before

    def __eq__(self, other):
        return self.id == other.id


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class RawModule(cuda_on_cpu.RawModule):
    """Kernels that take arrays of the device."""

    def get_function(self, name):
        launch = super().get_function(name)

        def run(grid, block, args, shared_mem=0):
            history.append(("kernel", next(_clock)))
            launch(grid, block, [_launchable(a) for a in args], shared_mem)

        return run


def _launchable(argument):
    if isinstance(argument, np.ndarray):
        raise TypeError("a kernel's argument lies in the host's memory")
    return argument._hidden if isinstance(argument, ndarray) else argument


class FakeCuPy(ModuleType):
    """The module; `free` is how many bytes its device has, for what `empty` gives."""

    ndarray, RawModule = ndarray, RawModule

    def __init__(self):
        super().__init__("cupy")
        self.linalg, self.fft = _Forwarding("cupy.linalg", np.linalg), _Forwarding("cupy.fft", np.fft)
        self.linalg.cholesky = _cholesky
        self.free = self.least_free = 1 << 30
        self.available = True
        self.driver, self.toolkit, self.n_devices = 13000, 13000, 2
        runtime = SimpleNamespace(
            memGetInfo=lambda: (self.free, 1 << 40),
            getDeviceCount=lambda: self.n_devices,
            driverGetVersion=lambda: self.driver,
            runtimeGetVersion=lambda: self.toolkit,
            getDeviceProperties=lambda number: {"name": b"No GPU at all"},
        )
        memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
        self.cuda = SimpleNamespace(runtime=runtime, Device=Device, memory=memory, Stream=Stream, Event=Event)
        self.cuda.get_elapsed_time = lambda start, stop: stop.time - start.time
        self.current = CurrentStream()
        self.cuda.get_current_stream, self.cuda.alloc_pinned_memory = lambda: self.current, PageLocked
        self.pool = SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)

    def is_available(self):
        return self.available

    def get_default_memory_pool(self):
        return self.pool

    def asarray(self, a, dtype=None):
        return ndarray(np.asarray(a._hidden if isinstance(a, ndarray) else np.array(a), dtype))

    def asnumpy(self, a):
        return a.get()

    def empty(self, shape, dtype=np.float64):
        array = np.empty(shape, dtype)
        if array.nbytes > self.free:
            raise OutOfMemoryError
        array.reshape(-1).view(np.uint8)[...] = 0xFF
        self._take(array.nbytes)
        weakref.finalize(array, self._take, -array.nbytes)
        _allocated[id(array)] = next(_clock)
        weakref.finalize(array, _allocated.pop, id(array))
        return ndarray(array)

    def scatter_add(self, a, indices, value):
        if a.dtype not in (np.int32, np.uint32, np.uint64):
            raise TypeError("sums of floats would depend on the order in which threads come")
        _on_hidden(np.add.at, (a, indices, value), {})

    def ReductionKernel(self, inputs, outputs, mapped, reduced, written, identity, name):
        """Sums of one expression of one array."""
        assert (inputs, outputs, reduced, written, identity) == ("T x", "T y", "a + b", "y = a", "0")
        return lambda x: _on_hidden(lambda x: np.sum(eval(mapped, {"x": x}), dtype=x.dtype), (x,), {})

    def _take(self, n_bytes):
        self.free -= n_bytes
        self.least_free = min(self.least_free, self.free)

    def __getattr__(self, name):
        return _forwarded(np, name)


class _Forwarding(ModuleType):
    """A module of CuPy that has what one of NumPy has."""

    def __init__(self, name, module):
        super().__init__(name)
        self._module = module

    def __getattr__(self, name):
        return _forwarded(self._module, name)


def _forwarded(module, name):
    function = getattr(module, name)
    if not callable(function) or isinstance(function, type):
        return function
    return lambda *args, **kwargs: _on_hidden(function, args, kwargs)


def _cholesky(a):
    """Return the factor; without a word a part of it if there is none, as cuSOLVER does."""
    potrf = scipy.linalg.get_lapack_funcs("potrf", [a._hidden])
    return ndarray(potrf(a._hidden, lower=True, clean=True)[0])


def _solve_triangular(a, b, trans=0, lower=False, unit_diagonal=False, overwrite_b=False, check_finite=False):
    """Return what cuBLAS does: columns are overwritten, if allowed; zeros on the diagonal are no error."""
    if not isinstance(a, ndarray) or not isinstance(b, ndarray):
        raise np.linalg.LinAlgError("cupy.linalg only supports cupy.ndarray")
    if len(a) != len(b):
        raise ValueError("incompatible dimensions")
    trsm = scipy.linalg.get_blas_funcs("trsm", [a._hidden])
    columns = np.array(b._hidden, a.dtype, order="F", copy=None if overwrite_b else True)
    return ndarray(trsm(1, a._hidden, columns, lower=lower, trans_a=_TRANS[trans], overwrite_b=True))


_TRANS = {0: 0, 1: 1, 2: 2, "N": 0, "T": 1, "C": 2}


def install(monkeypatch, threads=128, seed=0):
    """Put a fake CuPy in the place of the real one, for one test, with so many threads per block in a random order."""
    cupy = FakeCuPy()
    history.clear(), problems.clear()
    _arrays.load_kernels.cache_clear(), tiles_for.cache_clear()
    monkeypatch.setattr(_arrays, "THREADS", threads)
    monkeypatch.setattr(cuda_on_cpu, "seed", seed)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for name, module in {"linalg": cupy.linalg, "fft": cupy.fft, "cuda.device": cupy.cuda}.items():
        monkeypatch.setitem(sys.modules, f"cupy.{name}", module)
    linalg = ModuleType("cupyx.scipy.linalg")
    linalg.solve_triangular = _solve_triangular
    for name, module in {"cupyx": cupy, "cupyx.scipy": cupy, "cupyx.scipy.linalg": linalg}.items():
        monkeypatch.setitem(sys.modules, name, module)
    _forget_array_api(monkeypatch)
    return cupy


def _forget_array_api(monkeypatch):
    """Let scikit-learn wrap this CuPy when it first meets an array of it, not one of an earlier test."""
    for name in [name for name in sys.modules if name.startswith(f"{array_api_compat.__name__}.cupy")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(array_api_compat, "cupy", raising=False)
    for function in (_helpers._issubclass_fast, _helpers._cls_to_namespace):
        function.cache_clear()
