import numpy as np
import pytest
import reference
import skimage.data
import skimage.feature

from classic_cls import HOG, hog

NORMS = ["L1", "L1-sqrt", "L2", "L2-Hys"]


def skimage_hog(images, *args, **kwargs):
    axis = -1 if images.ndim == 4 else None
    unit = images / 255.0
    return np.stack([skimage.feature.hog(image, *args, channel_axis=axis, **kwargs) for image in unit])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("orientations", [1, 2, 5, 8, 9, 12, 18])
@pytest.mark.parametrize("colour", [False, True])
def test_equals_skimage(body, photos, gray, norm, root, orientations, colour):
    images = photos[[0, 3, 6]] if colour else gray[[0, 3, 6]]
    for cell, block in [((8, 8), (3, 3)), ((8, 8), (2, 2)), ((5, 7), (1, 2)), ((12, 4), (3, 1))]:
        expected = skimage_hog(images, orientations, cell, block, norm, transform_sqrt=root)
        for dtype in (np.uint8, np.float32, np.float64):
            X = images if dtype == np.uint8 else (images / 255.0).astype(dtype)
            np.testing.assert_allclose(hog(X, orientations, cell, block, norm, root), expected, atol=1e-5)


def test_equals_skimage_where_channels_are_equally_strong(body):
    # In a photograph that is a pixel in thousands, and rounding decides which channel votes.
    photo = skimage.data.coffee()
    images = np.stack([photo[y : y + 128, x : x + 128] for y in (0, 130, 260) for x in (0, 200, 400)])
    np.testing.assert_allclose(hog(images, cells_per_block=(2, 2)), skimage_hog(images, 9, (8, 8), (2, 2)), atol=1e-5)


@pytest.mark.parametrize("orientations", range(1, 37))
def test_every_byte_gradient_lands_in_skimages_bin(body, orientations):
    # A 3 x 3 picture has one gradient, in its middle: all pairs of a spread of differences, in one batch.
    steps = np.r_[-255:-20:9, -20:21, 21:256:9]
    gy, gx = (g.ravel() for g in np.meshgrid(steps, steps))
    images = np.zeros((len(gx), 3, 3), np.uint8)
    for g, low, high in ((gx, (1, 0), (1, 2)), (gy, (0, 1), (2, 1))):
        images[:, *high], images[:, *low] = np.maximum(g, 0), np.maximum(-g, 0)
    ours = hog(images, orientations, (3, 3), (1, 1), "L1")
    angle = np.rad2deg(np.arctan2(gy / 255.0, gx / 255.0)) % 180
    width = 180.0 / orientations
    expected = (angle[:, None] >= width * np.arange(orientations)) & (
        angle[:, None] < width * np.arange(1, orientations + 1)
    )
    moved = (gx != 0) | (gy != 0)
    assert np.array_equal((ours > 0.5)[moved], expected[moved])


@pytest.mark.parametrize("cell", [(1, 1), (3, 5)])
def test_equals_the_reference(body, photos, cell):
    images = photos[[0, 7], :19, :23]
    for norm in NORMS:
        expected = [reference.hog(image / 255.0, 7, cell, (2, 2), norm, False) for image in images]
        np.testing.assert_allclose(hog(images, 7, cell, (2, 2), norm), expected, atol=1e-5)


def test_float_images_that_are_no_bytes(body):
    images = np.random.default_rng(0).normal(size=(5, 24, 40)).astype(np.float32)
    expected = np.stack([skimage.feature.hog(image, 9) for image in images])
    np.testing.assert_allclose(hog(images), expected, atol=1e-5)


@pytest.mark.parametrize("orientations", [8, 9])
@pytest.mark.parametrize("colour", [False, True])
def test_float_images_that_are_smooth(body, orientations, colour):
    """Neighbours of nearly the same level must keep their difference, though some levels are bytes by chance."""
    near = np.float32([99.99, 100, 100.00001, 100.00002, 100.00004, 101]) / np.float32(255)
    images = np.random.default_rng(0).choice(near, (5, 24, 40, 3))
    images = images if colour else images[..., 0]
    axis = -1 if colour else None
    expected = [skimage.feature.hog(image.astype(float), orientations, channel_axis=axis) for image in images]
    np.testing.assert_allclose(hog(images, orientations), expected, atol=1e-5)


@pytest.mark.parametrize("orientations", [8, 9])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (17, 33), (16, 16), (31, 64)])
def test_any_size(body, shape, orientations):
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    expected = [reference.hog(image[..., None] / 255.0, orientations, (1, 1), (1, 1), "L2", False) for image in images]
    np.testing.assert_allclose(hog(images, orientations, (1, 1), (1, 1), "L2"), expected, atol=1e-5)


def test_mirrored_images_give_mirrored_histograms(body, gray):
    # Angles a become 180 - a: bin k becomes bin 8 - k. Angle 0 stays 0: the tilt and the inner cells keep it out.
    images = gray[6:, :32, :40] / 300 + 1e-3 * np.arange(32)[:, None] ** 1.5 / 300
    left, right = (hog(X, cells_per_block=(1, 1)).reshape(2, 4, 5, 9) for X in (images, images[:, :, ::-1]))
    np.testing.assert_allclose(right[:, 1:3], left[:, 1:3, ::-1, ::-1], atol=1e-5)


def test_channel_order_does_not_matter(body):
    images = np.random.default_rng(0).random((3, 24, 40, 3))  # no two channels equally strong
    np.testing.assert_allclose(hog(images), hog(images[..., [2, 0, 1]]), atol=1e-6)


def test_a_constant_image_gives_zeros(body):
    assert not hog(np.full((2, 32, 32), 77, np.uint8)).any()


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match=r"20 x 32 pixels.*at least 24 x 24.*Resize"):
        HOG().fit(np.zeros((2, 20, 32), np.uint8))


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("orientations", 0),
        ("orientations", 4.5),
        ("pixels_per_cell", (0, 8)),
        ("pixels_per_cell", (8, 8, 8)),
        ("cells_per_block", -1),
        ("block_norm", "l2"),
    ],
)
def test_bad_parameters_are_named(parameter, value):
    with pytest.raises(ValueError, match=parameter):
        hog(np.zeros((1, 64, 64), np.uint8), **{parameter: value})


def test_square_roots_of_negative_pixels_are_refused():
    with pytest.raises(ValueError, match="smallest pixel is -1"):
        hog(np.full((1, 24, 24), -1.0), transform_sqrt=True)


def test_pixels_too_large_for_float32_squares_are_refused():
    with pytest.raises(ValueError, match="cannot be images"):
        hog(np.full((1, 24, 24), 1e30))


def test_feature_names_say_block_cell_and_orientation(gray):
    names = HOG(cells_per_block=(2, 2)).fit(gray).get_feature_names_out()
    assert len(names) == 3 * 4 * 4 * 9
    assert names[0] == "hog_r0_c0_b0_o0"
    assert names[9 * 4 + 9 * 2 + 3] == "hog_r0_c1_b2_o3"
