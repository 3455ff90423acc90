import threading
import time

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config

from classic_cls import HOG, Resize, color_histogram, hog
from classic_cls._images import as_pixels, for_batches, read_images


def test_wide_integers_are_levels_and_bool_is_black_and_white():
    levels = np.arange(16).reshape(1, 4, 4) * 17
    for dtype in (np.int8, np.int16, np.uint32, np.int64):
        assert as_pixels((levels % 128).astype(dtype)).dtype == np.uint8
    assert as_pixels(levels > 100).max() == 255
    np.testing.assert_allclose(as_pixels((levels * 257).astype(np.uint16)), levels / 255, atol=1e-7)


def test_read_only_and_strided_input_reaches_a_kernel_contiguous():
    wide = np.arange(64, dtype=np.uint8).reshape(2, 4, 8)
    pixels = as_pixels(wide[:, :, ::2])
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, wide[:, :, ::2])


@pytest.mark.parametrize("dtype", [">u2", ">i4", ">f4", ">f8"])
def test_bytes_in_the_order_of_another_machine(dtype):
    images = np.random.default_rng(0).integers(0, 65536, (2, 9, 10))
    images = (images if dtype == ">u2" else images % 256 if dtype == ">i4" else images / 65535).astype(dtype)
    same = images.astype(dtype[1:])
    for X, expected in ((images, same), (list(images), same), (images.reshape(2, -1), same.reshape(2, -1))):
        shape = (9, 10) if X is not images and not isinstance(X, list) else None
        read, native = read_images(X, shape), read_images(expected, shape)
        assert read.dtype.isnative
        np.testing.assert_array_equal(read, native)
        np.testing.assert_array_equal(as_pixels(read), as_pixels(native))


def test_float16_and_longdouble_are_floats():
    for dtype in (np.float16, np.longdouble):
        assert as_pixels(np.zeros((1, 2, 2), dtype)).dtype == np.float32


def test_a_list_of_equal_images_is_an_array():
    assert read_images([np.zeros((4, 5), np.uint8)] * 3).shape == (3, 4, 5, 1)
    assert read_images([np.zeros((4, 5, 3), np.uint8)] * 3).shape == (3, 4, 5, 3)


def test_gray_and_colour_do_not_mix():
    with pytest.raises(ValueError, match="mixes gray and RGB"):
        Resize(8).fit([np.zeros((9, 9), np.uint8), np.zeros((8, 8, 3), np.uint8)])


def test_a_bad_image_of_a_list_is_named():
    with pytest.raises(ValueError, match=r"Image 1 of the list has shape \(2, 2, 2\)"):
        Resize(8).fit([np.zeros((9, 9), np.uint8), np.zeros((2, 2, 2), np.uint8)])


def test_tables_keep_their_column_names():
    rows = pd.DataFrame(np.random.default_rng(0).integers(0, 256, (5, 64)), columns=[f"p{i}" for i in range(64)])
    model = HOG(pixels_per_cell=4, cells_per_block=1, image_shape=(8, 8)).fit(rows)
    assert list(model.feature_names_in_) == list(rows.columns)
    np.testing.assert_array_equal(model.transform(rows), hog(rows.to_numpy(np.uint8).reshape(5, 8, 8), 9, 4, 1))
    with pytest.raises(ValueError, match="feature names"):
        model.transform(rows[rows.columns[::-1]])


@pytest.mark.parametrize("shape", [(8,), (8, 9, 3, 1), (8.0, 8), (-8, 8), "8x8", 64])
def test_bad_image_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="image_shape"):
        HOG(image_shape=shape).fit(np.zeros((2, 64), np.uint8))


def test_images_that_contradict_image_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(30, 30\), but image_shape=\(28, 28\)"):
        HOG(image_shape=(28, 28)).fit(np.zeros((2, 30, 30), np.uint8))


def test_floats_outside_the_unit_range_are_refused_where_range_matters():
    with pytest.raises(ValueError, match="range from 0 to 255"):
        color_histogram(np.arange(256.0).reshape(1, 16, 16))


def test_batches_cover_everything_once():
    for n_jobs in (1, 2, 3):
        for n in (1, 2, 7, 100):
            out = np.zeros(n)
            for_batches(lambda part, to: np.add(to, part, out=to), np.arange(n), out, n_jobs=n_jobs, batch_size=3)
            np.testing.assert_array_equal(out, np.arange(n))


def test_joblibs_configuration_is_obeyed():
    images = np.random.default_rng(0).integers(0, 256, (9, 24, 24), dtype=np.uint8)
    expected = hog(images)
    for backend in ("threading", "loky"):
        with parallel_config(backend=backend, n_jobs=2):
            np.testing.assert_array_equal(hog(images), expected)


@pytest.mark.parametrize(("n_jobs", "configured", "expected"), [(1, 2, 1), (2, None, 2), (None, 3, 3), (None, None, 1)])
def test_so_many_threads_work_at_a_time(n_jobs, configured, expected):
    together, most, lock = [], [], threading.Lock()

    def work(part, out):
        with lock:
            together.append(part)
            most.append(len(together))
        time.sleep(0.01)
        with lock:
            together.pop()

    with parallel_config(n_jobs=configured):
        for_batches(work, np.arange(12), np.zeros(12), n_jobs=n_jobs, batch_size=1)
    assert max(most) == expected


def test_after_an_error_no_more_is_begun():
    begun = []

    def fail(part, out):
        begun.append(part[0])
        if part[0] == 1:
            raise KeyError("one")
        time.sleep(0.001)

    with pytest.raises(KeyError, match="one"):
        for_batches(fail, np.arange(1000), np.zeros(1000), n_jobs=2, batch_size=1)
    assert len(begun) < 500
