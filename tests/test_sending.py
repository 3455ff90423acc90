"""Images too large for the GPU's memory, sent part by part while kernels run."""

import pickle
from pathlib import Path

import fake_cupy
import numpy as np
import pytest
from conftest import crops, usable_cupy
from sklearn.base import clone
from sklearn.externals.array_api_compat import array_namespace
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from test_pipelines import KERNELS, quick, two_kinds

import classic_cls
from classic_cls import (
    HOG,
    PIPELINES,
    BagOfVisualWords,
    ColorHistogram,
    DenseSIFT,
    FlipAverage,
    KMeans,
    LinearSVC,
    PatchKMeans,
    Resize,
    ToDevice,
    ToHost,
    _arrays,
    _sending,
    color_histogram,
    hog,
    make_hog_svm,
    to_device,
)
from classic_cls._arrays import on_device
from classic_cls._images import for_batches
from classic_cls._sending import Streamed

TRANSFORMERS = [
    HOG(),
    ColorHistogram(grid=2),
    DenseSIFT(bin_size=(3, 4)),
    PatchKMeans(5, random_state=0),
    Resize((20, 40)),
    BagOfVisualWords(DenseSIFT(bin_size=3), n_words=4, random_state=0),
    FlipAverage(ColorHistogram(grid=2), max_images=5, random_state=0),
    FlipAverage(HOG(), flips=True, max_images=5),
]
KINDS = {
    "uint8": lambda X: X,
    "float32": lambda X: (X / 255).astype(np.float32),
    "gray": lambda X: X[..., 1],
    "bool": lambda X: X > 100,
    "16 bits of another machine": lambda X: (X * np.uint16(257)).astype(">u2"),
    "rows": lambda X: X.reshape(len(X), -1),
    "list": lambda X: [image[: 25 - i % 2] for i, image in enumerate(X)],
}


@pytest.fixture
def cupy(monkeypatch):
    """A fake CuPy, of which nothing is asked that would go wrong on a GPU unseen."""
    yield fake_cupy.install(monkeypatch)
    assert fake_cupy.problems == []


@pytest.fixture(scope="module")
def images():
    return crops(11, 25, 33)


def streamed(X):
    """Return what `ToDevice` gives where the GPU has little memory left."""
    with pytest.MonkeyPatch.context() as little:
        little.setattr(to_device, "free_bytes", lambda: 0)
        return ToDevice().fit_transform(X)


@pytest.fixture
def parts(monkeypatch):
    """Return a function that sets how many images are sent at a time, and how many rows of them in a piece."""

    def set_sizes(n_images, n_bytes=4000):
        monkeypatch.setattr(_arrays, "_batch_size", lambda images, workspace: n_images)
        monkeypatch.setattr(_sending, "_PINNED", n_bytes)
        monkeypatch.setattr(_sending, "_SMALL", n_bytes // 2)  # several threads fill larger pieces

    return set_sizes


# --- The same features ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=lambda t: type(t).__name__)
def test_features_are_those_of_one_large_array(cupy, images, parts, transformer, kind):
    images = images[:7]
    X = KINDS[kind](images)
    if kind == "list" and not isinstance(transformer, (ColorHistogram, PatchKMeans, Resize, BagOfVisualWords)):
        X = list(images)
    model = clone(transformer).set_params(image_shape=(25, 33, 3) if kind == "rows" else None)
    labels = np.arange(7) % 2
    native = X if kind == "list" else X.astype(X.dtype.newbyteorder("="))
    whole = [cupy.asarray(image) for image in X] if kind == "list" else cupy.asarray(native)
    expected = clone(model).fit(whole, labels)
    parts(3)
    there = streamed(X)
    features = model.fit(there, labels).transform(there)
    assert type(features) is cupy.ndarray
    np.testing.assert_array_equal(features.get(), expected.transform(whole).get())
    on_cpu = model.transform(native)
    np.testing.assert_allclose(features.get(), on_cpu, atol=1e-4 * np.abs(on_cpu).max())


@pytest.mark.parametrize("n_images", [1, 2, 5, 10, 11, 12])
@pytest.mark.parametrize("n_bytes", [1, 2475, 5000, 20000])
def test_sizes_of_parts_and_pieces(cupy, images, parts, n_images, n_bytes):
    expected = color_histogram(images, 4)
    parts(n_images, n_bytes)
    for X in (images, list(images), images[::-1][::-1], np.asfortranarray(images)):
        np.testing.assert_array_equal(color_histogram(streamed(X), 4).get(), expected)


@pytest.mark.parametrize("name", ["fast", *(name for name in KERNELS if name != "balanced")])
def test_pipelines(cupy, monkeypatch, parts, name):
    images, labels = two_kinds(6, 24, 20)
    model = quick(PIPELINES[name](random_state=0, device="cuda"))
    expected = clone(model).fit(images, labels).predict(images)
    monkeypatch.setattr(to_device, "_SHARE", 0)
    parts(4, 1000)
    np.testing.assert_array_equal(model.fit(images, labels).predict(images), expected)
    assert isinstance(model[0].transform(images), Streamed)


# --- Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uint8", "rows", "list"])
def test_images_larger_than_the_memory_of_the_gpu(cupy, kind):
    images, labels = two_kinds(12, 250, 200)
    expected = make_hog_svm().fit(images, labels).predict(images)
    X, image_shape = KINDS[kind](images) if kind != "list" else list(images), (250, 200, 3)
    model = make_hog_svm(device="cuda", image_shape=image_shape if kind == "rows" else None)
    cupy.free = images.nbytes * 2 // 3
    np.testing.assert_array_equal(model.fit(X, labels).predict(X), expected)


def test_what_is_small_beside_free_memory_goes_at_once(cupy, images):
    for X, share in ((images, 4), (images[..., 0], 4), (list(images), 4), (images.reshape(11, -1), 1)):
        n_bytes = sum(image.nbytes for image in X)
        for free, how in ((share * n_bytes, cupy.ndarray), (share * n_bytes - 1, Streamed)):
            cupy.free = free
            there = ToDevice("cuda:1").transform(X)
            assert type(there[0] if isinstance(X, list) else there) is how
            assert on_device(there)
    assert there.device == fake_cupy.Device(1)
    assert type(ToDevice().transform(cupy.asarray(images))) is cupy.ndarray


@pytest.mark.parametrize("transformer", TRANSFORMERS[:4], ids=lambda t: type(t).__name__)
def test_at_most_half_of_free_memory_is_taken(cupy, images, transformer):
    many = np.concatenate([images] * 3)
    model, there = clone(transformer).fit(images), streamed(many)
    n_bytes = model.transform(images).nbytes * 3
    cupy.free = cupy.least_free = 9 * many.nbytes + n_bytes
    fake_cupy.history.clear()
    features = model.transform(there)
    assert features.nbytes == n_bytes
    assert 0 < cupy.free - cupy.least_free < 9 * many.nbytes / 2
    assert len(copies()) > 1


def test_what_is_on_its_way_counts(cupy, images):
    there, sizes = streamed(images), []
    cupy.free = cupy.least_free = images.nbytes
    for_batches(lambda part, out: sizes.append(len(part)), there, np.zeros(11), workspace=1)
    assert sizes == [2, 2, 2, 2, 2, 1]  # half of free memory is that of five
    assert images.nbytes - cupy.least_free == 4 * images[0].nbytes


@pytest.mark.parametrize("transformer", [HOG(), ColorHistogram(25)], ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("kind", ["uint8", "list"])
def test_out_of_memory_at_any_time(cupy, images, parts, monkeypatch, transformer, kind):
    X = images if kind == "uint8" else list(images)
    model = clone(transformer).fit(images)
    parts(4)
    expected, there = model.transform(X), streamed(X)
    empty, answers = cupy.empty, []

    def empty_or_not(*args):
        if not answers.pop(0):
            raise fake_cupy.OutOfMemoryError
        return empty(*args)

    monkeypatch.setattr(cupy, "empty", empty_or_not)
    for first_calls in range(1, 20):
        answers[:] = [True] * first_calls + [False] + [True] * 99
        np.testing.assert_allclose(model.transform(there).get(), expected, atol=1e-5)


def test_less_memory_than_it_seemed(cupy, images, monkeypatch):
    model, there = HOG().fit(images), streamed(images)
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (1 << 40, 1 << 40))
    cupy.free = images.nbytes
    np.testing.assert_allclose(model.transform(there).get(), model.transform(images), atol=1e-5)
    cupy.free = model.transform(images).nbytes + 3000
    with pytest.raises(MemoryError, match="Image 0 alone needs more memory"):
        model.transform(there)


# --- Copies and kernels at the same time ------------------------------------------------------------------------------


def copies():
    return [entry for entry in fake_cupy.history if entry[0] == "copy"]


def overlap(history):
    """Tell whether copies need not wait for the kernels launched just before, nor the host for any of them."""
    last, end = 0, max(i for i, (what, *_) in enumerate(history) if what == "copy")
    for what, *when in history[:end]:
        if what == "wait" or (what == "copy" and 0 < last <= when[0]):
            return False
        last = when[0] if what == "kernel" else last
    return last > 0


@pytest.mark.parametrize("transformer", [*TRANSFORMERS[:4], HOG(transform_sqrt=True)], ids=str)
@pytest.mark.parametrize("kind", ["uint8", "rows", "list"])
def test_the_next_part_is_sent_while_kernels_run(cupy, images, parts, transformer, kind):
    X = list(images) if kind == "list" else KINDS[kind](images)
    model = clone(transformer).set_params(image_shape=(25, 33, 3) if kind == "rows" else None).fit(X)
    parts(3)
    there = streamed(X)
    fake_cupy.history.clear()
    model.transform(there)
    assert len(copies()) == 11
    assert overlap(fake_cupy.history)


ONE_BUFFER = "(memory, cuda.Event()) for memory in [cuda.alloc_pinned_memory(n_bytes)] * 2"


def is_noticed(change, n_images, images, monkeypatch):
    """Tell whether features are wrong, or come too late, if sending goes by another source."""
    fake_cupy.install(monkeypatch)
    changed = dict(vars(_sending))
    exec(change(Path(_sending.__file__).read_text()), changed)
    changed["_PINNED"] = 2 * images[0].nbytes
    monkeypatch.setattr(_sending, "_Sender", changed["_Sender"])
    monkeypatch.setattr(_arrays, "_batch_size", lambda images, workspace: n_images)
    try:
        features = color_histogram(streamed(images), 4).get()
    except RuntimeError:
        return True
    wrong = not np.array_equal(features, color_histogram(images, 4))
    return wrong or len(fake_cupy.problems) > 0 or not overlap(fake_cupy.history)


@pytest.mark.parametrize("n_images", [1, 2, 3, 5])
def test_nothing_is_noticed_where_nothing_is_wrong(images, monkeypatch, n_images):
    assert not is_noticed(lambda code: code, n_images, images, monkeypatch)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("here.wait_event(self._stream.record())", "pass"),
        ("self._stream.wait_event(self._was_taken)", "pass"),
        ("record()\n        return room", "record() and self._stream.record()\n        return room"),
        ("was_sent.synchronize()", "pass"),
        ("was_sent.record(self._stream)", "pass"),
        ("self._stream.synchronize()", "pass"),
        ("(cuda.alloc_pinned_memory(n_bytes), cuda.Event()) for _ in range(2)", ONE_BUFFER),
        ("room, self._room = self._room, []", "room = []"),
    ],
)
@pytest.mark.parametrize("n_images", [1, 2, 3, 5])
def test_what_is_wrong_is_noticed(images, monkeypatch, good, bad, n_images):
    assert Path(_sending.__file__).read_text().count(good) == 1
    assert is_noticed(lambda code: code.replace(good, bad), n_images, images, monkeypatch)


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def scale(request, monkeypatch):
    """How many times as many images a GPU takes as a fake one."""
    if request.param == "cpu":
        fake_cupy.install(monkeypatch)
        return 1
    _arrays.load_kernels.cache_clear()
    usable_cupy()
    return 500


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("kind", ["uint8", "float32", "list"])
def test_many_parts(scale, parts, transformer, kind):
    images = crops(8 * scale, 25, 33, seed=1)
    X = list(images) if kind == "list" else KINDS[kind](images)
    model = clone(transformer).fit(X[:8])
    parts(3 * scale, 2500 * scale)
    expected = model.transform(ToDevice().transform(X)).get()
    features = model.transform(streamed(X)).get()
    np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


# --- Who can take them, and who cannot --------------------------------------------------------------------------------


def test_there_and_back(cupy, images):
    for X in (images, images.reshape(11, -1), (images / 255)[..., 0]):
        there = streamed(X)
        for again in (there, pickle.loads(pickle.dumps(there)), there[:], ToDevice().transform(there)):
            assert (again.shape, again.dtype, again.ndim, len(again)) == (X.shape, X.dtype, X.ndim, 11)
            assert ToHost().transform(again).tobytes() == X.tobytes()
    several = streamed(list(images))
    assert all((a == b).all() for a, b in zip(ToHost().transform(several), images, strict=True))


def test_nan_in_a_late_part(cupy, images, parts):
    floats = images / 255
    model, floats[9, 3, 4, 1] = HOG().fit(floats), np.nan
    parts(2)
    for use in (model.transform, model.fit, hog):
        with pytest.raises(ValueError, match="NaN or infinity"):
            use(streamed(floats))


LABELS = np.arange(11) % 2


@pytest.mark.parametrize(
    "use",
    [
        np.asarray,
        np.mean,
        np.sqrt,
        np.concatenate,
        lambda X: np.asarray([X, X]),
        lambda X: X / 255,
        lambda X: 1 - X,
        lambda X: X == X,
        StandardScaler().fit,
        array_namespace,
        FunctionTransformer(np.sqrt).transform,
        FunctionTransformer(lambda X: 1.0 * X).transform,
        FunctionTransformer(lambda X: X - X.mean(axis=1, keepdims=True)).transform,
        lambda X: LinearSVC().fit(X, LABELS),
        lambda X: KMeans(2).fit(X),
        lambda X: make_pipeline(FlipAverage(StandardScaler(), flips=False)).fit(X),
    ],
)
def test_other_steps_refuse_them(cupy, images, use):
    for X in (images, images.reshape(11, -1)):
        there = streamed(X)
        with pytest.raises((TypeError, AttributeError), match=r"X is images \(uint8 of shape .* HOG\(\) .* ToHost\(\)"):
            use(there)


def test_steps_of_the_cpu_refuse_them(cupy, images):
    with pytest.raises(TypeError, match=r"KeypointSIFT runs on the CPU, and X .* Put ToHost\(\) before it"):
        classic_cls.KeypointSIFT().fit(streamed(images))
