from pathlib import Path

import joblib
import numpy as np
import pytest
import reference
from skimage.data import camera
from sklearn.base import clone

from classic_cls import DenseSIFT, dense_sift

GOLDEN = Path(__file__).parent / "golden" / "vlfeat_dsift.npz"


def crops(n, height, width, seed=0):
    rng = np.random.default_rng(seed)
    tops, lefts = rng.integers(0, 512 - height, n), rng.integers(0, 512 - width, n)
    return np.stack([camera()[y : y + height, x : x + width] for y, x in zip(tops, lefts, strict=True)])


def expected(images, *args):
    return np.stack([reference.dense_sift(image, *args) for image in images])


# step, bin_size, height, width: step equals bin, coprime, one a multiple of the other, a common divisor.
GEOMETRIES = [
    *[(4, 4, 32, 32), (4, 4, 31, 45), (4, 4, 16, 13), (8, 8, 45, 40), (1, 1, 6, 9), (5, 5, 33, 26)],
    *[(3, 4, 23, 22), (5, 2, 23, 31), (1, 3, 12, 14), (7, 3, 24, 31), (4, 3, 15, 40)],
    *[(2, 4, 19, 24), (4, 2, 17, 30), (8, 4, 34, 38), (4, 8, 30, 33), (1, 4, 15, 16), (12, 4, 40, 29)],
    *[(6, 4, 27, 32), (4, 6, 25, 28), (9, 6, 41, 30), (40, 4, 32, 32)],
]


@pytest.mark.parametrize(("step", "bin_size", "height", "width"), GEOMETRIES)
@pytest.mark.parametrize("root", [False, True])
def test_equals_reference(body, step, bin_size, height, width, root):
    images = crops(2, height, width)
    want = expected(images / 255, step, bin_size, 0, root)
    got = dense_sift(images, step, bin_size, 0, root)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=3e-6)
    np.testing.assert_array_equal(dense_sift(images / 255, step, bin_size, 0, root), got)


@pytest.mark.parametrize("threshold", [0.005, 0.02])
@pytest.mark.parametrize("root", [False, True])
def test_low_contrast_becomes_zeros(body, threshold, root):
    images = crops(4, 40, 40)
    images[:, 15:] //= 20
    want = expected(images / 255, 4, 4, threshold, root)
    np.testing.assert_allclose(dense_sift(images, 4, 4, threshold, root), want, atol=3e-6)
    kept = want.any(axis=2)
    assert 0 < kept.sum() < kept.size


@pytest.mark.parametrize("case", ["astronaut_48x80_step4_bin4", "camera_33x47_step5_bin5"])
def test_equals_vlfeat(body, case):
    golden = np.load(GOLDEN)
    image, (step, bin_size) = golden[f"{case}__image"], golden[f"{case}__step_bin"]
    flat, norm = golden[f"{case}__flat"].reshape(-1, 128), golden[f"{case}__norm"].ravel()
    got = dense_sift(image[None], step, bin_size, 0)[0]
    assert np.linalg.norm(got - flat, axis=1).mean() < 0.006
    threshold = np.median(norm) / 255
    kept = dense_sift(image[None], step, bin_size, threshold)[0].any(axis=1)
    clear = np.abs(norm / 255 - threshold) > 1e-5
    np.testing.assert_array_equal(kept[clear], (norm / 255 > threshold)[clear])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int64])
def test_same_picture_in_any_dtype(body, dtype):
    images = crops(2, 30, 34)
    white = {"f": 1, "u": 65535, "i": 255}[np.dtype(dtype).kind]
    same = (images * np.float64(white) / 255).astype(dtype)
    np.testing.assert_array_equal(dense_sift(same), dense_sift(images))


def test_real_valued_pixels(body):
    images = np.random.default_rng(0).random((2, 25, 26))
    np.testing.assert_allclose(dense_sift(images, 3, 2), expected(images, 3, 2), atol=3e-6)
    np.testing.assert_allclose(dense_sift(images - 0.5, 3, 2), dense_sift(images, 3, 2), atol=3e-6)


def test_color_is_read_as_gray(body):
    color = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)
    gray = color @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(dense_sift(color), expected(gray), atol=3e-6)
    np.testing.assert_array_equal(dense_sift(color / 255), dense_sift(color))


@pytest.mark.parametrize("shape", [(32, 32), (29, 43)])
def test_alone_or_in_a_batch_on_any_number_of_threads(body, shape):
    images = crops(70, *shape)
    got = dense_sift(images)
    np.testing.assert_array_equal(dense_sift(images, n_jobs=2), got)
    with joblib.parallel_config(n_jobs=3):
        np.testing.assert_array_equal(dense_sift(images), got)
    for i in (0, 1, 37, 69):
        np.testing.assert_array_equal(dense_sift(images[i : i + 1])[0], got[i])


def test_memory_layout_does_not_matter(body):
    images = crops(3, 30, 34)
    want, kept = dense_sift(images), images.copy()
    images.flags.writeable = False
    np.testing.assert_array_equal(dense_sift(images), want)
    np.testing.assert_array_equal(images, kept)
    strided = np.zeros((6, 60, 68), np.uint8)[::2, ::2, ::2]
    strided[...] = images
    np.testing.assert_array_equal(dense_sift(strided), want)
    np.testing.assert_array_equal(dense_sift(np.asfortranarray(images)), want)
    np.testing.assert_array_equal(dense_sift(images[..., None]), want)
    np.testing.assert_array_equal(dense_sift(images.reshape(3, -1), image_shape=(30, 34)), want)


def test_mirrored_image_has_permuted_descriptors(body):
    images = crops(2, 29, 33)
    grid = dense_sift(images).reshape(2, 5, 6, 4, 4, 8)
    across = dense_sift(images[:, :, ::-1]).reshape(grid.shape)[:, :, ::-1, :, ::-1]
    np.testing.assert_allclose(across[..., (4 - np.arange(8)) % 8], grid, atol=1e-6)
    down = dense_sift(images[:, ::-1]).reshape(grid.shape)[:, ::-1, :, ::-1]
    np.testing.assert_allclose(down[..., -np.arange(8) % 8], grid, atol=1e-6)


def test_ramp_points_one_way(body):
    ramp = np.tile(np.linspace(0, 1, 20), (20, 1))
    for turns, direction in ((0, 0), (3, 2), (2, 4), (1, 6)):
        histogram = dense_sift(np.rot90(ramp, turns)[None]).reshape(-1, 8)
        assert (histogram.argmax(axis=1) == direction).all()
        assert (np.delete(histogram, direction, axis=1) < 1e-6).all()


@pytest.mark.parametrize("threshold", [0, 0.005])
@pytest.mark.parametrize("root", [False, True])
def test_constant_image_gives_zeros(body, threshold, root):
    for value in (0, 77, 255):
        assert not dense_sift(np.full((1, 16, 19), value, np.uint8), 4, 4, threshold, root).any()


def test_rows_have_unit_length(body):
    images = crops(2, 40, 40)
    for root in (False, True):
        length = np.linalg.norm(dense_sift(images, 4, 4, 0, root), axis=2)
        np.testing.assert_allclose(length, 1, atol=1e-6)


@pytest.mark.parametrize("bin_size", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("step", [1, 4, 100])
def test_smallest_image(body, step, bin_size):
    side = 3 * bin_size + 1
    images = crops(1, side, side)
    got = dense_sift(images, step, bin_size, 0)
    assert got.shape == (1, 1, 128)
    np.testing.assert_allclose(got, expected(images / 255, step, bin_size, 0), atol=3e-6)
    with pytest.raises(ValueError, match=f"{side - 1} x {side} pixels.*at least {side} x {side}.*Resize"):
        dense_sift(images[:, 1:], step, bin_size)


def test_several_bin_sizes_are_laid_end_to_end(body):
    images = crops(3, 40, 43)
    parts = [dense_sift(images, 3, size) for size in (4, 6, 2)]
    np.testing.assert_array_equal(dense_sift(images, 3, (4, 6, 2)), np.concatenate(parts, axis=1))
    np.testing.assert_array_equal(dense_sift(images, 3, np.array([4])), parts[0])


def test_list_of_images_of_different_sizes(body):
    images = [crops(1, *shape)[0] for shape in ((30, 33), (16, 40), (30, 33))]
    got = DenseSIFT(bin_size=(4, 5), n_jobs=2).fit(images).transform(images)
    for image, descriptors in zip(images, got, strict=True):
        np.testing.assert_array_equal(descriptors, dense_sift(image[None], bin_size=(4, 5))[0])


def test_positions_are_the_centres():
    positions = DenseSIFT(step=3, bin_size=4).positions((16, 19))
    np.testing.assert_array_equal(positions, [[6, 6], [6, 9], [6, 12], [9, 6], [9, 9], [9, 12]])
    assert positions.dtype == np.float32
    both = DenseSIFT(step=3, bin_size=(4, 5)).positions((16, 19, 3))
    np.testing.assert_array_equal(both, [*positions, [7.5, 7.5], [7.5, 10.5]])


def test_descriptor_sees_only_what_is_near_its_position():
    image = np.zeros((1, 41, 53), np.uint8)
    image[0, 20, 30] = 255
    sift = DenseSIFT(step=4, bin_size=3, contrast_threshold=0)
    away = np.abs(sift.positions((41, 53)) - (20, 30)).max(axis=1)
    sees = sift.fit_transform(image)[0].any(axis=1)
    np.testing.assert_array_equal(sees, away < 4.5 + 3 + 1)


def test_describe_gives_descriptors_and_positions():
    sift = DenseSIFT(step=5, bin_size=(3, 4))
    images = crops(3, 20, 24)
    for i, (descriptors, positions) in enumerate(sift.describe(images[..., None])):
        np.testing.assert_array_equal(descriptors, dense_sift(images, 5, (3, 4))[i])
        np.testing.assert_array_equal(positions, sift.positions((20, 24)))
    ragged = [images[0], images[1][:18]]
    for image, (descriptors, positions) in zip(ragged, sift.describe(ragged), strict=True):
        np.testing.assert_array_equal(descriptors, dense_sift(image[None], 5, (3, 4))[0])
        np.testing.assert_array_equal(positions, sift.positions(image.shape))


def test_estimator_is_a_shell_over_the_function():
    images = crops(3, 20, 24)
    sift = clone(DenseSIFT(step=3, bin_size=2, contrast_threshold=0.01, root=True))
    np.testing.assert_array_equal(sift.fit_transform(images), dense_sift(images, 3, 2, 0.01, True))
    assert sift.image_shape_ == (20, 24, 1)
    assert not hasattr(sift, "set_output")
    assert sift.transform([images[0], images[1][:, :20]])[1].shape == (25, 128)
    with pytest.raises(ValueError, match="fitted on images of shape"):
        sift.transform(np.zeros((1, 20, 24, 3)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"step": 0}, "step=0; expected a positive int"),
        ({"step": 2.5}, "step=2.5"),
        ({"bin_size": 0}, "bin_size=0"),
        ({"bin_size": (4, -1)}, "bin_size=-1"),
        ({"bin_size": ()}, r"bin_size=\(\)"),
        ({"contrast_threshold": -0.1}, "contrast_threshold=-0.1"),
        ({"contrast_threshold": float("nan")}, "contrast_threshold=nan"),
        ({"contrast_threshold": "low"}, "contrast_threshold='low'"),
    ],
)
def test_parameters_out_of_range(parameters, message):
    images = np.zeros((1, 32, 32))
    with pytest.raises(ValueError, match=message):
        dense_sift(images, **parameters)
    with pytest.raises(ValueError, match=message):
        DenseSIFT(**parameters).fit(images)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e7, -1e7])
def test_pixels_that_cannot_be(bad):
    images = np.zeros((2, 16, 16))
    images[1, 3, 4] = bad
    for call in (dense_sift, DenseSIFT().fit, DenseSIFT().describe):
        with pytest.raises(ValueError, match=r"NaN|cannot be images"):
            call(images)
