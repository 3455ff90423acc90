from copy import deepcopy

import numpy as np
import pytest
import reference
from sklearn.base import clone

from classic_cls import PatchKMeans, _native, patch_features
from classic_cls._kmeans import spherical_kmeans

ACTIVATIONS = ["triangle", "soft_threshold", "hard"]


@pytest.fixture(scope="module")
def small(photos):
    """Two crops, one of noise and one flat, (4, 19, 23, 3) uint8."""
    crops = photos[[0, 3, 7], :19, :23]
    return np.concatenate([crops, np.full_like(crops[:1], 77)])


@pytest.fixture(scope="module")
def fitted(photos):
    return PatchKMeans(21, samples_per_cluster=50, random_state=0).fit(photos)


def with_params(fitted, **params):
    """Return a copy, still fitted, with other parameters."""
    return deepcopy(fitted).set_params(**params)


def random_parts(n_pixels, n_entries, seed=0):
    """Return a mean, a whitening that is not symmetric, and a dictionary."""
    rng = np.random.default_rng(seed)
    whitening = np.eye(n_pixels) + rng.normal(size=(n_pixels, n_pixels)) / np.sqrt(n_pixels)
    return rng.normal(size=n_pixels) / 4, whitening, rng.normal(size=(n_entries, n_pixels))


def expected_features(images, parts, patch_size, step, grids, activation, alpha=0.25):
    arguments = *parts, patch_size, step, grids, activation, alpha
    return np.array([reference.patch_features(image / 255, *arguments) for image in images])


def assert_close(features, expected):
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.usefixtures("body")
@pytest.mark.parametrize("activation", ACTIVATIONS)
class TestKernel:
    @pytest.mark.parametrize("step", [1, 2, 5])
    @pytest.mark.parametrize("pool", [(1, 1), (2, 3), ((1, 1), (2, 2), (3, 1))])
    def test_equals_the_reference(self, small, fitted, activation, pool, step):
        parts = fitted.mean_, fitted.whitening_, fitted.dictionary_
        grids = [pool] if isinstance(pool[0], int) else pool
        expected = expected_features(small, parts, (6, 6), step, grids, activation)
        for images in (small, (small / 255).astype(np.float32), small / 255):
            assert_close(patch_features(images, *parts, 6, step, pool, activation), expected)

    @pytest.mark.parametrize("patch_size", [(1, 2), (5, 1), (7, 7)])
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("n_entries", [1, 32, 70])
    def test_any_patch_and_dictionary(self, small, activation, patch_size, channels, n_entries):
        images = small[:2, :11, :13, :channels]
        parts = random_parts(np.prod(patch_size) * channels, n_entries)
        features = patch_features(images, *parts, patch_size, 2, 2, activation)
        assert_close(features, expected_features(images, parts, patch_size, 2, [(2, 2)], activation))

    def test_smallest_image(self, small, fitted, activation):
        parts = fitted.mean_, fitted.whitening_, fitted.dictionary_
        for size, pool in (((6, 6), (1, 1)), ((7, 8), (2, 3))):
            images = small[:3, : size[0], : size[1]]
            features = patch_features(images, *parts, 6, 1, pool, activation)
            assert_close(features, expected_features(images, parts, (6, 6), 1, [pool], activation))

    def test_alone_or_in_a_batch(self, photos, fitted, activation):
        model, photos = with_params(fitted, activation=activation, pool=((1, 1), (2, 2))), photos[3:7]
        together = model.transform(photos)
        alone = np.concatenate([model.transform(photos[i : i + 1]) for i in range(len(photos))])
        assert together.tobytes() == alone.tobytes()
        assert together.tobytes() == model.set_params(n_jobs=2).transform(photos).tobytes()

    def test_same_bytes_in_either_dtype(self, photos, fitted, activation):
        model, photos = with_params(fitted, activation=activation), photos[5:8]
        expected = model.transform(photos).tobytes()
        assert model.transform((photos / 255).astype(np.float32)).tobytes() == expected
        assert model.transform(photos / 255).tobytes() == expected

    def test_flat_images(self, fitted, activation):
        flat = np.concatenate([np.full((1, 16, 16, 3), level, np.uint8) for level in (0, 128, 255)])
        features = clone(fitted).set_params(activation=activation).fit(flat).transform(flat)
        assert np.isfinite(features).all()
        parts = fitted.mean_, fitted.whitening_, fitted.dictionary_
        features = patch_features(flat, *parts, activation=activation)
        assert (features == features[0]).all()

    def test_flipped_images_flip_the_grid(self, small, activation):
        images = small[:, :15, :15]  # 10 x 10 patches: a cell's mirror image is a cell
        mean, whitening, dictionary = random_parts(108, 20)
        order = np.arange(108).reshape(6, 6, 3)[:, ::-1].ravel()
        cells = patch_features(images, mean, whitening, dictionary, activation=activation).reshape(4, 2, 2, -1)
        parts = mean[order], whitening[order][:, order], dictionary[:, order]
        flipped = patch_features(images[:, :, ::-1], *parts, activation=activation).reshape(4, 2, 2, -1)
        assert_close(flipped, cells[:, :, ::-1])


def test_hard_shares_sum_to_one(photos, fitted):
    features = with_params(fitted, activation="hard", pool=((1, 1), (2, 2))).transform(photos)
    np.testing.assert_allclose(features.reshape(len(photos), 5, -1).sum(2), 1, rtol=1e-5)


def test_soft_threshold_of_the_negative_dictionary_swaps_the_signs(photos, fitted):
    arguments = {"activation": "soft_threshold", "pool": 1, "alpha": 0.5}
    parts = fitted.mean_, fitted.whitening_
    features = patch_features(photos, *parts, fitted.dictionary_, **arguments)
    swapped = patch_features(photos, *parts, -fitted.dictionary_, **arguments)
    assert (np.roll(features, 21, axis=1) == swapped).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bodies_agree(photos, fitted, activation, monkeypatch):
    results = []
    for kernels in _native.bodies().values():
        monkeypatch.setattr(_native, "kernels", kernels)
        parts = fitted.mean_, fitted.whitening_, fitted.dictionary_
        results.append(patch_features(photos, *parts, activation=activation))
    for result in results:
        np.testing.assert_allclose(result, results[0], atol=1e-5 * results[0].max() if activation != "hard" else 0.01)


@pytest.mark.parametrize("dictionary", ["kmeans", "spherical", "patches"])
def test_fit_is_the_same_whatever_n_jobs(photos, dictionary):
    model = PatchKMeans(30, samples_per_cluster=300, dictionary=dictionary, random_state=3)
    one, two = clone(model).fit(photos), clone(model).set_params(n_jobs=2).fit(photos)
    for name in ("mean_", "whitening_", "dictionary_"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()
        assert getattr(one, name).dtype == np.float32
    assert one.dictionary_.shape == (30, 108)
    if dictionary != "kmeans":
        np.testing.assert_allclose(np.linalg.norm(one.dictionary_, axis=1), 1, rtol=1e-5)


def test_fit_depends_on_the_seed_and_not_on_the_dtype(photos):
    model = PatchKMeans(10, dictionary="patches", random_state=0)
    learned = clone(model).fit(photos).dictionary_
    np.testing.assert_allclose(clone(model).fit(photos / 255).dictionary_, learned, atol=1e-4)
    assert np.abs(clone(model).set_params(random_state=1).fit(photos).dictionary_ - learned).max() > 0.1


def test_whitening_whitens(photos):
    model = PatchKMeans(20, patch_size=(4, 3), samples_per_cluster=1000, whitening_epsilon=1e-6).fit(photos)
    everything = patch_features(
        photos, model.mean_, model.whitening_, np.eye(36), (4, 3), 1, 1, "soft_threshold", alpha=0
    )
    signed = everything[:, :36] - everything[:, 36:]
    assert np.abs(signed.mean(0)).max() < 0.1  # the mean patch becomes 0
    np.testing.assert_allclose(model.whitening_, model.whitening_.T, atol=1e-3)


def test_spherical_kmeans_finds_lines():
    rng = np.random.default_rng(0)
    axes = np.eye(5, dtype=np.float32)[:3]
    points = axes[rng.integers(3, size=600)] * rng.choice([-3, 2], (600, 1))
    points = (points + 0.05 * rng.normal(size=points.shape)).astype(np.float32)
    centers = spherical_kmeans(points, 12, np.random.RandomState(0))
    assert (np.abs(centers @ axes.T).max(0) > 0.99).all()


def test_images_of_different_sizes(photos, fitted):
    ragged = [photos[0], photos[1][:20], photos[2][:, :25] / 255]
    features = fitted.transform(ragged)
    for image, row in zip(ragged, features, strict=True):
        assert fitted.transform(image[None]).tobytes() == row.tobytes()
    assert clone(fitted).fit(ragged).image_shape_ == (None, None, 3)


def test_any_memory_layout_and_no_mutation(photos, fitted):
    expected, before = fitted.transform(photos), photos.copy()
    read_only = photos.copy()
    read_only.flags.writeable = False
    for same in (read_only, np.asfortranarray(photos), photos[:, ::-1].copy()[:, ::-1]):
        assert (fitted.transform(same) == expected).all()
    clone(fitted).fit(read_only)
    assert (photos == before).all()


def test_flat_rows(gray):
    rows = gray.reshape(len(gray), -1)
    model = PatchKMeans(8, random_state=0)
    expected = clone(model).fit(gray).transform(gray)
    assert (clone(model).set_params(image_shape=(37, 45)).fit(rows).transform(rows) == expected).all()


def test_names(gray):
    model = PatchKMeans(3, pool=((1, 1), (1, 2)), random_state=0).fit(gray)
    names = model.get_feature_names_out()
    assert list(names[[0, 2, 3, 8]]) == [
        "patch_0_pool0_cell0",
        "patch_2_pool0_cell0",
        "patch_0_pool1_cell0",
        "patch_2_pool1_cell1",
    ]
    assert len(names) == model.transform(gray).shape[1]
    model.set_params(activation="soft_threshold")
    names = model.get_feature_names_out()
    assert list(names[[2, 3, 6]]) == ["patch_2_pool0_cell0", "minus_patch_0_pool0_cell0", "patch_0_pool1_cell0"]
    assert len(set(names)) == len(names) == model.transform(gray).shape[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 38}, "37 x 45 pixels; patches of .* need at least 39 x 39"),
        ({"pool": (33, 2)}, "need at least 38 x 7"),
        ({"patch_size": 0}, "patch_size=0; expected"),
        ({"step": 0}, "step=0; expected"),
        ({"pool": ()}, "pool="),
        ({"pool": ((1, 1), (0, 2))}, "pool="),
        ({"activation": "relu"}, "activation='relu'; expected one of"),
        ({"dictionary": "pca"}, "dictionary='pca'; expected one of"),
        ({"whitening_epsilon": 0}, "whitening_epsilon=0; expected"),
        ({"n_clusters": 0}, "n_clusters=0; expected"),
        ({"n_clusters": 20_000}, "only 10240 patches"),
    ],
)
def test_errors(photos, change, message):
    with pytest.raises(ValueError, match=message):
        PatchKMeans(**{"n_clusters": 5} | change).fit(photos)


def test_bad_images_are_refused(photos, fitted):
    for bad in (np.nan, np.inf, 1e7):
        images = photos / 255
        images[2, 20, 20, 1] = bad
        with pytest.raises(ValueError, match=r"NaN or infinity|cannot be images"):
            fitted.transform(images)
    with pytest.raises(ValueError, match="was fitted on images of shape"):
        fitted.transform(photos[..., 0])
    with pytest.raises(ValueError, match="need at least 7 x 7"):
        fitted.transform(photos[:, :6])


def test_parts_that_do_not_fit(photos):
    mean, whitening, dictionary = random_parts(108, 4)
    for parts in (
        (mean[1:], whitening, dictionary),
        (mean, whitening[1:], dictionary),
        (mean, whitening, dictionary[:0]),
    ):
        with pytest.raises(ValueError, match="for patches of 108 numbers expected"):
            patch_features(photos, *parts)


@pytest.mark.parametrize(("which", "name"), enumerate(["mean", "whitening", "dictionary"]))
def test_parts_that_are_no_numbers(photos, which, name):
    for bad in (np.nan, np.inf):
        parts = [part.copy() for part in random_parts(108, 4)]
        parts[which].flat[-1] = bad
        with pytest.raises(ValueError, match=f"{name} holds NaN or infinity"):
            patch_features(photos, *parts)


def test_kernel_refuses_what_does_not_fit(photos):
    images = np.ascontiguousarray(photos)
    good = {"images": images, "patch_size": (6, 6), "step": 1, "grids": [(2, 2)], "activation": "triangle"}
    good |= {"alpha": 0, "epsilon": 1, "directions": np.zeros((5, 108), np.float32)}
    good |= {"offsets": np.zeros(5, np.float32), "factor": np.zeros((108, 108), np.float32)}
    good |= {"factor_offsets": np.zeros(108, np.float32), "out": np.empty((len(images), 20), np.float32)}
    _native.kernels.patch_features(**good)
    wrong = [{"patch_size": (38, 6)}, {"patch_size": (6, 0)}, {"step": 0}, {"grids": [(33, 2)]}, {"grids": []}]
    wrong += [{"activation": "relu"}, {"activation": "soft_threshold"}, {"out": good["out"][1:]}]
    wrong += [{name: good[name][1:]} for name in ("directions", "offsets", "factor", "factor_offsets")]
    for change in wrong:
        with pytest.raises(ValueError):
            _native.kernels.patch_features(**good | change)
