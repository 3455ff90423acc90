from functools import partial

import numpy as np
import pytest
import reference
import skimage.feature
from conftest import crops, photographs
from sklearn.mixture import GaussianMixture

from classic_cls import DenseSIFT, FisherVector, KeypointSIFT, _native, fisher_vector
from classic_cls.features import _array_encoders
from classic_cls.features.fisher_vector import learn_mixture

SIZES = [(1, 1, 1), (1, 3, 5), (25, 7, 17), (60, 33, 64), (301, 20, 33)]


def make_mixture(n_components, n_dims, seed=0):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(n_components, 5.0)).astype(np.float32)
    means = rng.normal(size=(n_components, n_dims)).astype(np.float32)
    return weights, means, rng.uniform(0.3, 3, (n_components, n_dims)).astype(np.float32)


def make_points(n, n_dims):
    return np.random.default_rng(1).normal(size=(n, n_dims)).astype(np.float32) * 1.5


@pytest.mark.parametrize("power", [0.3, 0.5, 1])
@pytest.mark.parametrize("norm", ["l2", None])
@pytest.mark.parametrize(("n", "n_components", "n_dims"), SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_reference(body, dtype, n, n_components, n_dims, norm, power):
    points, mixture = make_points(n, n_dims).astype(dtype), make_mixture(n_components, n_dims)
    expected = reference.fisher_vector(points, *mixture, power, norm)
    features = fisher_vector(points, *mixture, power, norm)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("improved", [False, True])
def test_equals_scikit_image(body, improved):
    # Theirs has n_components numbers for the weights first, and turns the sign of those for the variances.
    points = make_points(400, 12).astype(float)
    theirs = GaussianMixture(5, covariance_type="diag", random_state=0).fit(points)
    expected = skimage.feature.fisher_vector(points, theirs)[5:]
    expected[60:] *= -1
    if improved:
        expected = np.sign(expected) * np.sqrt(np.abs(expected))
        expected /= np.linalg.norm(expected)
    parameters = {"power": 0.5, "norm": "l2"} if improved else {"power": 1, "norm": None}
    features = fisher_vector(points, theirs.weights_, theirs.means_, theirs.covariances_, **parameters)
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_what_the_mixture_expects_gives_nearly_nothing(body):
    weights, means, variances = make_mixture(3, 6)
    rng = np.random.default_rng(0)
    owners = rng.choice(3, 20000, p=weights / weights.sum())
    points = means[owners] + rng.normal(size=(20000, 6)) * np.sqrt(variances[owners])
    assert np.abs(fisher_vector(points, weights, means, variances, 1, None)).max() < 0.03


def test_far_from_the_origin(body):
    points, (weights, means, variances) = make_points(100, 8), make_mixture(4, 8)
    expected = fisher_vector(points, weights, means, variances)
    moved = fisher_vector(points + 128, weights, means + 128, variances)
    np.testing.assert_allclose(moved, expected, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_far_outliers_and_tiny_variances_stay_finite(body, scale):
    weights, means, variances = make_mixture(4, 8)
    points = np.concatenate([make_points(5, 8), np.full((1, 8), 1e6), np.full((1, 8), -1e6)])
    features = fisher_vector(points, weights, means, variances * scale)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(np.linalg.norm(features), 1, atol=1e-5)


def test_the_order_of_descriptors_does_not_matter(body):
    points, mixture = make_points(200, 32), make_mixture(9, 32)
    np.testing.assert_allclose(fisher_vector(points[::-1], *mixture), fisher_vector(points, *mixture), atol=2e-6)


def test_no_descriptors_give_zeros(body):
    np.testing.assert_array_equal(fisher_vector(np.zeros((0, 6)), *make_mixture(3, 6)), np.zeros(36))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, w, m, v: (x[0], w, m, v), "descriptors have shape"),
        (lambda x, w, m, v: (x[:, :5], w, m, v), "for descriptors of 5 numbers"),
        (lambda x, w, m, v: (x, w[:2], m, v), r"shapes \(2,\), \(3, 6\)"),
        (lambda x, w, m, v: (x, w, m[:2], v), r"\(2, 6\)"),
        (lambda x, w, m, v: (x, w, m, v.T), r"\(6, 3\)"),
        (lambda x, w, m, v: (x, w[:0], m[:0], v[:0]), "expected"),
        (lambda x, w, m, v: (x * np.nan, w, m, v), "descriptors hold NaN"),
        (lambda x, w, m, v: (x, w, m * 1e20, v), "means hold NaN"),
        (lambda x, w, m, v: (x, w * 0, m, v), "weights of the mixture range from 0 to 0"),
        (lambda x, w, m, v: (x, w, m, -v), "variances of the mixture range from -"),
        (lambda x, w, m, v: (x, w, m, v * 1e-21), "variances .* expected 1e-20"),
        (lambda x, w, m, v: (x, w, m, v * np.inf), "variances .* to inf"),
        (lambda x, w, m, v: (x, w, m, v * np.nan), "variances .* nan"),
    ],
)
def test_bad_arrays_are_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        fisher_vector(*spoil(make_points(4, 6), *make_mixture(3, 6)))


@pytest.mark.parametrize("cell", [-1, 2])
def test_the_kernel_refuses_what_lies_outside(body, cell):
    points, *mixture = (a.astype(float) for a in (make_points(1, 6), *make_mixture(3, 6)))
    with pytest.raises(ValueError, match="fit together"):
        _native.kernels.fisher_sums(points, np.array([cell]), *mixture, np.zeros((2, 3)), np.zeros((2, 2, 3, 6)))


def test_the_kernel_knows_no_gaussian_beyond_the_last(body):
    # All densities overflow, those that only fill up a vector as well.
    points, variances, counts = np.full((500, 3), 1e6), np.full((1, 3), 1e-38), np.zeros((1, 1))
    mixture = np.ones(1), np.zeros((1, 3)), variances
    _native.kernels.fisher_sums(points, np.zeros(500, np.int64), *mixture, counts, np.zeros((1, 2, 1, 3)))
    assert 0 <= counts[0, 0] <= 500


@pytest.mark.parametrize("descriptor", [DenseSIFT(step=5, bin_size=(3, 4)), DenseSIFT(root=True), KeypointSIFT()])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize(("n_dims", "append_position"), [(None, False), (20, False), (20, True), (None, True)])
def test_images_equal_the_reference(body, descriptor, levels, n_dims, append_position):
    images = crops(3, 53, 60)
    model = FisherVector(descriptor, 5, n_dims, levels, append_position, random_state=0)
    model.fit(crops(20, 53, 60, seed=1))
    mixture = {"weights": model.weights_, "means": model.means_, "variances": model.variances_}
    encode = partial(reference.fisher_vector, **mixture, power=0.5, norm="l2")
    for row, (points, positions) in zip(model.transform(images), descriptor.describe(images), strict=True):
        if n_dims:
            points = (points - model.mean_.astype(float)) @ model.components_.T.astype(float)
        if append_position:
            points = np.c_[points, (positions[:, ::-1] + 0.5) / [60, 53] - 0.5]
        expected = reference.pyramid(encode, points, positions, (53, 60), levels)
        np.testing.assert_allclose(row, expected, atol=1e-4)


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("n_dims", [None, 64])
def test_photographs_equal_the_reference(body, n_dims, root):
    # Flat areas give descriptors of zeros and a very narrow Gaussian around them, among wide ones far away.
    images = photographs()
    model = FisherVector(DenseSIFT(root=root), 16, n_dims, random_state=0).fit(images)
    for row, (points, positions) in zip(model.transform(images), model.descriptor_.describe(images), strict=True):
        if n_dims:
            points = (points - model.mean_.astype(float)) @ model.components_.T.astype(float)
        points = np.c_[points, (positions[:, ::-1] + 0.5) / 128 - 0.5]
        expected = reference.fisher_vector(points, model.weights_, model.means_, model.variances_, 0.5, "l2")
        np.testing.assert_allclose(row, expected, atol=1e-4)


@pytest.mark.parametrize("n_components", [4, 64])
def test_the_one_image_that_it_was_fitted_on_equals_the_reference(body, n_components):
    # There the sums nearly cancel: that is how the mixture was found. Left out are posteriors below 1e-8.
    image = photographs()[:1]
    describe = DenseSIFT(contrast_threshold=0)
    model = FisherVector(describe, n_components, append_position=False, power=1, norm=None, random_state=0).fit(image)
    [(points, _)] = model.descriptor_.describe(image)
    points = (points - model.mean_.astype(float)) @ model.components_.T.astype(float)
    expected = reference.fisher_vector(points, model.weights_, model.means_, model.variances_)
    np.testing.assert_allclose(model.transform(image)[0], expected, atol=2e-8)


def test_double_arrays_are_not_rounded(body):
    rng = np.random.default_rng(0)
    means, points = rng.normal(size=(3, 6)), rng.normal(size=(40, 6))
    points[:20] = means[0] + 1e-9 * points[:20]  # float32 would take them for the mean
    variances = np.stack([np.full(6, 1e-18), np.ones(6), np.ones(6)])
    mixture = np.full(3, 1 / 3), means, variances
    np.testing.assert_allclose(
        fisher_vector(points, *mixture), reference.fisher_vector(points, *mixture, 0.5, "l2"), atol=1e-4
    )


def test_far_away_the_nearer_of_two_gaussians_takes_it_all(body):
    # In float32 both are equally likely there.
    means, variances = np.array([[0.0, 0], [0, 1]]), np.full((2, 2), 1e-4)
    features = fisher_vector(np.array([[9e5, 0.75]]), [0.5, 0.5], means, variances, power=1, norm=None)
    np.testing.assert_allclose(features.reshape(2, 2, 2)[:, 0], 0, atol=1e-12)
    assert (np.abs(features.reshape(2, 2, 2)[:, 1]) > 1).all()


def test_unscaled_cells_average_to_the_whole():
    images = crops(3, 50, 50)
    model = FisherVector(n_components=3, n_dims=8, pyramid_levels=2, power=1, norm=None, random_state=0)
    cells = model.fit_transform(images).reshape(3, 5, -1)
    positions = DenseSIFT().positions((50, 50))
    row, col = ((positions + 0.5) / 50 * 2).astype(int).T
    shares = np.bincount(row * 2 + col) / len(positions)
    np.testing.assert_allclose(np.einsum("c,ncd->nd", shares, cells[:, 1:]), cells[:, 0], atol=1e-4)


def test_an_image_without_keypoints_gives_zeros():
    images = np.concatenate([crops(4, 64, 64), np.full((1, 64, 64, 3), 99, np.uint8)])
    for parameters in ({"pyramid_levels": 2}, {"append_position": True}):
        features = FisherVector(KeypointSIFT(), 3, 8, **parameters, random_state=0).fit_transform(images)
        assert features[:4].any(1).all()
        assert not features[4].any()


def test_flat_images_are_no_trouble():
    images = np.concatenate([np.full((4, 40, 40), 7, np.uint8), crops(2, 40, 40)[..., 0]])
    for training in (images[:4], images):
        features = FisherVector(n_components=3, n_dims=8, random_state=0).fit(training).transform(images)
        assert np.isfinite(features).all()


def test_rows_have_length_one():
    model = FisherVector(n_components=3, n_dims=8, pyramid_levels=2, random_state=0)
    np.testing.assert_allclose(np.linalg.norm(model.fit_transform(crops(4, 40, 40)), axis=1), 1, atol=1e-6)


def test_the_mixture_is_as_likely_as_scikit_learns(body):
    rng = np.random.default_rng(0)
    centers, spreads = rng.normal(size=(8, 6)) * 2, rng.uniform(0.2, 2, (8, 6))
    owners = rng.integers(0, 8, 6000)
    points = (centers[owners] + spreads[owners] * rng.normal(size=(6000, 6))).astype(np.float32)
    weights, means, variances = learn_mixture(points, 8, np.random.RandomState(0))
    theirs = GaussianMixture(8, covariance_type="diag", random_state=0, max_iter=200).fit(points.astype(float))
    start = {"weights_init": weights / weights.sum(dtype=float), "means_init": means, "precisions_init": 1 / variances}
    ours = GaussianMixture(8, covariance_type="diag", max_iter=1, **start)
    with pytest.warns(match="did not converge"):
        ours.fit(points.astype(float))
    assert ours.score(points) > theirs.score(points) - 0.02
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-6)


def test_one_gaussian_is_the_mean_and_the_variance(body):
    points = make_points(10000, 5)
    weights, means, variances = learn_mixture(points, 1, np.random.RandomState(0))
    np.testing.assert_allclose(weights, [1])
    np.testing.assert_allclose(means[0], points.mean(0), atol=1e-5)
    np.testing.assert_allclose(variances[0], points.var(0), rtol=1e-4)


def test_the_mixture_is_the_same_whatever_n_jobs():
    points = make_points(9000, 5)
    one, two = (learn_mixture(points, 6, np.random.RandomState(0), n_jobs=n) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_variances_do_not_collapse():
    points = np.repeat(make_points(4, 5), 50, axis=0)
    _, _, variances = learn_mixture(points, 6, np.random.RandomState(0))
    assert variances.min() >= 0.99e-4 * points.var(0).max()


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("n_components", 0, "n_components=0"),
        ("n_components", 5000, "only 98 descriptors"),
        ("n_dims", 2.5, "n_dims=2.5"),
        ("n_dims", 129, "n_dims=129, but the descriptors have only 128"),
        ("pyramid_levels", 0, "pyramid_levels=0"),
        ("power", 0, "power=0"),
        ("norm", "intra", "norm='intra'"),
        ("samples_per_component", -1, "samples_per_component=-1"),
    ],
)
def test_bad_parameters_are_named(parameter, value, message):
    with pytest.raises(ValueError, match=message):
        FisherVector(**{"n_components": 4, parameter: value}).fit(crops(2, 40, 40))


def test_names_say_what_of_which_gaussian():
    model = FisherVector(n_components=3, n_dims=2, pyramid_levels=2, append_position=False, random_state=0)
    model.fit(crops(2, 40, 40))
    names = model.get_feature_names_out()
    assert names[[0, 1, 6, -1]].tolist() == [
        "fisher_mean_0_0_level0_cell0",
        "fisher_mean_0_1_level0_cell0",
        "fisher_variance_0_0_level0_cell0",
        "fisher_variance_2_1_level1_cell3",
    ]


# --- On a GPU ---------------------------------------------------------------------------------------------------------


def fisher_there(cupy, *arrays, **parameters):
    features = fisher_vector(*map(cupy.asarray, arrays), **parameters)
    assert type(features) is cupy.ndarray
    assert features.dtype == np.float32
    return features.get()


@pytest.mark.parametrize("chunk", [1, 1 << 24])
@pytest.mark.parametrize(("n", "n_components", "n_dims"), SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_on_a_gpu_it_equals_the_reference(cupy, monkeypatch, dtype, n, n_components, n_dims, chunk):
    monkeypatch.setattr(_array_encoders, "_CHUNK", chunk)
    points, mixture = make_points(n, n_dims).astype(dtype), make_mixture(n_components, n_dims)
    for power in (0.3, 0.5, 1):
        for norm in ("l2", None):
            expected = reference.fisher_vector(points, *mixture, power, norm)
            features = fisher_there(cupy, points, *mixture, power=power, norm=norm)
            np.testing.assert_allclose(features, expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("scale", [1e-12, 1e6])
def test_on_a_gpu_far_outliers_and_tiny_variances_stay_finite(cupy, scale):
    weights, means, variances = make_mixture(4, 8)
    points = np.concatenate([make_points(5, 8), np.full((1, 8), 1e6), np.full((1, 8), -1e6)])
    features = fisher_there(cupy, points, weights, means, variances * scale)
    np.testing.assert_allclose(np.linalg.norm(features), 1, atol=1e-5)


def test_on_a_gpu_what_is_special(cupy):
    np.testing.assert_array_equal(fisher_there(cupy, np.zeros((0, 6)), *make_mixture(3, 6)), np.zeros(36))
    means, variances = np.array([[0.0, 0], [0, 1]]), np.full((2, 2), 1e-4)
    points = np.array([[9e5, 0.75]])  # far away the nearer of two Gaussians takes it all
    features = fisher_there(cupy, points, [0.5, 0.5], means, variances, power=1, norm=None).reshape(2, 2, 2)
    np.testing.assert_allclose(features[:, 0], 0, atol=1e-12)
    assert (np.abs(features[:, 1]) > 1).all()


def test_on_a_gpu_negligible_posteriors_are_none(cupy):
    means = np.array([[0.0], [6.2]])  # of exp(-6.2**2 / 2) = 4.5e-9
    features = fisher_there(cupy, [[0.0]], [0.5, 0.5], means, np.ones((2, 1)), power=1, norm=None)
    assert (features.reshape(2, 2)[:, 1] == 0).all()


def test_on_a_gpu_double_arrays_are_not_rounded(cupy):
    rng = np.random.default_rng(0)
    means, points = rng.normal(size=(3, 6)), rng.normal(size=(40, 6))
    points[:20] = means[0] + 1e-9 * points[:20]
    variances = np.stack([np.full(6, 1e-18), np.ones(6), np.ones(6)])
    mixture = np.full(3, 1 / 3), means, variances
    expected = reference.fisher_vector(points, *mixture, 0.5, "l2")
    np.testing.assert_allclose(fisher_there(cupy, points, *mixture), expected, atol=1e-4)


def test_on_a_gpu_bad_arrays_are_refused(cupy):
    arrays = make_points(4, 6), *make_mixture(3, 6)
    there = [cupy.asarray(a) for a in arrays]
    for i in range(4):
        mixed = [a if i == j else b for j, (a, b) in enumerate(zip(arrays, there, strict=True))]
        with pytest.raises(TypeError, match="Some of the arrays lie in the host's memory"):
            fisher_vector(*mixed)
    with pytest.raises(ValueError, match="descriptors hold NaN"):
        fisher_vector(there[0] * np.nan, *there[1:])
    with pytest.raises(ValueError, match="variances of the mixture range from -"):
        fisher_vector(*there[:3], -there[3])
    with pytest.raises(ValueError, match="for descriptors of 5 numbers"):
        fisher_vector(there[0][:, :5], *there[1:])


@pytest.mark.parametrize("own", [False, True], ids=["fitted on all photographs", "fitted on it alone"])
@pytest.mark.parametrize("n_dims", [None, 64])
def test_photographs_on_a_gpu_equal_the_reference(cupy, n_dims, own):
    images = photographs()
    for training in (images[:1], images[4:]) if own else (images,):
        there, model = cupy.asarray(training), FisherVector(DenseSIFT(contrast_threshold=0), 16, n_dims, random_state=0)
        found = model.fit(there).transform(there).get(), model.descriptor_.describe(there)
        for row, (points, positions) in zip(*found, strict=True):
            points = points.get()
            if n_dims:
                points = (points - model.mean_.astype(float)) @ model.components_.T.astype(float)
            points = np.c_[points, (positions[:, ::-1] + 0.5) / 128 - 0.5]
            expected = reference.fisher_vector(points, model.weights_, model.means_, model.variances_, 0.5, "l2")
            np.testing.assert_allclose(row, expected, atol=3e-5)  # roots of gradients at their optimum
