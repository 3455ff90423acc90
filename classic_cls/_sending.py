"""How arrays go to a GPU: in pieces through page-locked memory, and part by part while kernels run."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import cycle

import numpy as np
from joblib import cpu_count
from numpy.lib.mixins import NDArrayOperatorsMixin
from sklearn.utils import gen_batches, gen_even_slices

_PINNED = 4 << 20  # bytes of a piece on its way to the GPU
_THREADS = 4  # that fill a piece: one alone is slower than the bus
_SMALL = 1 << 20  # bytes that one fills alone


class Streamed(NDArrayOperatorsMixin):
    """Images that lie on the host and are meant for a GPU: they go there part by part, as steps for images take them.

    An index gives a view that lies on the host as well; only `sending` sends. What knows nothing of this, such as
    NumPy, CuPy and scikit-learn, gets a TypeError.
    """

    def __init__(self, host, device_id):
        self._host, self._device_id = host, device_id
        self.shape, self.ndim, self.size, self.nbytes = host.shape, host.ndim, host.size, host.nbytes
        self.dtype = host.dtype.newbyteorder("=")

    @property
    def device(self):
        return sys.modules["cupy"].cuda.Device(self._device_id)

    def __len__(self):
        return len(self._host)

    def __getitem__(self, index):
        return Streamed(self._host[index], self._device_id)

    def reshape(self, *shape):
        return Streamed(self._host.reshape(*shape), self._device_id)

    def astype(self, dtype):
        return Streamed(self._host.astype(dtype), self._device_id)

    def get(self):
        """Return the NumPy array."""
        return self._host.astype(self.dtype, copy=False)

    def __getattr__(self, name):
        raise AttributeError(name if name.startswith("_") else f"There is no X.{name}: {self._refusal()}")

    def _refuse(self, *args, **kwargs):
        raise TypeError(self._refusal())

    def _refusal(self):
        return (
            f"X is images ({self.dtype} of shape {self.shape}) that ToDevice() sends to the GPU part by part, as they "
            "would take much of its memory. Steps for images, such as HOG() or Resize(size), take them so; this is "
            "none. Put one of those before it, or ToHost(), or give fewer images at a time."
        )

    __array__ = __array_ufunc__ = __array_namespace__ = _refuse


def stack(images):
    """Return images of one size as one batch of them."""
    return Streamed(np.stack([image.get() for image in images]), images[0].device.id)


def sending(images):
    """Return a context of a function that gives ``images[rows]`` on the current GPU, wherever `images` lie."""
    first = images[0] if isinstance(images, list) else images
    return _Sender(images) if isinstance(first, Streamed) else nullcontext(images.__getitem__)


def sent(array):
    """Return an array as one on the current GPU."""
    if not isinstance(array, np.ndarray) or array.nbytes <= _PINNED:
        return sys.modules["cupy"].asarray(array)
    with _Sender(Streamed(array, None)) as send:
        return send(slice(0, len(array)))


class _Sender:
    """Sends slices of a batch, on a stream of its own: one is on its way while kernels run on the one before.

    Two page-locked buffers take turns: while one is sent, threads fill the other. CuPy alone would page-lock as much
    memory as all takes, and copy there first.

    Whatever was launched before memory is taken may still use that memory, as what it was before. So memory for the
    next slice is taken ahead of the kernels that run on this one: its copy need not wait for them.
    """

    def __init__(self, images):
        cuda = sys.modules["cupy"].cuda
        self._images, self._room, self._stream = images, [], cuda.Stream(non_blocking=True)
        n_bytes = max(_PINNED, *(array[0].nbytes for array in _on_host(images)))
        self._buffers = cycle([(cuda.alloc_pinned_memory(n_bytes), cuda.Event()) for _ in range(2)])
        self._threads = ThreadPoolExecutor(min(_THREADS, cpu_count()))

    def __enter__(self):
        return self._send

    def __exit__(self, *error):
        self._stream.synchronize()  # from now on the buffers may be anyone's
        self._threads.shutdown()

    def _send(self, rows):
        images, here = self._images[rows], sys.modules["cupy"].cuda.get_current_stream()
        there = self._take_room(_on_host(images))
        self._stream.wait_event(self._was_taken)
        for array, to in zip(_on_host(images), there, strict=True):
            self._copy(array, to)
        here.wait_event(self._stream.record())
        self._room = self._new_room(_on_host(self._images[rows.stop : rows.stop + len(images)]))
        return there if isinstance(images, list) else there[0]

    def _take_room(self, arrays):
        room, self._room = self._room, []
        fits = [a.shape for a in room] == [a.shape for a in arrays]
        return room if fits else self._new_room(arrays)

    def _new_room(self, arrays):
        cupy = sys.modules["cupy"]
        room = [cupy.empty(a.shape, a.dtype.newbyteorder("=")) for a in arrays]
        self._was_taken = cupy.cuda.get_current_stream().record()
        return room

    def _copy(self, array, there):
        for rows in gen_batches(len(array), max(1, _PINNED // array[0].nbytes)):
            (memory, was_sent), to = next(self._buffers), there[rows]
            piece = np.frombuffer(memory, to.dtype, to.size).reshape(to.shape)
            was_sent.synchronize()
            self._fill(piece, array[rows])
            to.set(piece, stream=self._stream)
            was_sent.record(self._stream)

    def _fill(self, piece, rows):
        if piece.nbytes <= _SMALL:
            piece[...] = rows
            return
        shares = gen_even_slices(len(rows), _THREADS)
        list(self._threads.map(lambda share: np.copyto(piece[share], rows[share]), shares))


def _on_host(images):
    return [image._host for image in images] if isinstance(images, list) else [images._host]
