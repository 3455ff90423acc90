import cv2
import numpy as np
import pytest
from skimage.data import astronaut, camera
from sklearn.base import clone

from classic_cls import KeypointSIFT, keypoint_sift


@pytest.fixture(scope="module")
def images():
    return np.stack([camera()[100:228, 150:278], camera()[200:328, 200:328], np.full((128, 128), 9, np.uint8)])


def test_equals_opencv(images):
    found = KeypointSIFT(50, 0.03, 12, 1.5).describe(images)
    sift = cv2.SIFT_create(nfeatures=50, contrastThreshold=0.03, edgeThreshold=12, sigma=1.5)
    for image, (descriptors, positions) in zip(images[:2], found[:2], strict=True):
        keypoints, want = sift.detectAndCompute(image, None)
        np.testing.assert_allclose(descriptors, want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-6)
        np.testing.assert_array_equal(positions[:, ::-1], np.float32([keypoint.pt for keypoint in keypoints]))
        assert descriptors.dtype == positions.dtype == np.float32
        assert len(positions) >= 50


def test_image_without_keypoints(images):
    for root in (False, True):
        descriptors, positions = KeypointSIFT(root=root).describe(images)[2]
        assert descriptors.shape == (0, 128)
        assert positions.shape == (0, 2)
        assert descriptors.dtype == positions.dtype == np.float32
    assert [len(found) for found in keypoint_sift(np.zeros((2, 1, 1)))] == [0, 0]


def test_root_is_the_square_root_of_shares(images):
    plain, root = keypoint_sift(images)[0], keypoint_sift(images, root=True)[0]
    np.testing.assert_allclose(root**2, plain / plain.sum(axis=1, keepdims=True), atol=1e-6)


def test_position_is_row_then_column():
    y, x = np.mgrid[:60, :80]
    blob = np.exp(-((y - 20) ** 2 + (x - 50) ** 2) / 40)
    [(_, positions)] = KeypointSIFT().describe(blob[None])
    assert len(positions)
    np.testing.assert_allclose(positions, np.tile([20, 50], (len(positions), 1)), atol=0.5)


def test_same_picture_same_descriptors(images):
    want = keypoint_sift(images)
    images.flags.writeable = False
    color = astronaut()[None, 50:150, 150:250]
    for again in (
        keypoint_sift(images / 255),
        keypoint_sift((images / 255).astype(np.float32)),
        keypoint_sift(images[..., None], n_jobs=2),
        keypoint_sift(images.reshape(3, -1), image_shape=(128, 128)),
        keypoint_sift(np.asfortranarray(images)),
        keypoint_sift(np.repeat(images[..., None], 3, axis=3)),
        [keypoint_sift(images[i : i + 1])[0] for i in range(3)],
    ):
        for one, other in zip(want, again, strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(keypoint_sift(color)[0], keypoint_sift(color / 255)[0])


def test_list_of_images_of_different_sizes(images):
    ragged = [images[0], images[1][:100]]
    found = KeypointSIFT().fit(ragged).transform(ragged)
    for image, descriptors in zip(ragged, found, strict=True):
        np.testing.assert_array_equal(descriptors, keypoint_sift(image[None])[0])


def test_estimator_is_a_shell_over_the_function(images):
    sift = clone(KeypointSIFT(20, 0.02, 8, 1.2, True))
    for one, other in zip(sift.fit_transform(images), keypoint_sift(images, 20, 0.02, 8, 1.2, True), strict=True):
        np.testing.assert_array_equal(one, other)
    assert sift.image_shape_ == (128, 128, 1)
    assert not hasattr(sift, "set_output")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_features": -1}, "n_features=-1"),
        ({"n_features": 2.5}, "n_features=2.5"),
        ({"contrast_threshold": -1}, "contrast_threshold=-1"),
        ({"edge_threshold": 0}, "edge_threshold=0"),
        ({"sigma": float("inf")}, "sigma=inf"),
    ],
)
def test_parameters_out_of_range(images, parameters, message):
    with pytest.raises(ValueError, match=message):
        keypoint_sift(images, **parameters)
    with pytest.raises(ValueError, match=message):
        KeypointSIFT(**parameters).fit(images)


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "NaN"), (1.5, r"\[0, 1\]"), (-0.1, r"\[0, 1\]")])
def test_pixels_that_cannot_be(bad, message):
    images = np.zeros((2, 16, 16))
    images[1, 3, 4] = bad
    for call in (keypoint_sift, KeypointSIFT().fit, KeypointSIFT().describe):
        with pytest.raises(ValueError, match=message):
            call(images)
