import pickle
import tracemalloc

import fake_cupy
import numpy as np
import pytest
import reference
from conftest import crops
from sklearn.cluster import KMeans
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from classic_cls import (
    VLAD,
    BagOfVisualWords,
    DenseSIFT,
    FisherVector,
    KeypointSIFT,
    ToDevice,
    ToHost,
    _array_kmeans,
    _native,
    assign_words,
    llc,
    soft_assign_words,
)
from classic_cls._kmeans import kmeans
from classic_cls.features import _array_encoders
from classic_cls.features.bag_of_words import learn_vocabulary


@pytest.mark.parametrize("n_words", [1, 3, 31, 32, 33, 200])
@pytest.mark.parametrize("n_dims", [1, 7, 128])
def test_every_descriptor_gets_its_nearest_word(body, n_words, n_dims):
    rng = np.random.default_rng(n_words)
    descriptors, vocabulary = (rng.random((n, n_dims), dtype=np.float32) for n in (101, n_words))
    words = assign_words(descriptors, vocabulary)
    assert words.dtype == np.int32
    np.testing.assert_array_equal(words, reference.nearest_word(descriptors, vocabulary))


@pytest.mark.parametrize("encoder", [BagOfVisualWords, FisherVector, VLAD])
@pytest.mark.parametrize("descriptor", [[], (), "sift", 1.5, True, DenseSIFT, LinearSVC()])
def test_what_is_no_descriptor(encoder, descriptor):
    with pytest.raises(TypeError, match=r"descriptor=.*; expected DenseSIFT\(\), KeypointSIFT\(\) or None"):
        encoder(descriptor).fit(crops(2, 30, 30))


class Spoilt(DenseSIFT):
    """A descriptor of one's own that fails once it has been learned from."""

    spoil = 0

    def describe(self, images):
        return [(found + np.float32(self.spoil), positions) for found, positions in super().describe(images)]


@pytest.mark.parametrize("encoder", [BagOfVisualWords, FisherVector, VLAD])
@pytest.mark.parametrize("spoil", [np.nan, np.inf, 1e20])
def test_descriptors_that_are_no_numbers_are_refused(encoder, spoil):
    images = crops(2, 60, 60)
    model = encoder(Spoilt(), 4, random_state=0).fit(images)
    model.descriptor_.spoil = spoil
    with pytest.raises(ValueError, match="descriptors hold NaN, or numbers beyond 1e"):
        model.transform(images)


def test_of_equal_words_the_first_wins(body):
    vocabulary = np.tile(np.eye(4, dtype=np.float32), (20, 1))
    np.testing.assert_array_equal(assign_words(vocabulary, vocabulary), np.tile(np.arange(4), 20))


def test_no_descriptors_no_words(body):
    assert assign_words(np.zeros((0, 8), np.float32), np.zeros((2, 8), np.float32)).shape == (0,)


def test_an_assignment_does_not_depend_on_its_neighbours(body):
    rng = np.random.default_rng(0)
    descriptors, vocabulary = (rng.random((n, 128), dtype=np.float32) for n in (97, 50))
    together = assign_words(descriptors, vocabulary)
    assert [assign_words(row[None], vocabulary)[0] for row in descriptors] == together.tolist()


@pytest.mark.parametrize(("n", "k"), [((5, 3), (4, 2)), ((5,), (4, 5)), ((5, 3), (0, 3))])
def test_arrays_that_do_not_fit_are_refused(n, k):
    with pytest.raises(ValueError, match="vocabulary"):
        assign_words(np.zeros(n, np.float32), np.zeros(k, np.float32))


def table(words, weights, n_words):
    """Return the weight of every word, (n, n_words)."""
    full = np.zeros((len(words), n_words))
    np.put_along_axis(full, words, weights, axis=1)
    return full


SIZES = [(1, 1, 1, 1), (1, 5, 5, 3), (101, 33, 7, 4), (50, 200, 128, 5), (30, 40, 65, 21)]


@pytest.mark.parametrize("beta", [0.1, 10.0])
@pytest.mark.parametrize(("n", "n_words", "n_dims", "n_neighbors"), SIZES)
def test_soft_weights_equal_the_reference(body, n, n_words, n_dims, n_neighbors, beta):
    rng = np.random.default_rng(n_words)
    descriptors, vocabulary = (rng.random((k, n_dims), dtype=np.float32) for k in (n, n_words))
    words, weights = soft_assign_words(descriptors, vocabulary, n_neighbors, beta)
    assert words.shape == weights.shape == (n, n_neighbors)
    np.testing.assert_array_equal(words[:, 0], assign_words(descriptors, vocabulary))
    expected = reference.soft_words(descriptors, vocabulary, n_neighbors, beta)
    np.testing.assert_allclose(table(words, weights, n_words), expected, atol=1e-5)
    assert (np.diff(weights) <= 0).all()


@pytest.mark.parametrize("regularization", [1e-4, 0.1])
@pytest.mark.parametrize(("n", "n_words", "n_dims", "n_neighbors"), SIZES)
def test_llc_weights_equal_the_reference(body, n, n_words, n_dims, n_neighbors, regularization):
    rng = np.random.default_rng(n_words)
    descriptors, vocabulary = (rng.random((k, n_dims), dtype=np.float32) for k in (n, n_words))
    words, weights = llc(descriptors, vocabulary, n_neighbors, regularization)
    expected = reference.llc_words(descriptors, vocabulary, n_neighbors, regularization)
    np.testing.assert_allclose(table(words, weights, n_words), expected, rtol=1e-5, atol=1e-5)


def test_llc_rebuilds_what_lies_between_words(body):
    vocabulary = np.random.default_rng(0).random((6, 20), dtype=np.float32)
    weights = np.array([0.5, 0.2, 0.4, -0.1], np.float32)
    words, found = llc((weights @ vocabulary[:4])[None], vocabulary[:4], 4, 1e-9)
    np.testing.assert_allclose(found[0], weights[words[0]], atol=1e-4)


@pytest.mark.parametrize("encode", [soft_assign_words, llc])
def test_equal_words_share_alike(body, encode):
    words, weights = encode(np.ones((2, 3)), np.ones((4, 3)), 3)
    np.testing.assert_array_equal(words, [[0, 1, 2]] * 2)
    np.testing.assert_allclose(weights, 1 / 3, atol=1e-7)


@pytest.mark.parametrize("encode", [soft_assign_words, llc])
def test_weights_do_not_depend_on_their_neighbours(body, encode):
    rng = np.random.default_rng(0)
    descriptors, vocabulary = (rng.random((n, 20), dtype=np.float32) for n in (67, 50))
    together = encode(descriptors, vocabulary)
    for i, row in enumerate(descriptors):
        for alone, beside in zip(encode(row[None], vocabulary), together, strict=True):
            np.testing.assert_array_equal(alone[0], beside[i])


@pytest.mark.parametrize("encode", [soft_assign_words, llc])
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors=0"),
        ({"n_neighbors": 5}, "only 4 words"),
        ({"descriptors": np.full((2, 3), np.nan)}, "NaN"),
        ({"vocabulary": np.zeros((4, 2))}, "vocabulary"),
    ],
)
def test_bad_weighting_is_refused(encode, parameters, message):
    with pytest.raises(ValueError, match=message):
        encode(**{"descriptors": np.zeros((2, 3)), "vocabulary": np.zeros((4, 3)), "n_neighbors": 2} | parameters)


@pytest.mark.parametrize("value", [0, -1.0, np.inf, np.nan, "1"])
def test_bad_factors_are_refused(value):
    with pytest.raises(ValueError, match="beta="):
        soft_assign_words(np.zeros((2, 3)), np.zeros((4, 3)), 2, value)
    with pytest.raises(ValueError, match="regularization="):
        llc(np.zeros((2, 3)), np.zeros((4, 3)), 2, value)


@pytest.mark.parametrize("kernel", ["soft_weights", "llc_weights"])
@pytest.mark.parametrize("word", [-1, 2])
def test_the_kernels_refuse_words_that_do_not_exist(body, kernel, word):
    points, neighbors = np.zeros((2, 3), np.float32), np.array([[0], [word]], np.int32)
    with pytest.raises(ValueError, match="fit together"):
        getattr(_native.kernels, kernel)(points, points, neighbors, 1.0, np.zeros((2, 1), np.float32))


@pytest.mark.parametrize("descriptor", [DenseSIFT(step=5, bin_size=(3, 4)), KeypointSIFT()])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("pooling", ["auto", "sum", "max"])
@pytest.mark.parametrize("assignment", ["hard", "soft", "llc"])
def test_pooled_weights_equal_the_reference(body, descriptor, levels, assignment, pooling):
    images = [image[: 50 + i] for i, image in enumerate(crops(4, 53, 60))]
    parameters = {"n_neighbors": 3, "beta": 2.0, "regularization": 1e-3}
    bag = BagOfVisualWords(
        descriptor, 10, levels, None, assignment=assignment, pooling=pooling, **parameters, random_state=0
    ).fit(images)
    merged = pooling if pooling != "auto" else "max" if assignment == "llc" else "sum"
    for image, row, (points, places) in zip(images, bag.transform(images), descriptor.describe(images), strict=True):
        if assignment == "hard":
            weights = np.eye(10)[reference.nearest_word(points, bag.vocabulary_)]
        elif assignment == "soft":
            weights = reference.soft_words(points, bag.vocabulary_, 3, 2.0)
        else:
            weights = reference.llc_words(points, bag.vocabulary_, 3, 1e-3)
        expected = reference.pool_words(weights, places, image.shape[:2], levels, merged)
        np.testing.assert_allclose(row, expected, atol=1e-4)


@pytest.mark.parametrize("pooling", ["sum", "max"])
@pytest.mark.parametrize("assignment", ["soft", "llc"])
@pytest.mark.parametrize("norm", [None, "l1", "l2", "hellinger"])
def test_weights_of_images_without_keypoints_and_of_any_number_of_threads(assignment, pooling, norm):
    images = np.concatenate([crops(4, 64, 64), np.full((1, 64, 64, 3), 99, np.uint8)])
    bag = BagOfVisualWords(KeypointSIFT(), 8, 2, norm, assignment=assignment, pooling=pooling, random_state=0)
    features = bag.fit_transform(images)
    assert np.isfinite(features).all()
    assert features[:4].any(1).all()
    assert not features[4].any()
    np.testing.assert_array_equal(bag.set_params(n_jobs=2).transform(images), features)
    np.testing.assert_array_equal(bag.transform(images[1:2])[0], features[1])


def test_hellinger_keeps_the_signs_of_llc():
    images = crops(6, 64, 64)
    raw, scaled = (
        BagOfVisualWords(n_words=30, norm=norm, assignment="llc", pooling="sum", random_state=0).fit_transform(images)
        for norm in (None, "hellinger")
    )
    assert (raw < 0).any()
    np.testing.assert_array_equal(np.sign(scaled), np.sign(raw))
    np.testing.assert_allclose((scaled**2).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("descriptor", [DenseSIFT(step=5, bin_size=(3, 4)), KeypointSIFT()])
@pytest.mark.parametrize("levels", [1, 3])
def test_counts_equal_the_reference(descriptor, levels):
    images = crops(6, 53, 60)
    bag = BagOfVisualWords(descriptor, 10, levels, norm=None, random_state=0).fit(images)
    for row, (descriptors, positions) in zip(bag.transform(images), descriptor.describe(images), strict=True):
        words = reference.nearest_word(descriptors, bag.vocabulary_)
        np.testing.assert_array_equal(row, reference.word_counts(words, positions, (53, 60), 10, levels))


def test_norms():
    images = crops(4, 40, 40)
    rows = {
        norm: BagOfVisualWords(n_words=8, norm=norm, random_state=0).fit_transform(images)
        for norm in (None, "l1", "l2", "hellinger")
    }
    counts = rows[None]
    np.testing.assert_allclose(rows["l1"], counts / counts.sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(rows["l2"], counts / np.sqrt((counts**2).sum(1, keepdims=True)), rtol=1e-6)
    np.testing.assert_allclose(rows["hellinger"], np.sqrt(counts / counts.sum(1, keepdims=True)), rtol=1e-6)


def test_an_image_without_keypoints_counts_nothing():
    images = np.concatenate([crops(4, 64, 64), np.full((1, 64, 64, 3), 99, np.uint8)])
    features = BagOfVisualWords(KeypointSIFT(), n_words=5, random_state=0).fit_transform(images)
    assert features[:4].any(1).all()
    assert not features[4].any()


def test_the_vocabulary_is_k_means():
    # Far apart, the clusters are found whatever the start; from there on scikit-learn moves nothing.
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(6, 16)) * 20)[rng.integers(0, 6, 3000)] + rng.normal(size=(3000, 16))
    points = points.astype(np.float32)
    centers = learn_vocabulary(points, 40, np.random.RandomState(0))
    theirs = KMeans(40, init=centers, n_init=1, max_iter=300).fit(points)
    ours = ((points - centers[assign_words(points, centers)]) ** 2).sum()
    random = ((points - points[:40][assign_words(points, points[:40])]) ** 2).sum()
    assert ours < 1.02 * theirs.inertia_
    assert ours < 0.8 * random


def test_a_word_that_loses_all_its_descriptors_stays():
    points = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    centers = learn_vocabulary(points, 5, np.random.RandomState(0))
    assert np.isfinite(centers).all()
    assert len(np.unique(centers, axis=0)) <= 3


def test_same_seed_same_vocabulary_other_seed_another():
    images = crops(8, 40, 40)
    a, b, c = (BagOfVisualWords(n_words=20, random_state=s).fit(images).vocabulary_ for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("seed", range(5))
def test_images_without_keypoints_do_not_end_the_sampling(seed):
    blank = np.full((19, 64, 64, 3), 99, np.uint8)
    images = np.concatenate([blank, crops(1, 64, 64)])
    bag = BagOfVisualWords(KeypointSIFT(), n_words=3, samples_per_word=4, random_state=seed).fit(images)
    assert bag.vocabulary_.shape == (3, 128)


def test_too_few_descriptors_are_refused():
    with pytest.raises(ValueError, match="n_words=5000, but the images gave only 98 descriptors"):
        BagOfVisualWords(n_words=5000).fit(crops(2, 40, 40))


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_words", 0),
        ("n_words", 2.5),
        ("pyramid_levels", 0),
        ("norm", "L1"),
        ("assignment", "LLC"),
        ("pooling", None),
        ("beta", 0),
        ("regularization", -1e-4),
        ("samples_per_word", -1),
    ],
)
def test_bad_parameters_are_named(parameter, value):
    with pytest.raises(ValueError, match=parameter):
        BagOfVisualWords(**{parameter: value}).fit(crops(2, 40, 40))


def test_more_neighbors_than_words_are_refused():
    with pytest.raises(ValueError, match="n_neighbors=5, but there are only 4 words"):
        BagOfVisualWords(n_words=4, assignment="soft").fit(crops(2, 40, 40))


def test_names_say_word_level_and_cell():
    names = BagOfVisualWords(n_words=4, pyramid_levels=2, random_state=0).fit(crops(2, 40, 40)).get_feature_names_out()
    assert names[[0, 3, 4, 19]].tolist() == [
        "word_0_level0_cell0",
        "word_3_level0_cell0",
        "word_0_level1_cell0",
        "word_3_level1_cell3",
    ]


# --- On a GPU ---------------------------------------------------------------------------------------------------------


def sift_words(n_words=10, levels=1, norm="hellinger", **parameters):
    descriptor = DenseSIFT(step=5, bin_size=(3, 4))
    return BagOfVisualWords(descriptor, n_words, levels, norm, random_state=0, **parameters)


@pytest.mark.parametrize("pooling", ["auto", "sum", "max"])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("assignment", ["hard", "soft", "llc"])
def test_features_on_a_gpu_are_those_of_the_cpu(cupy, assignment, levels, pooling):
    images = crops(5, 33, 40)
    bag = sift_words(10, levels, assignment=assignment, pooling=pooling, n_neighbors=3).fit(images)
    for norm in (None, "l1", "l2", "hellinger"):
        features = bag.set_params(norm=norm).transform(cupy.asarray(images))
        assert type(features) is cupy.ndarray
        assert features.dtype == np.float32
        np.testing.assert_allclose(features.get(), bag.transform(images), atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 1 << 24])
@pytest.mark.parametrize(("n", "n_words", "n_dims", "n_neighbors"), SIZES)
def test_words_and_weights_on_a_gpu_equal_the_reference(cupy, monkeypatch, n, n_words, n_dims, n_neighbors, chunk):
    monkeypatch.setattr(_array_encoders, "_CHUNK", chunk)
    rng = np.random.default_rng(n_words)
    arrays = [rng.random((k, n_dims), dtype=np.float32) for k in (n, n_words)]
    there = [cupy.asarray(a) for a in arrays]
    for encode, expected in ((soft_assign_words, reference.soft_words), (llc, reference.llc_words)):
        for parameter in (1e-4, 0.1, 10.0):
            words, weights = encode(*there, n_neighbors, parameter)
            assert words.dtype == np.int32
            assert weights.dtype == np.float32
            np.testing.assert_array_equal(words[:, 0].get(), assign_words(*there).get())
            found = table(words.get(), weights.get(), n_words)
            np.testing.assert_allclose(found, expected(*arrays, n_neighbors, parameter), rtol=1e-5, atol=1e-5)
    words = assign_words(*there)
    assert words.dtype == np.int32
    np.testing.assert_array_equal(words.get(), reference.nearest_word(*arrays))


@pytest.mark.parametrize("encode", [soft_assign_words, llc])
def test_equal_words_on_a_gpu(cupy, encode):
    vocabulary = cupy.asarray(np.tile(np.eye(4, dtype=np.float32), (5, 1)))
    np.testing.assert_array_equal(assign_words(vocabulary, vocabulary).get(), np.tile(np.arange(4), 5))
    words, weights = encode(vocabulary, vocabulary, 3)  # all three lie on the descriptor
    np.testing.assert_array_equal(words.get()[:4], np.arange(4)[:, None] + [0, 4, 8])
    np.testing.assert_allclose(weights.get(), 1 / 3, atol=1e-7)


def test_llc_on_a_gpu_is_found_in_double(cupy):
    rng = np.random.default_rng(0)
    descriptors, vocabulary = rng.random((9, 20), dtype=np.float32) + 30, rng.random((4, 20), dtype=np.float32)
    words, weights = llc(cupy.asarray(descriptors), cupy.asarray(vocabulary), 4, 1e-9)
    expected = reference.llc_words(descriptors, vocabulary, 4, 1e-9)
    np.testing.assert_allclose(table(words.get(), weights.get(), 4), expected, rtol=1e-5, atol=1e-5)


def test_no_descriptors_on_a_gpu(cupy):
    nothing, vocabulary = cupy.asarray(np.zeros((0, 8))), cupy.asarray(np.ones((6, 8)))
    assert assign_words(nothing, vocabulary).shape == (0,)
    for encode in (soft_assign_words, llc):
        assert [a.shape for a in encode(nothing, vocabulary)] == [(0, 5), (0, 5)]


@pytest.mark.parametrize("encode", [assign_words, soft_assign_words, llc])
def test_arrays_on_a_gpu_are_checked(cupy, encode):
    points = np.ones((6, 3))
    there = cupy.asarray(points)
    for arrays in ((points, there), (there, points)):
        with pytest.raises(TypeError, match="Some of the arrays lie in the host's memory"):
            encode(*arrays)
    for spoil in (np.nan, -np.inf, 2e6, -2e6):
        with pytest.raises(ValueError, match="descriptors hold NaN, or numbers beyond"):
            encode(cupy.asarray(points * spoil), there)
    with pytest.raises(ValueError, match="no words"):
        encode(there, there[:0])


def test_gray_floats_and_images_of_different_sizes_on_a_gpu(cupy):
    images = crops(4, 33, 40)[..., 1]
    bag = sift_words(10, 2).fit(images)
    for X in (images, images / 255, [image[: 30 - i, i:] for i, image in enumerate(images)]):
        there = [cupy.asarray(image) for image in X] if isinstance(X, list) else cupy.asarray(X)
        np.testing.assert_allclose(bag.transform(there).get(), bag.transform(X), atol=1e-5)


@pytest.mark.parametrize("ragged", [False, True])
def test_words_learned_on_a_gpu_are_those_of_the_cpu(cupy, ragged):
    images = crops(6, 33, 40)
    images = [image[: 30 - i] for i, image in enumerate(images)] if ragged else images
    there = [cupy.asarray(image) for image in images] if ragged else cupy.asarray(images)
    ours, cpus = sift_words(8, samples_per_word=20).fit(there), sift_words(8, samples_per_word=20).fit(images)
    assert type(ours.vocabulary_) is np.ndarray
    np.testing.assert_allclose(ours.vocabulary_, cpus.vocabulary_, atol=1e-6)
    ours = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(ours.transform(images), cpus.transform(images))
    np.testing.assert_allclose(ours.transform(there).get(), cpus.transform(images), atol=1e-5)


def test_k_means_on_a_gpu_is_that_of_the_cpu(cupy):
    points = np.random.default_rng(0).random((500, 12), dtype=np.float32)
    points[:30] = points[0]  # some words get no point
    ours = kmeans(cupy.asarray(points), 40, np.random.RandomState(0))
    np.testing.assert_allclose(ours.get(), kmeans(points, 40, np.random.RandomState(0)), atol=1e-5)


class InDoubles(DenseSIFT):
    """A descriptor of one's own."""

    def describe(self, images):
        return [(found.astype(np.float64), positions) for found, positions in super().describe(images)]


@pytest.mark.parametrize("encoder", [BagOfVisualWords, VLAD])
def test_descriptors_may_be_doubles(cupy, encoder):
    images = crops(8, 40, 48)
    ours, theirs = (encoder(d(step=8), 4, random_state=0).fit(cupy.asarray(images)) for d in (InDoubles, DenseSIFT))
    there = cupy.asarray(images)
    np.testing.assert_allclose(ours.transform(there).get(), theirs.transform(there).get(), atol=1e-5)


@pytest.mark.parametrize("assignment", ["hard", "soft", "llc"])
@pytest.mark.parametrize(("n_words", "levels"), [(10, 1), (400, 4)])
def test_counting_fits_into_the_memory_of_a_gpu(monkeypatch, n_words, levels, assignment):
    cupy, sizes, counts = fake_cupy.install(monkeypatch), [], BagOfVisualWords._counts
    images = crops(6, 48, 64)
    bag = BagOfVisualWords(None, n_words, levels, assignment=assignment, samples_per_word=1, random_state=2).fit(images)
    there, expected = cupy.asarray(images), bag.transform(images)
    room = 2 * 4 * bag._workspace(there)  # for four images; half of the memory is left to others
    monkeypatch.setattr(cupy.cuda.runtime, "memGetInfo", lambda: (room, 1 << 40))
    for module in (_array_kmeans, _array_encoders):
        monkeypatch.setattr(module, "_CHUNK", 1 << 12)
    monkeypatch.setattr(
        BagOfVisualWords, "_counts", lambda self, *part: sizes.append(len(part[0])) or counts(self, *part)
    )
    tracemalloc.start()
    features = bag.transform(there)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isclose(features.get(), expected, atol=1e-5).mean() > 0.999  # two words may be equally near
    assert sizes == [4, 2]
    assert 0.2 * room < peak < room


@pytest.mark.parametrize("encoder", [BagOfVisualWords, FisherVector, VLAD])
def test_descriptors_of_the_cpu_say_so(cupy, encoder):
    images = crops(3, 64, 64)
    model = encoder(KeypointSIFT(), 4)
    for step in (model.fit, model.fit(images).transform):
        with pytest.raises(TypeError, match=r"KeypointSIFT runs on the CPU, .* Put ToHost\(\) before it"):
            step(cupy.asarray(images))


def test_images_here_and_there_do_not_mix(cupy):
    images = crops(3, 33, 40)
    with pytest.raises(TypeError, match="Some of the arrays lie in the host's memory"):
        sift_words().fit([images[0], cupy.asarray(images[1])])


def test_in_a_pipeline_over_a_gpu(cupy):
    images, labels = crops(8, 33, 40), np.arange(8) % 2
    images[labels == 1] = images[labels == 1, :, ::-1] // 4 + np.indices((33, 40)).sum(0)[..., None].astype(np.uint8)
    there = make_pipeline(ToDevice(), sift_words(), ToHost(), LinearSVC()).fit(images, labels)
    here = make_pipeline(sift_words(), LinearSVC()).fit(images, labels)
    np.testing.assert_array_equal(there.predict(images), here.predict(images))
    assert there[1].get_feature_names_out()[3] == "word_3_level0_cell0"
