import cv2
import numpy as np
import pytest

from classic_cls import Resize, resize


def test_shrinking_averages(gray):
    halves = gray[:, :36, :44].reshape(8, 18, 2, 22, 2).mean((2, 4)) / 255
    np.testing.assert_allclose(resize(gray[:, :36, :44], (18, 22)), halves, atol=1e-6)


def test_enlarging_interpolates(photos):
    big = resize(photos, (80, 90))
    expected = cv2.resize((photos[3] / 255).astype(np.float32), (90, 80), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(big[3], expected, atol=1e-6)


def test_a_side_that_shrinks_and_one_that_grows(gray):
    expected = cv2.resize((gray[0, :36] / 255).astype(np.float32), (45, 18), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(expected, (90, 18), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resize(gray[:1, :36], (18, 90))[0], expected, atol=1e-6)


def test_the_same_size_changes_nothing(photos):
    np.testing.assert_allclose(resize(photos, (37, 45)), photos / 255, atol=1e-6)


def test_one_pixel():
    np.testing.assert_allclose(resize(np.full((1, 1, 1), 51, np.uint8), 3), np.full((1, 3, 3), 0.2), rtol=1e-6)
    np.testing.assert_allclose(resize(np.full((1, 9, 9), 51, np.uint8), 1), [[[0.2]]], rtol=1e-6)


@pytest.mark.parametrize("size", [0, (4, 0), (4, 4, 4), 2.5, "8", None])
def test_bad_sizes_are_refused(size):
    with pytest.raises(ValueError, match="size="):
        Resize(size).fit(np.zeros((1, 4, 4), np.uint8))


@pytest.mark.parametrize("size", [(37, 45), (18, 15), (13, 44), (80, 90), (20, 90), (1, 1), (37, 1)])
def test_on_a_gpu(cupy, photos, gray, size):
    for images in (photos, gray, photos / 255, (photos / 255).astype(np.float32)):
        resized = resize(cupy.asarray(images), size)
        assert type(resized) is cupy.ndarray
        assert resized.dtype == np.float32
        np.testing.assert_allclose(resized.get(), resize(images, size), atol=2e-6)


def test_images_of_different_sizes_on_a_gpu(cupy, photos):
    images = [photo[: 10 + 5 * i, : 45 - 4 * i] for i, photo in enumerate(photos)]
    there = Resize((24, 20)).fit_transform([cupy.asarray(image) for image in images])
    np.testing.assert_allclose(there.get(), resize(images, (24, 20)), atol=2e-6)
