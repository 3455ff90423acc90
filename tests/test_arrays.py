import pickle
import subprocess
import sys

import fake_cupy
import numpy as np
import pytest
from conftest import crops
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline

from classic_cls import (
    HOG,
    ColorHistogram,
    DenseSIFT,
    KeypointSIFT,
    KMeans,
    LinearSVC,
    PatchKMeans,
    Resize,
    RidgeLOOClassifier,
    ToDevice,
    ToHost,
    _arrays,
    _sending,
    color_histogram,
    compute_features,
    dense_sift,
    hog,
    keypoint_sift,
)
from classic_cls._arrays import namespace, on_device

TRANSFORMERS = [HOG(), ColorHistogram(), DenseSIFT(bin_size=(3, 4)), PatchKMeans(5, random_state=0), Resize((20, 40))]
by_name = pytest.mark.parametrize("transformer", TRANSFORMERS, ids=lambda t: type(t).__name__)


@pytest.fixture
def cupy(monkeypatch):
    return fake_cupy.install(monkeypatch)


@pytest.fixture(scope="module")
def images():
    return crops(6, 25, 33)


def test_the_fake_is_as_strict_as_cupy(cupy):
    there = cupy.asarray(np.arange(3))
    for convert in (np.asarray, np.array, np.arange(9).__getitem__, np.from_dlpack):
        with pytest.raises((TypeError, AttributeError)):
            convert(there)


# --- Array type in, array type out ------------------------------------------------------------------------------------


@by_name
class TestTransformers:
    def test_output_lies_where_the_input_does(self, cupy, images, transformer):
        on_host, on_gpu = clone(transformer).fit(images), clone(transformer).fit(cupy.asarray(images))
        expected = on_host.transform(images)
        for model in (on_host, on_gpu):
            features = model.transform(cupy.asarray(images))
            assert type(features) is cupy.ndarray
            assert features.dtype == np.float32
            np.testing.assert_allclose(features.get(), expected, atol=1e-5)
            np.testing.assert_array_equal(model.transform(images), expected)

    def test_what_was_fitted_lies_on_the_host(self, cupy, images, transformer):
        model = clone(transformer).fit(cupy.asarray(images))
        fitted = {k: v for k, v in vars(model).items() if k.endswith("_")}
        assert all(isinstance(v, (np.ndarray, int, tuple)) for v in fitted.values()), fitted
        assert pickle.loads(pickle.dumps(model)).image_shape_ == (25, 33, 3)

    def test_flat_rows(self, cupy, images, transformer):
        rows = images.reshape(len(images), -1)
        model = clone(transformer).set_params(image_shape=(25, 33, 3))
        features = model.fit(cupy.asarray(rows)).transform(cupy.asarray(rows))
        np.testing.assert_allclose(features.get(), model.fit(rows).transform(rows), atol=1e-5)
        with pytest.raises(ValueError, match="X has 2474 features"):
            model.transform(cupy.asarray(rows[:, 1:]))

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda X: X[:0], "0 sample"),
            (lambda X: X[0, 0].ravel(), "Expected 2D array"),
            (lambda X: np.where(X[0, 0, 0] == X, np.nan, X / 255), "NaN"),
            (lambda X: X.astype(np.int64) - 300, "expected 0 to 255"),
            (lambda X: X.transpose(0, 3, 1, 2), "Channels come last"),
        ],
    )
    def test_bad_input_is_refused(self, cupy, images, transformer, spoil, message):
        with pytest.raises(ValueError, match=message):
            clone(transformer).fit(cupy.asarray(spoil(images)))


# With so many cells in a block, or bins, these take more memory than their results.
MANY_CELLS = {"pixels_per_cell": 1, "cells_per_block": 20}


@pytest.mark.parametrize(
    "transformer", [HOG(**MANY_CELLS), ColorHistogram(25), TRANSFORMERS[3]], ids=lambda t: type(t).__name__
)
def test_images_that_do_not_fit_into_memory_together(cupy, images, transformer, batches, monkeypatch):
    model, there = clone(transformer).fit(images), cupy.asarray(images)
    free = cupy.free
    features = model.transform(there)
    peak, kept, expected = free - cupy.least_free, free - cupy.free, features.get()
    del features
    cupy.free = kept + (peak - kept) // 2
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (1 << 40, 1 << 40))  # others take it just then
    batches.clear()
    np.testing.assert_array_equal(model.transform(there).get(), expected)
    assert batches == [6, 3, 3]


@pytest.fixture
def batches(monkeypatch):
    """Return a list of the sizes of batches, those included that did not fit."""
    sizes, fits = [], _arrays._fits

    def count(work, send, rows, out):
        sizes.append(rows.stop - rows.start)
        return fits(work, send, rows, out)

    monkeypatch.setattr(_arrays, "_fits", count)
    return sizes


def test_negative_pixels_have_no_roots(cupy):
    with pytest.raises(ValueError, match="smallest pixel is -1"):
        hog(cupy.asarray(np.full((1, 24, 24), -1.0)), transform_sqrt=True)


def test_lists_of_images_of_different_sizes(cupy, images):
    sizes = [image[: 25 - i] for i, image in enumerate(images)]
    there = [cupy.asarray(image) for image in sizes]
    np.testing.assert_array_equal(color_histogram(there, 4).get(), color_histogram(sizes, 4))
    for ours, expected in zip(dense_sift(there), dense_sift(sizes), strict=True):
        np.testing.assert_allclose(ours.get(), expected, atol=3e-6)
    model = PatchKMeans(5, random_state=0)
    features = model.fit(there).transform(there)
    np.testing.assert_allclose(features.get(), model.fit(sizes).transform(sizes), atol=1e-5)
    assert hog([cupy.asarray(image) for image in images]).shape == hog(images).shape
    with pytest.raises(ValueError, match=r"Resize\(size\)"):
        hog(there)


def test_host_and_gpu_do_not_mix(cupy, images):
    assert namespace(images, images) is np
    assert namespace(cupy.asarray(images)) is cupy
    assert on_device([cupy.asarray(images)])
    assert not on_device([images])
    with pytest.raises(TypeError, match=r"Some of the arrays lie in the host's memory .* ToDevice\(\)"):
        color_histogram([images[0], cupy.asarray(images[1])])


def test_batches_follow_free_memory(cupy, images, batches, monkeypatch):
    many = np.concatenate([images] * 5)
    workspace = 8 * (images[0].size + hog(images).shape[1])
    for free, expected in ((1 << 30, [30]), (2 * 7 * workspace, [7, 7, 7, 7, 2]), (1, [1] * 30)):
        batches.clear()
        monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda free=free: (free, 1 << 40))
        hog(cupy.asarray(many))
        assert batches == expected


def test_an_image_too_large_is_refused(cupy, images):
    cupy.free = hog(images, **MANY_CELLS).nbytes + 99
    with pytest.raises(MemoryError, match=r"Image 0 alone needs more memory.*ToHost"):
        hog(cupy.asarray(images), **MANY_CELLS)


def test_a_source_is_compiled_once(cupy, images, monkeypatch):
    made = []
    monkeypatch.setattr(
        fake_cupy.FakeCuPy, "RawModule", lambda _, **code: made.append(1) or fake_cupy.RawModule(**code)
    )
    for _ in range(3):
        hog(cupy.asarray(images))
    assert len(made) == 1


def test_no_cuda_without_arrays_on_a_gpu():
    code = "import numpy, sys, classic_cls; classic_cls.hog(numpy.zeros((1, 24, 24)))"
    code += "; assert not {'cupy', 'cuda', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- ToDevice and ToHost ----------------------------------------------------------------------------------------------


def test_there_and_back(cupy, images):
    labels = np.arange(6) % 2
    forest = RandomForestClassifier(10, random_state=0)
    there = make_pipeline(ToDevice(), HOG(), ToHost(), forest).fit(images, labels)
    assert there.score(images, labels) == 1
    expected = make_pipeline(HOG(), clone(forest)).fit(images, labels)
    assert list(there[:-1].get_feature_names_out()) == list(expected[:-1].get_feature_names_out())


def test_bytes_stay_bytes(cupy, images):
    for X in (images, images / 255, images[0].astype(bool)):
        there = ToDevice("cuda:1").fit_transform(X)
        assert type(there) is cupy.ndarray
        assert there.dtype == X.dtype
        back = ToHost().fit_transform(ToDevice().fit_transform(there))
        assert back.tobytes() == X.tobytes()
    several = ToHost().transform(ToDevice().transform(list(images)))
    assert all((a == b).all() for a, b in zip(several, images, strict=True))
    assert ToHost().transform(images) is images


@pytest.fixture
def pieces(monkeypatch):
    """Return a list of how many rows are sent at a time."""
    sizes, put = [], fake_cupy.ndarray.set

    def count(there, piece, stream):
        sizes.append(len(there))
        put(there, piece, stream)

    monkeypatch.setattr(fake_cupy.ndarray, "set", count)
    return sizes


@pytest.mark.parametrize("n_rows", [1, 2, 3])
def test_large_arrays_go_in_pieces(cupy, monkeypatch, images, pieces, n_rows):
    many = np.concatenate([images, images[::-1]])[:11]
    for X in (many, many[::-1] / 255, many.reshape(11, -1)[:, 0].astype(float)):
        pieces.clear()
        monkeypatch.setattr(_sending, "_PINNED", (n_rows + 1) * X[0].nbytes - 1)
        there = ToDevice().transform(X)
        assert there.dtype == X.dtype
        assert there.get().tobytes() == X.tobytes()
        assert pieces == [n_rows] * (11 // n_rows) + [11 % n_rows] * (11 % n_rows > 0)


def test_small_arrays_go_at_once(cupy, images, pieces):
    ToDevice().transform([images[0], *images])
    assert pieces == []


def test_rows_larger_than_a_piece(cupy, monkeypatch, images, pieces):
    monkeypatch.setattr(_sending, "_PINNED", 10)
    assert ToDevice().transform(images).get().tobytes() == images.tobytes()
    assert pieces == [1] * 6


def test_more_than_the_memory_of_the_gpu(cupy, monkeypatch, images, tmp_path):
    monkeypatch.setattr(_sending, "_PINNED", 100)
    many, model = np.concatenate([images] * 4), make_pipeline(ToDevice(), HOG())
    features = model.fit(images).transform(images).get()
    cupy.free = 50_000
    with monkeypatch.context() as others:  # take memory just then
        others.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (250_000, 1 << 40))
        with pytest.raises(MemoryError, match=r"X takes 0.0566 MiB, and the GPU has 0.238 MiB free.*compute_features"):
            model.transform(many)
    store = compute_features(model, many, tmp_path, chunk_size=6)
    np.testing.assert_array_equal(store.array(), np.concatenate([features] * 4))


def test_results_too_large_for_the_gpu(cupy, images):
    there = cupy.asarray(np.concatenate([images] * 50))
    cupy.free = 1 << 20
    with pytest.raises(MemoryError, match=r"The result takes 37.5 MiB, and the GPU has 1 MiB free.*ToHost"):
        color_histogram(there, 32)


def test_steps_of_the_cpu_say_so(cupy, images):
    for X in (cupy.asarray(images), [cupy.asarray(image) for image in images]):
        with pytest.raises(TypeError, match=r"KeypointSIFT runs on the CPU, .* on a GPU .* Put ToHost\(\) before it"):
            KeypointSIFT().fit(X)
    with pytest.raises(TypeError, match=r"This function runs on the CPU"):
        keypoint_sift(cupy.asarray(images))


def test_svm_fitted_on_a_gpu_predicts_on_the_host(cupy):
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.array(["a", "b", "c"])[np.arange(60) % 3]
    X[:, 0] += 3 * (y == "a")
    there, here = LinearSVC().fit(cupy.asarray(X), y), LinearSVC().fit(X, y)
    for model in (there, here, pickle.loads(pickle.dumps(there))):
        np.testing.assert_array_equal(model.predict(cupy.asarray(X)), here.predict(X))
        np.testing.assert_array_equal(model.predict(X), here.predict(X))


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cpu", 0, None])
def test_devices_have_names(cupy, device):
    with pytest.raises(ValueError, match="expected 'cuda', or 'cuda:1'"):
        ToDevice(device).fit(np.zeros((2, 2)))


def test_there_are_so_many_devices(cupy):
    with pytest.raises(RuntimeError, match="device='cuda:2', but there are 2 GPUs"):
        ToDevice("cuda:2").fit(np.zeros((2, 2)))


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match=r'pip install "classic_cls\[cuda12\]" or .*\[cuda13\]'):
        ToDevice().fit(np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("driver", "toolkit", "message"),
    [
        (0, 13000, "it finds no NVIDIA driver"),
        (13000, 12090, "it finds no GPU"),
        (12080, 13000, r"built for CUDA 13, and the driver supports CUDA 12.*classic_cls\[cuda12\]"),
    ],
)
def test_without_a_gpu(cupy, driver, toolkit, message):
    cupy.available, cupy.driver, cupy.toolkit = False, driver, toolkit
    with pytest.raises(RuntimeError, match=message):
        ToDevice().fit(np.zeros((2, 2)))


@pytest.mark.parametrize("model", [LinearSVC(), KMeans(3, random_state=0), RidgeLOOClassifier()], ids=str)
def test_rows_are_worked_on_where_they_lie(cupy, monkeypatch, model):
    X, used, operate = np.random.default_rng(0).normal(size=(40, 5)), set(), fake_cupy._on_hidden
    monkeypatch.setattr(fake_cupy.ndarray, "device", property(lambda self: fake_cupy.Device(1)))

    def noticed(function, *arguments):
        if getattr(function, "__name__", "") != "__getitem__":  # most often a view
            used.add(fake_cupy.Device.current)
        return operate(function, *arguments)

    monkeypatch.setattr(fake_cupy, "_on_hidden", noticed)
    model.fit(cupy.asarray(X), X[:, 0] > 0).predict(cupy.asarray(X))
    assert used == {1}
    assert fake_cupy.Device.current == 0
