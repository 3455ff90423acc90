from functools import partial

import numpy as np
import pytest
import reference
from conftest import crops, photographs

from classic_cls import VLAD, DenseSIFT, KeypointSIFT, _native, dense_sift, vlad
from classic_cls.features import _array_encoders
from classic_cls.features._pca import learn_pca, project


def arrays(n, n_words, n_dims, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, n_dims)).astype(np.float32), rng.normal(size=(n_words, n_dims)).astype(np.float32)


@pytest.mark.parametrize("power", [0.3, 0.5, 1])
@pytest.mark.parametrize("norm", ["intra", "l2", None])
@pytest.mark.parametrize(("n", "n_words", "n_dims"), [(1, 1, 1), (1, 3, 5), (40, 7, 17), (301, 33, 64)])
def test_equals_the_reference(body, n, n_words, n_dims, norm, power):
    descriptors, vocabulary = arrays(n, n_words, n_dims)
    expected = reference.vlad(descriptors, vocabulary, power, norm)
    np.testing.assert_allclose(vlad(descriptors, vocabulary, power, norm), expected, atol=1e-4)


def test_of_equal_words_the_first_takes_all(body):
    features = vlad([[1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], 1, None)
    np.testing.assert_array_equal(features, [1, 0, 0, 0])


def test_the_order_of_descriptors_does_not_matter(body):
    descriptors, vocabulary = arrays(200, 9, 32)
    np.testing.assert_allclose(vlad(descriptors[::-1], vocabulary), vlad(descriptors, vocabulary), atol=1e-6)


def test_intra_makes_words_that_occur_equal():
    descriptors, vocabulary = arrays(100, 4, 8)
    vocabulary[3] = 99
    lengths = np.linalg.norm(vlad(descriptors, vocabulary).reshape(4, 8), axis=1)
    np.testing.assert_allclose(lengths, [3**-0.5] * 3 + [0], atol=1e-6)


def test_residuals_that_nearly_vanish(body):
    vocabulary = np.random.default_rng(0).random((3, 8), dtype=np.float32)
    descriptors = np.repeat(vocabulary * np.float32(1 + 1e-6), 50, axis=0)
    np.testing.assert_allclose(
        vlad(descriptors, vocabulary), reference.vlad(descriptors, vocabulary, 0.5, "intra"), atol=1e-4
    )


def test_no_descriptors_give_zeros(body):
    np.testing.assert_array_equal(vlad(np.zeros((0, 3)), np.ones((2, 3))), np.zeros(6))


@pytest.mark.parametrize(
    ("descriptors", "vocabulary", "message"),
    [
        (np.zeros((5, 3)), np.zeros((4, 2)), r"shape \(5, 3\) and the vocabulary \(4, 2\)"),
        (np.zeros(5), np.zeros((4, 5)), "n_dims"),
        (np.zeros((5, 3)), np.zeros((0, 3)), "no words"),
        (np.full((5, 3), np.nan), np.zeros((4, 3)), "descriptors hold NaN"),
        (np.zeros((5, 3)), np.full((4, 3), -1e30), "words hold NaN"),
    ],
)
def test_bad_arrays_are_refused(descriptors, vocabulary, message):
    with pytest.raises(ValueError, match=message):
        vlad(descriptors, vocabulary)


@pytest.mark.parametrize("power", [0, 2, "half", None, True, np.nan])
def test_bad_powers_are_refused(power):
    with pytest.raises(ValueError, match="power="):
        vlad(np.zeros((5, 3)), np.ones((4, 3)), power)


@pytest.mark.parametrize("label", [-1, 2])
@pytest.mark.parametrize("cell", [-1, 1])
def test_the_kernel_refuses_what_lies_outside(body, label, cell):
    for labels, cells in (([0, label], [0, 0]), ([0, 1], [0, cell])):
        arrays = np.zeros((2, 3)), np.array(labels, np.int32), np.array(cells, np.int64), np.zeros((1, 2, 3))
        with pytest.raises(ValueError, match="fit together"):
            _native.kernels.residual_sums(np.zeros((2, 3), np.float32), None, *arrays)


@pytest.mark.parametrize("descriptor", [DenseSIFT(step=5, bin_size=(3, 4), root=True), KeypointSIFT()])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("n_dims", [None, 20])
def test_images_equal_the_reference(body, descriptor, levels, n_dims):
    images = crops(5, 53, 60)
    model = VLAD(descriptor, 6, n_dims, levels, random_state=0).fit(crops(40, 53, 60, seed=1))
    encode = partial(reference.vlad, vocabulary=model.vocabulary_, power=0.5, norm="intra")
    for row, (points, positions) in zip(model.transform(images), descriptor.describe(images), strict=True):
        if n_dims:
            points = (points - model.mean_.astype(float)) @ model.components_.T.astype(float)
        expected = reference.pyramid(encode, points, positions, (53, 60), levels)
        np.testing.assert_allclose(row, expected, atol=1e-4)


@pytest.mark.parametrize("own", [False, True], ids=["words of all photographs", "words of its own"])
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("n_dims", [None, 64])
def test_photographs_equal_the_reference(n_dims, root, own):
    # Flat areas give descriptors of zeros and a word on top of them; and where a word is the mean of no descriptors
    # but the image's, only its rounding is left. Scaled to length 1, both show every digit.
    images = photographs()
    assert all((points == 0).all(1).mean() > 0.1 for points in dense_sift(images[3:], root=root))
    for training, described in [(images[i : i + 1],) * 2 for i in range(5)] if own else [(images, images)]:
        model = VLAD(DenseSIFT(root=root), 32, n_dims, 2, random_state=0).fit(training)
        encode = partial(reference.vlad, vocabulary=model.vocabulary_, power=0.5, norm="intra")
        found = model.transform(described), model.descriptor_.describe(described)
        for row, (points, positions) in zip(*found, strict=True):
            if n_dims:
                points = (points - model.mean_.astype(float)) @ model.components_.T.astype(float)
            expected = reference.pyramid(encode, points, positions, (128, 128), 2)
            np.testing.assert_allclose(row, expected, atol=1e-6)


def test_no_two_words_are_the_same():
    images = np.concatenate([photographs(), np.full((8, 128, 128, 3), 99, np.uint8)])  # three in four are flat
    vocabulary = VLAD(n_words=64, random_state=0).fit(images).vocabulary_
    assert len(np.unique(vocabulary.round(5), axis=0)) == 64


def test_unscaled_cells_add_up():
    images = crops(3, 50, 50)
    features = VLAD(n_words=4, pyramid_levels=3, power=1, norm=None, random_state=0).fit_transform(images)
    cells = features.reshape(3, 21, -1)
    np.testing.assert_allclose(cells[:, 1:5].sum(1), cells[:, 0], atol=1e-4)
    np.testing.assert_allclose(cells[:, 5:].sum(1), cells[:, 0], atol=1e-4)


class Mirrored(DenseSIFT):
    """Says that what lies left lies right."""

    def describe(self, images):
        return [(d, p * [1, -1] + [0, images.shape[2] - 1]) for d, p in super().describe(images)]


def test_mirrored_places_mirror_the_cells():
    images = crops(3, 45, 48)  # a grid of descriptors that no edge of a cell cuts through
    plain, mirrored = (
        VLAD(d, 4, pyramid_levels=2, random_state=0).fit_transform(images).reshape(3, 5, -1)
        for d in (DenseSIFT(), Mirrored())
    )
    np.testing.assert_allclose(mirrored[:, [0, 2, 1, 4, 3]], plain, atol=1e-6)


def test_an_image_without_keypoints_gives_zeros():
    images = np.concatenate([crops(4, 64, 64), np.full((1, 64, 64, 3), 99, np.uint8)])
    features = VLAD(KeypointSIFT(), 3, pyramid_levels=2, random_state=0).fit_transform(images)
    assert features[:4].any(1).all()
    assert not features[4].any()


def test_rows_have_length_one():
    features = VLAD(n_words=5, pyramid_levels=2, random_state=0).fit_transform(crops(4, 40, 40))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-6)


def test_same_seed_same_words_other_seed_others():
    images = crops(8, 40, 40)
    a, b, c = (VLAD(n_words=5, random_state=s).fit(images).vocabulary_ for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    points = np.random.default_rng(0).normal(size=(500, 9)).astype(np.float32) * np.arange(1, 10, dtype=np.float32)
    mean, axes = learn_pca(points, 4)
    theirs = PCA(4).fit(points)
    np.testing.assert_allclose(mean, theirs.mean_, atol=1e-5)
    np.testing.assert_allclose(np.abs((axes * theirs.components_).sum(1)), 1, atol=1e-5)
    np.testing.assert_allclose(np.abs(project(points, axes, mean)), np.abs(theirs.transform(points)), atol=1e-4)


@pytest.mark.parametrize(("n", "n_axes", "n_dims"), [(0, 3, 5), (1, 1, 1), (29, 31, 33), (50, 64, 128)])
@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_projection(body, n, n_axes, n_dims, dtype, atol):
    points, axes = arrays(n, n_axes, n_dims)
    mean = np.arange(n_dims, dtype=np.float32) / n_dims
    expected = (points.astype(float) - mean) @ axes.astype(float).T
    projected = project(points, axes, mean, dtype)
    assert projected.dtype == dtype
    np.testing.assert_allclose(projected, expected, atol=atol)
    for row, alone in zip(projected, points, strict=True):
        np.testing.assert_array_equal(project(alone[None], axes, mean, dtype)[0], row)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("n_words", 0, "n_words=0"),
        ("n_words", 5000, "only 98 descriptors"),
        ("n_dims", 2.5, "n_dims=2.5"),
        ("n_dims", 129, "n_dims=129, but the descriptors have only 128"),
        ("pyramid_levels", 0, "pyramid_levels=0"),
        ("power", 0, "power=0"),
        ("norm", "L2", "norm='L2'"),
        ("samples_per_word", -1, "samples_per_word=-1"),
    ],
)
def test_bad_parameters_are_named(parameter, value, message):
    with pytest.raises(ValueError, match=message):
        VLAD(**{"n_words": 4, parameter: value}).fit(crops(2, 40, 40))


def test_names_say_word_dimension_level_and_cell():
    names = VLAD(n_words=3, n_dims=2, pyramid_levels=2, random_state=0).fit(crops(2, 40, 40)).get_feature_names_out()
    expected = ["vlad_0_0_level0_cell0", "vlad_0_1_level0_cell0", "vlad_1_0_level0_cell0", "vlad_2_1_level1_cell3"]
    assert names[[0, 1, 2, -1]].tolist() == expected


# --- On a GPU ---------------------------------------------------------------------------------------------------------


def vlad_there(cupy, descriptors, vocabulary, *args):
    features = vlad(cupy.asarray(descriptors), cupy.asarray(vocabulary), *args)
    assert type(features) is cupy.ndarray
    assert features.dtype == np.float32
    return features.get()


@pytest.mark.parametrize("chunk", [1, 1 << 24])
@pytest.mark.parametrize(("n", "n_words", "n_dims"), [(1, 1, 1), (1, 3, 5), (40, 7, 17), (301, 33, 64)])
def test_on_a_gpu_it_equals_the_reference(cupy, monkeypatch, n, n_words, n_dims, chunk):
    monkeypatch.setattr(_array_encoders, "_CHUNK", chunk)
    descriptors, vocabulary = arrays(n, n_words, n_dims)
    for power in (0.3, 0.5, 1):
        for norm in ("intra", "l2", None):
            expected = reference.vlad(descriptors, vocabulary, power, norm)
            np.testing.assert_allclose(vlad_there(cupy, descriptors, vocabulary, power, norm), expected, atol=1e-4)


def test_on_a_gpu_what_is_special(cupy):
    np.testing.assert_array_equal(vlad_there(cupy, [[1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], 1, None), [1, 0, 0, 0])
    np.testing.assert_array_equal(vlad_there(cupy, np.zeros((0, 3)), np.ones((2, 3))), np.zeros(6))
    vocabulary = np.random.default_rng(0).random((3, 8), dtype=np.float32)
    descriptors = np.repeat(vocabulary * np.float32(1 + 1e-6), 50, axis=0)
    expected = reference.vlad(descriptors, vocabulary, 0.5, "intra")
    np.testing.assert_allclose(vlad_there(cupy, descriptors, vocabulary), expected, atol=1e-5)


def test_on_a_gpu_bad_arrays_are_refused(cupy):
    points, there = np.ones((5, 3)), cupy.asarray(np.ones((5, 3)))
    for mixed in ((points, there), (there, points)):
        with pytest.raises(TypeError, match="Some of the arrays lie in the host's memory"):
            vlad(*mixed)
    with pytest.raises(ValueError, match="descriptors hold NaN"):
        vlad(there * np.nan, there)
    with pytest.raises(ValueError, match=r"shape \(5, 3\) and the vocabulary \(5, 2\)"):
        vlad(there, there[:, :2])


@pytest.mark.parametrize("own", [False, True], ids=["words of all photographs", "words of its own"])
@pytest.mark.parametrize("n_dims", [None, 64])
def test_photographs_on_a_gpu_equal_the_reference(cupy, n_dims, own):
    images = photographs()
    for training in [images[i : i + 1] for i in range(5)] if own else [images]:
        model = VLAD(DenseSIFT(root=True), 32, n_dims, 2, random_state=0).fit(cupy.asarray(training))
        encode = partial(reference.vlad, vocabulary=model.vocabulary_, power=0.5, norm="intra")
        there = cupy.asarray(training)
        found = model.transform(there).get(), model.descriptor_.describe(there)
        for row, (points, positions) in zip(*found, strict=True):
            points = points.get()
            if n_dims:
                points = (points - model.mean_.astype(float)) @ model.components_.T.astype(float)
            expected = reference.pyramid(encode, points, positions, (128, 128), 2)
            np.testing.assert_allclose(row, expected, atol=1e-6)
