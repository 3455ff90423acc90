"""What every test file shares: the kernel bodies, a GPU or what passes for one, and small real photographs."""

import fake_cupy
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from skimage import data

from classic_cls import _arrays, _native

# Milliseconds for one input, however slow the machine: a hang, not a speed, is what fails.
_FUZZ = {"deadline": 10_000, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("quick", max_examples=40, derandomize=True, **_FUZZ)
settings.register_profile("thorough", max_examples=10_000, **_FUZZ)
settings.load_profile("quick")


@pytest.fixture(params=list(_native.bodies()))
def body(request, monkeypatch):
    """Run the test once with every build of the kernels that this CPU can run."""
    monkeypatch.setattr(_native, "kernels", _native.bodies()[request.param])
    return request.param


@pytest.fixture(params=["cpu-128", "cpu-32", pytest.param("gpu", marks=pytest.mark.gpu)])
def cupy(request, monkeypatch):
    """CuPy: a fake one, whose kernels run on the CPU with so many threads per block, or the real one on a GPU."""
    if request.param == "gpu":
        _arrays.load_kernels.cache_clear()
        return usable_cupy()
    return fake_cupy.install(monkeypatch, threads=int(request.param.removeprefix("cpu-")), seed=1)


@pytest.fixture(params=["cupy", "array_api_strict", "torch", pytest.param("gpu", marks=pytest.mark.gpu)])
def arrays(request, monkeypatch):
    """A module whose arrays are not NumPy's."""
    if request.param == "gpu":
        return usable_cupy()
    return fake_cupy.install(monkeypatch) if request.param == "cupy" else pytest.importorskip(request.param)


def usable_cupy():
    """Return CuPy, or skip the test and say why it cannot be used."""
    try:
        return _arrays._usable_cupy()
    except (ImportError, RuntimeError) as error:
        pytest.skip(str(error))


def crops(n, height, width, seed=0):
    """Return `n` RGB crops, uint8, of a photograph."""
    photo = data.astronaut()
    rng = np.random.default_rng(seed)
    corners = zip(rng.integers(0, 512 - height, n), rng.integers(0, 512 - width, n), strict=True)
    return np.stack([photo[y : y + height, x : x + width] for y, x in corners])


def photographs():
    """Return five photographs, (5, 128, 128, 3) uint8; the last two with large areas of one colour."""
    coins, camera = (np.stack([photo] * 3, -1) for photo in (data.coins(), data.camera()))
    photos = data.astronaut()[::4, ::4], data.chelsea()[:256:2, :256:2], coins[:256:2, :256:2], camera[::4, ::4]
    return np.stack([*photos, data.coffee()[:128, :128]])


@pytest.fixture(scope="session")
def photos():
    """Six colour crops of odd size and two of noise, (8, 37, 45, 3) uint8."""
    noise = np.random.default_rng(1).integers(0, 256, (2, 37, 45, 3), dtype=np.uint8)
    return np.concatenate([crops(6, 37, 45), noise])


@pytest.fixture(scope="session")
def gray(photos):
    """The green channel of `photos`, (8, 37, 45) uint8."""
    return np.ascontiguousarray(photos[..., 1])


@pytest.fixture(scope="session")
def small(photos):
    """A crop, one of noise and one flat, (3, 19, 37, 3) uint8."""
    return np.concatenate([photos[[0, 7], :19, :37], np.full((1, 19, 37, 3), 77, np.uint8)])
