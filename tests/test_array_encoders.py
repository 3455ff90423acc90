"""The encoders on images on a GPU, where they run as array code, beside the CPU's kernels."""

import itertools
import pickle
import tracemalloc

import fake_cupy
import numpy as np
import pytest
from conftest import crops
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from classic_cls import VLAD, BagOfVisualWords, DenseSIFT, FisherVector, ToDevice, ToHost, _array_kmeans
from classic_cls._arrays import namespace, to_host
from classic_cls.features import _array_encoders, _local, fisher_vector, vlad


class Textured(DenseSIFT):
    """Leaves out what has no contrast, so that an image may be without descriptors."""

    def describe(self, images):
        described = []
        for found, positions in super().describe(images):
            rows = np.flatnonzero(to_host(found).any(1))
            described.append((found[namespace(found).asarray(rows)], positions[rows]))
        return described


SIFT = DenseSIFT(step=5, bin_size=(3, 4))
ENCODERS = {
    "soft": BagOfVisualWords(SIFT, 6, 2, assignment="soft", n_neighbors=3, random_state=0),
    "llc": BagOfVisualWords(SIFT, 6, 2, assignment="llc", n_neighbors=3, random_state=0),
    "vlad": VLAD(SIFT, 4, 8, 2, random_state=0),
    "fisher": FisherVector(SIFT, 4, 8, 2, random_state=0),
}
PARAMETERS = [
    (VLAD(SIFT, 5, random_state=0), {"n_dims": (None, 7), "pyramid_levels": (1, 3)}),
    (
        FisherVector(SIFT, 5, random_state=0),
        {"n_dims": (None, 7), "pyramid_levels": (1, 3), "append_position": (True, False)},
    ),
]
NORMS = {VLAD: ("intra", "l2", None), FisherVector: ("l2", None)}


def variants():
    """Return VLAD and Fisher vectors of every number of dimensions and levels, with places and without."""
    return [
        pytest.param(
            clone(encoder).set_params(**dict(zip(values, chosen, strict=True))), id=f"{type(encoder).__name__}-{chosen}"
        )
        for encoder, values in PARAMETERS
        for chosen in itertools.product(*values.values())
    ]


@pytest.fixture(params=ENCODERS)
def encoder(request):
    return clone(ENCODERS[request.param])


def sent(cupy, images):
    return [cupy.asarray(image) for image in images] if isinstance(images, list) else cupy.asarray(images)


def assert_alike(cupy, model, images):
    """Assert that a model finds the same features here and there, and return them.

    Fisher vectors' numbers may be near zero, where the root scales up how descriptors were rounded.
    """
    atol = 1e-4 if isinstance(model, FisherVector) else 1e-5
    features, expected = model.transform(sent(cupy, images)), model.transform(images)
    assert type(features) is cupy.ndarray
    assert features.dtype == np.float32
    np.testing.assert_allclose(features.get(), expected, atol=atol * max(1, np.abs(expected).max()))
    return expected


@pytest.mark.parametrize("model", variants())
def test_every_parameter(cupy, model):
    images = crops(5, 33, 41)
    model = clone(model).fit(images)
    for norm in NORMS[type(model)]:
        for power in (0.5, 0.7, 1):
            assert_alike(cupy, model.set_params(norm=norm, power=power), images)


def test_any_images(cupy, encoder):
    images = crops(6, 33, 41)
    model = encoder.fit(images)
    for X in (images, images[:1], images / 255, [image[: 33 - i, 2 * i :] for i, image in enumerate(images)]):
        assert_alike(cupy, model, X)
    gray = images[..., 1]
    assert_alike(cupy, clone(encoder).fit(gray), gray)
    assert_alike(cupy, model, images[:1, :17, :17])  # of one descriptor of the larger size, and two by two


def test_one_descriptor(cupy, encoder):
    image = crops(1, 17, 17)
    model = encoder.set_params(descriptor=DenseSIFT(step=9)).fit(crops(5, 33, 41))
    assert len(model.descriptor_.positions((17, 17))) == 1
    assert assert_alike(cupy, model, image).any()


def test_flat_rows(cupy, encoder):
    images = crops(4, 33, 41)
    rows = images.reshape(4, -1)
    model = encoder.set_params(image_shape=(33, 41, 3)).fit(sent(cupy, rows))
    assert_alike(cupy, model, rows)


def test_images_without_contrast(cupy, encoder):
    images = np.concatenate([crops(3, 33, 41), np.full((2, 33, 41, 3), 99, np.uint8)])
    assert_alike(cupy, encoder.fit(images), images)
    assert_alike(cupy, encoder.set_params(descriptor=DenseSIFT(contrast_threshold=0)).fit(images), images)


def test_images_without_descriptors(cupy, encoder):
    flat = np.full((2, 33, 41, 3), 99, np.uint8)
    images = np.concatenate([flat[:1], crops(3, 33, 41), flat[:1]])
    images[1, :, 20:] = 99
    # From other random numbers a word lies on its only descriptor: VLAD scales up what was rounded between the two.
    model = encoder.set_params(descriptor=Textured(), random_state=1).fit(sent(cupy, images))
    features = assert_alike(cupy, model, images)
    assert features[1:4].any(1).all()
    for nothing in (features[[0, 4]], assert_alike(cupy, model, flat)):
        assert not nothing.any()


@pytest.mark.parametrize("ragged", [False, True])
def test_fitted_there_or_here(cupy, encoder, ragged):
    images = crops(6, 33, 41)
    images = [image[: 33 - i] for i, image in enumerate(images)] if ragged else images
    there, here = clone(encoder).fit(sent(cupy, images)), clone(encoder).fit(images)
    for name, value in vars(here).items():
        assert type(getattr(there, name)) is type(value)
        if isinstance(value, np.ndarray):
            assert getattr(there, name).shape == value.shape
            assert getattr(there, name).dtype == value.dtype
        if name in ("mean_", "components_"):  # of clusters two may be equally near
            np.testing.assert_allclose(getattr(there, name), value, atol=1e-4)
    assert there.image_shape_ == here.image_shape_
    for model in (pickle.loads(pickle.dumps(there)), here):
        assert_alike(cupy, model, images)


def test_few_rows_at_a_time(cupy, encoder, monkeypatch):
    images = sent(cupy, [image[: 33 - 3 * i] for i, image in enumerate(crops(4, 33, 41))])
    model = encoder.fit(images)
    expected = model.transform(images).get()
    for chunk in (1, 600, 5000):
        monkeypatch.setattr(_array_encoders, "_CHUNK", chunk)
        np.testing.assert_allclose(model.transform(images).get(), expected, atol=1e-6)
        np.testing.assert_array_equal(model.transform(images).get(), model.transform(images).get())


@pytest.mark.parametrize(("levels", "size"), [(1, 4), (3, 40)])
@pytest.mark.parametrize("n_dims", [None, 32])
@pytest.mark.parametrize("encoder", [VLAD, FisherVector])
def test_batches_fit_into_the_memory_of_a_gpu(monkeypatch, encoder, n_dims, levels, size):
    cupy, sizes, find = fake_cupy.install(monkeypatch), [], _local.describe
    images = crops(6, 64, 64)
    model = encoder(None, size, n_dims, levels, random_state=0).fit(images)
    there, expected = cupy.asarray(images), model.transform(images)
    room = 2 * 4 * model._workspace(there)  # for four images; half of the memory is left to others
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (room, 1 << 40))
    for module in (_array_kmeans, _array_encoders):
        monkeypatch.setattr(module, "_CHUNK", 1 << 12)
    for module in (vlad, fisher_vector):
        monkeypatch.setattr(module, "describe", lambda sift, part: sizes.append(len(part)) or find(sift, part))
    tracemalloc.start()
    features = model.transform(there)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isclose(features.get(), expected, atol=1e-4).mean() > 0.99  # of 40 words two may be equally near
    assert sizes == [4, 2]
    assert 0.2 * room < peak < room


def test_images_here_and_there_do_not_mix(cupy, encoder):
    images = crops(3, 33, 41)
    for X in ([images[0], cupy.asarray(images[1])], [cupy.asarray(images[1]), images[0]]):
        for step in (encoder.fit, clone(encoder).fit(images).transform):
            with pytest.raises(TypeError, match="Some of the arrays lie in the host's memory"):
                step(X)


def test_in_a_pipeline(cupy, encoder):
    images, labels = crops(8, 33, 41), np.arange(8) % 2
    there = make_pipeline(ToDevice(), encoder, ToHost(), LinearSVC()).fit(images, labels)
    here = make_pipeline(clone(encoder), LinearSVC()).fit(images, labels)
    np.testing.assert_array_equal(there.predict(images), here.predict(images))
    there.steps[0] = ("todevice", "passthrough")
    np.testing.assert_array_equal(there.predict(images), here.predict(images))
