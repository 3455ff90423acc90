"""The CUDA kernels beside the CPU's and the reference, on a GPU or, as CUDA threads of the CPU's making, anywhere."""

import math
import platform
from pathlib import Path

import cuda_on_cpu
import fake_cupy
import numpy as np
import pytest
import reference
import skimage.data
from conftest import crops
from gpu_cases import ACTIVATIONS, NORMS, SOURCES, SPACES, all_kernels, as_dtypes, on_gpu, small_runs, without_choices
from sklearn.utils.fixes import parse_version
from test_dense_sift import GEOMETRIES
from test_patch_kmeans import random_parts

import classic_cls
from classic_cls import PatchKMeans, color_histogram, dense_sift, hog, patch_features
from classic_cls._arrays import SHARED_MEMORY
from classic_cls.features._hog_tiles import Tiles
from classic_cls.features.dense_sift import _Tiles


@pytest.fixture(scope="module", params=["gray", "colour"])
def large(request):
    """Images of several tiles down and across."""
    images = crops(2, 150, 260)
    return images if request.param == "colour" else np.ascontiguousarray(images[..., 1])


# --- HOG --------------------------------------------------------------------------------------------------------------


# Each kernel is compiled, which takes a second: every parameter meets every other one, but not all of them at once.
HOG_CASES = [(n, (5, 7), (1, 2)) for n in (1, 2, 5, 8, 9, 12, 18)]
HOG_CASES += [(9, cell, block) for cell, block in [((8, 8), (2, 2)), ((3, 5), (3, 1)), ((1, 1), (1, 1)), (19, 1)]]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("colour", [False, True])
def test_hog(cupy, small, norm, colour):
    images, which = as_dtypes(small if colour else small[..., 1]), NORMS.index(norm) + colour
    for i, case in list(enumerate(HOG_CASES))[which % 2 :: 2]:
        arguments = *case, norm, (which + i) // 2 % 2 == 1
        X = images[(which + i) % 3]
        np.testing.assert_allclose(on_gpu(cupy, hog, X, *arguments), hog(X, *arguments), atol=1e-5)


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("colour", [False, True])
def test_hog_of_any_dtype(cupy, small, root, colour):
    for X in as_dtypes(small if colour else small[..., 1]):
        for orientations in (8, 9):
            arguments = orientations, (8, 8), (2, 2), "L2-Hys", root
            np.testing.assert_allclose(on_gpu(cupy, hog, X, *arguments), hog(X, *arguments), atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_hog_equals_the_reference(cupy, small, norm):
    expected = [reference.hog(image / 255.0, 7, (3, 5), (2, 2), norm, False) for image in small]
    np.testing.assert_allclose(on_gpu(cupy, hog, small, 7, (3, 5), (2, 2), norm), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (5, 33), (16, 16), (3, 200)])
def test_hog_of_any_size(cupy, shape):
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    for orientations in (8, 9):
        arguments = orientations, (1, 1), (1, 1), "L2"
        expected = hog(images, *arguments)
        np.testing.assert_allclose(on_gpu(cupy, hog, images, *arguments), expected, atol=1e-5)


@pytest.mark.parametrize("orientations", [8, 9])
@pytest.mark.parametrize("colour", [False, True])
def test_hog_of_smooth_float_images(cupy, orientations, colour):
    """Some levels are bytes by chance; only where all of an image are is it read as bytes."""
    near = np.float32([99.99, 100, 100.00001, 100.00002, 100.00004, 101]) / np.float32(255)
    images = np.random.default_rng(0).choice(near, (4, 24, 40, 3))
    images[3] = np.random.default_rng(1).integers(0, 256, images[3].shape) / np.float32(255)
    images = images if colour else images[..., 0]
    np.testing.assert_allclose(on_gpu(cupy, hog, images, orientations), hog(images, orientations), atol=1e-5)


def bins_by_arctangent(gx, gy, orientations):
    """Tell of each gradient and orientation whether the one lies in the other, as scikit-image finds out.

    With the C library's arctangent, since NumPy's own, where it has AVX-512, is off by an ulp here and there.
    """
    angle = np.rad2deg([math.atan2(y, x) for y, x in zip(gy, gx, strict=True)]) % 180
    width = 180.0 / orientations
    return (angle[:, None] >= width * np.arange(orientations)) & (
        angle[:, None] < width * np.arange(1, orientations + 1)
    )


def pictures_of_gradients(left, right, above, below):
    """Return 3 x 3 pictures whose only gradient is that of the middle."""
    images = np.zeros((len(left), 3, 3), np.uint8)
    images[:, 1, 0], images[:, 1, 2], images[:, 0, 1], images[:, 2, 1] = left, right, above, below
    return images


@pytest.mark.parametrize("orientations", [*range(1, 19), 20, 24, 35, 36, 99, 199, 200])
def test_hog_puts_every_byte_gradient_in_skimages_bin(orientations, monkeypatch):
    cupy = fake_cupy.install(monkeypatch, threads=32)
    steps = np.r_[-255:-20:37, -20:21, 21:256:37]
    gy, gx = (g.ravel() for g in np.meshgrid(steps, steps))
    images = pictures_of_gradients(*(np.maximum(g, 0) for g in (-gx, gx, -gy, gy)))
    moved = (gx != 0) | (gy != 0)
    ours = on_gpu(cupy, hog, images, orientations, (3, 3), (1, 1), "L1")
    assert np.array_equal((ours > 0.5)[moved], bins_by_arctangent(gx / 255.0, gy / 255.0, orientations)[moved])


@pytest.mark.parametrize("orientations", [2, 3, 4, 6, 8, 9, 12, 18, 24, 36])
def test_hog_puts_roots_in_skimages_bin(orientations, monkeypatch):
    # The root of 3 is the tangent of 60 degrees: many of these gradients lie on a threshold.
    cupy = fake_cupy.install(monkeypatch, threads=32)
    levels = [0, 1, 3, 4, 9, 12, 16, 27, 48, 75, 108, 147, 192, 243]
    pairs = np.array([(a, b) for a in levels for b in levels if a != b and 0 in (a, b)])
    across, down = (pairs[index.ravel()] for index in np.indices((len(pairs), len(pairs))))
    images = pictures_of_gradients(*across.T, *down.T)
    roots = np.sqrt(images / 255.0)
    gx, gy = roots[:, 1, 2] - roots[:, 1, 0], roots[:, 2, 1] - roots[:, 0, 1]
    ours = on_gpu(cupy, hog, images, orientations, (3, 3), (1, 1), "L1", True)
    assert np.array_equal(ours > 0.5, bins_by_arctangent(gx, gy, orientations))


def test_hog_where_channels_are_equally_strong(cupy):
    photo = skimage.data.coffee()
    images = np.stack([photo[y : y + 64, x : x + 64] for y in (0, 230) for x in (0, 300)])
    expected = hog(images, cells_per_block=(2, 2))
    np.testing.assert_allclose(on_gpu(cupy, hog, images, cells_per_block=(2, 2)), expected, atol=1e-5)


def equally_strong(n):
    """Return colour pictures, 3 x 3, in whose middle two channels' gradients (other than by sign) are equally long."""
    rng, legs = np.random.default_rng(0), {}
    for x, y in np.ndindex(200, 200):
        legs.setdefault(x * x + y * y, []).append((x, y))
    several = [pairs for pairs in legs.values() if len(pairs) > 2]
    images = np.zeros((n, 3, 3, 3), np.uint8)
    for image in images:
        pairs = several[rng.integers(len(several))]
        for c, k in enumerate(rng.permutation(len(pairs))[:2]):
            x, y = pairs[k]
            left, above = rng.integers(0, 256 - x), rng.integers(0, 256 - y)
            image[1, [0, 2], c], image[[0, 2], 1, c] = (left, left + x), (above, above + y)
    return images


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or parse_version(platform.libc_ver()[1]) < parse_version("2.35"),
    reason="the CPU compares channels by another hypot",
)
def test_hog_where_rounding_decides_between_channels(cupy):
    images = equally_strong(3000)
    for X in as_dtypes(images):
        arguments = 9, (3, 3), (1, 1), "L1"
        np.testing.assert_allclose(on_gpu(cupy, hog, X, *arguments), hog(X, *arguments), atol=1e-5)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("cell", [8, 24, (40, 45)])
def test_hog_finds_what_no_image_holds(cupy, colour, cell):
    """Wherever it is: also in pixels that belong to no cell, which the kernel looks at in part."""
    sound = crops(3, 61, 90) / np.float32(255)
    sound = sound if colour else sound[..., 0]
    for y, x in ((0, 0), (30, 70), (47, 20), (48, 3), (49, 3), (60, 2), (2, 71), (3, 72), (4, 88), (60, 89)):
        for value, message in ((np.nan, "NaN or infinity"), (-np.inf, "NaN or infinity"), (-1.1e6, "Pixels beyond 1e")):
            images = sound.copy()
            images[1, y, x] = value
            with pytest.raises(ValueError, match=message):
                hog(cupy.asarray(images), 9, cell, 1)
    images[1, 60, 89] = 1e6
    np.testing.assert_allclose(on_gpu(cupy, hog, images, 9, cell, 1), hog(images, 9, cell, 1), atol=1e-5)


@pytest.mark.parametrize("block", [(1, 1), (2, 2), (3, 3)])
def test_hog_of_many_tiles(cupy, large, block):
    for i, cell in enumerate(((4, 4), (6, 6), (8, 8), (5, 12))):
        X = as_dtypes(large)[(i + block[0]) % 2]
        np.testing.assert_allclose(on_gpu(cupy, hog, X, 9, cell, block), hog(X, 9, cell, block), atol=1e-5)


def tiles_of(X, orientations, cell, block):
    return Tiles((*X.shape[1:3], X[0, 0, 0].size), X.itemsize, 0, orientations, cell, block)


def test_hog_of_many_tiles_has_them(large):
    assert min(tiles_of(large, 9, (4, 4), (2, 2)).grid) > 1
    tiles = tiles_of(large, 9, (8, 8), (2, 2))
    assert tiles.band_rows < tiles.rows


def test_hog_takes_several_small_images_at_once(cupy):
    """The last thread block has fewer; of floats, some images are levels of 255 and some are not."""
    images = np.random.default_rng(0).integers(99, 103, (5, 16, 24, 3), dtype=np.uint8)
    for X in as_dtypes(images)[:2]:
        assert tiles_of(X, 8, (8, 8), (2, 2)).together > 1
        X = X + np.asarray([0, 1e-3, 0, 0, 1e-3], X.dtype)[:, None, None, None] if X.dtype == np.float32 else X
        for some in (X, X[..., 1]):
            np.testing.assert_allclose(on_gpu(cupy, hog, some, 8, 8, 2), hog(some, 8, 8, 2), atol=1e-5)


@pytest.mark.parametrize(("cell", "block"), [((8, 8), (18, 18)), ((7, 5), (21, 19)), ((3, 8), (18, 32))])
def test_hog_of_blocks_of_very_many_cells(cupy, large, cell, block):
    rows, cols = (size * (n + 1) + 2 for size, n in zip(cell, block, strict=True))  # a few blocks: each is a tile
    images = large[:, :rows, 1:cols]
    assert tiles_of(images, 9, cell, block).in_workspace
    for X in as_dtypes(images)[:2]:
        np.testing.assert_allclose(on_gpu(cupy, hog, X, 9, cell, block), hog(X, 9, cell, block), atol=1e-5)


@pytest.mark.parametrize(("cell", "block"), [((140, 250), (1, 1)), ((75, 130), (2, 2)), ((50, 257), (2, 1))])
def test_hog_of_cells_too_large_to_be_staged(cupy, large, cell, block):
    for X in as_dtypes(large)[:2]:
        assert not tiles_of(X, 9, cell, block).staged
        np.testing.assert_allclose(on_gpu(cupy, hog, X, 9, cell, block), hog(X, 9, cell, block), atol=1e-5)


def test_hog_with_very_many_orientations(cupy):
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 40, 3), dtype=np.uint8)
    arguments = 200, (4, 4), (1, 1)  # a histogram takes so much memory that few threads are left
    np.testing.assert_allclose(on_gpu(cupy, hog, images, *arguments), hog(images, *arguments), atol=1e-5)
    with pytest.raises(ValueError, match="orientations=5000; on a GPU at most 200"):
        hog(cupy.asarray(images), 5000, (4, 4), (1, 1))


def test_hog_of_rows_that_are_no_whole_pieces_in_shared_memory(cupy):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    np.testing.assert_allclose(on_gpu(cupy, hog, images, 9, 22, 1), hog(images, 9, 22, 1), atol=1e-5)


@pytest.mark.parametrize("slope", [1e-7, 1e-8, 1e-9, -1e-9])
def test_hog_of_gradients_so_faint_that_their_products_are_zero(cupy, slope):
    ramp = np.broadcast_to(np.float32(slope) * np.arange(16, dtype=np.float32), (1, 16, 16))
    np.testing.assert_allclose(on_gpu(cupy, hog, ramp, 9, 8, 1, "L1"), hog(ramp, 9, 8, 1, "L1"), atol=1e-5)


def test_hog_fits_into_shared_memory():
    rng = np.random.default_rng(0)
    for _ in range(3000):
        cell, block = (tuple(map(int, rng.integers(1, most, 2))) for most in (40, 9))
        height, width = (int(rng.integers(c * b, 3 * c * b + 200)) for c, b in zip(cell, block, strict=True))
        for itemsize in (1, 4, 8):
            how = Tiles((height, width, 3), itemsize, 16, int(rng.integers(1, 201)), cell, block).launch()
            assert how["shared"] <= SHARED_MEMORY - 16
            assert 0 < how["threads"] <= 128


# --- Colour histograms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color_space", SPACES)
@pytest.mark.parametrize("joint", [True, False])
def test_color_histogram(cupy, small, color_space, joint):
    for bins in ((8, 8, 8), (1, 13, 30), (180, 256, 1)):
        bins = bins[:1] if color_space == "gray" else bins
        for grid in ((1, 1), (3, 2), (19, 37)):
            for norm in (None, "l1", "l2", "hellinger"):
                if np.prod(bins) > 4000 and grid == (19, 37):
                    continue
                arguments = bins, color_space, joint, grid, norm
                expected = color_histogram(small[:2], *arguments)
                np.testing.assert_array_equal(on_gpu(cupy, color_histogram, small[:2], *arguments), expected)


@pytest.mark.parametrize("color_space", SPACES)
def test_color_histogram_of_every_fifth_level(cupy, color_space):
    levels = np.arange(0, 256, 5)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).astype(np.uint8).reshape(2, -1, 52, 3)
    bins = (256,) if color_space == "gray" else (180 if color_space == "hsv" else 256, 256, 256)
    expected = color_histogram(cube, bins, color_space, joint=False)
    np.testing.assert_array_equal(on_gpu(cupy, color_histogram, cube, bins, color_space, joint=False), expected)


def test_color_histogram_equals_the_reference(cupy, small):
    for color_space in ("hsv", "opponent"):
        expected = reference.color_histogram(small, (4, 5, 6), color_space, True, (2, 3), "hellinger")
        features = on_gpu(cupy, color_histogram, small, (4, 5, 6), color_space, True, (2, 3), "hellinger")
        np.testing.assert_allclose(features, expected, rtol=3e-7)


def test_color_histogram_of_other_dtypes_and_gray(cupy, small):
    for images in (small, small[..., 0]):
        expected = color_histogram(images, 16, "hsv", grid=2)
        for X in (*as_dtypes(images), images.astype(np.int64), images.astype(np.uint16) * 257):
            np.testing.assert_array_equal(on_gpu(cupy, color_histogram, X, 16, "hsv", grid=2), expected)


@pytest.mark.parametrize("bins", [24, 25, 40])
def test_color_histogram_with_more_bins_than_fit_into_shared_memory(cupy, small, bins):
    expected = color_histogram(small, bins, norm="l2", grid=2)
    np.testing.assert_array_equal(on_gpu(cupy, color_histogram, small, bins, norm="l2", grid=2), expected)


@pytest.mark.parametrize("grid", [(1, 1), (7, 11), (50, 61)])
def test_color_histogram_of_large_images_and_many_cells(cupy, large, grid):
    for bins, color_space, joint, norm in ((6, "hsv", True, "l2"), (25, "lab", False, "l1"), (256, "gray", True, None)):
        arguments = bins, color_space, joint, grid, norm
        expected = color_histogram(large, *arguments)
        np.testing.assert_array_equal(on_gpu(cupy, color_histogram, large, *arguments), expected)


@pytest.mark.parametrize("bins", [4, 25])
def test_color_histogram_of_so_many_pixels_that_squares_need_64_bits(cupy, bins):
    images = np.full((1, 300, 400, 3), 77, np.uint8)
    for norm in (None, "l1", "l2"):
        expected = color_histogram(images, bins, norm=norm)
        np.testing.assert_array_equal(on_gpu(cupy, color_histogram, images, bins, norm=norm), expected)


# --- Dense SIFT -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "bin_size", "height", "width"), GEOMETRIES)
def test_dense_sift(cupy, step, bin_size, height, width):
    photo = skimage.data.astronaut()
    gray, colour = photo[None, 60 : 60 + height, 200 : 200 + width, 1], photo[None, :height, :width]
    for images in (gray, colour, (gray / 255).astype(np.float32)):
        for root in (False, True):
            arguments = step, bin_size, 0, root
            features = on_gpu(cupy, dense_sift, images, *arguments)
            np.testing.assert_allclose(features, dense_sift(images, *arguments), atol=3e-6)


def test_dense_sift_equals_the_reference(cupy, small):
    images = small[:2, ..., 0]
    for step, bin_size, root in [(3, 4, False), (4, 4, True), (4, 6, False)]:
        expected = [reference.dense_sift(image / 255, step, bin_size, 0, root) for image in images]
        np.testing.assert_allclose(on_gpu(cupy, dense_sift, images, step, bin_size, 0, root), expected, atol=3e-6)


@pytest.mark.parametrize("root", [False, True])
def test_dense_sift_of_low_contrast(cupy, root):
    images = skimage.data.camera()[None, 100:140, 200:240].copy()
    images[:, 15:] //= 20
    expected = dense_sift(images, 4, (4, 5), 0.02, root)
    kept = expected.any(axis=2)
    assert 0 < kept.sum() < kept.size
    np.testing.assert_allclose(on_gpu(cupy, dense_sift, images, 4, (4, 5), 0.02, root), expected, atol=3e-6)
    assert not on_gpu(cupy, dense_sift, np.full((1, 16, 19), 77, np.uint8), 4, 4, 0, root).any()


@pytest.mark.parametrize("bin_size", [1, 2, 5])
def test_dense_sift_of_the_smallest_image(cupy, small, bin_size):
    side = 3 * bin_size + 1
    images = small[:2, :side, :side]
    expected = dense_sift(images, 7, bin_size, 0)
    np.testing.assert_allclose(on_gpu(cupy, dense_sift, images, 7, bin_size, 0), expected, atol=3e-6)


def test_dense_sift_fits_into_shared_memory():
    rng = np.random.default_rng(0)
    for _ in range(3000):
        step, bin_size = int(rng.integers(1, 300)), int(rng.integers(1, 701))
        size = tuple(int(n) for n in rng.integers(3 * bin_size + 1, 3 * bin_size + 4000, 2))
        grid = tuple((n - 1 - 3 * bin_size) // step + 1 for n in size)
        assert _Tiles(size, step, bin_size, grid).launch(1)[2]["shared"] <= SHARED_MEMORY


@pytest.mark.parametrize("step", [3, 4, 8])
@pytest.mark.parametrize("bin_size", [4, 6, 8])
def test_dense_sift_of_many_tiles(cupy, large, step, bin_size):
    colour = large.ndim == 4
    X, arguments = as_dtypes(large[:1])[colour], (step, bin_size, 0.005, colour)
    np.testing.assert_allclose(on_gpu(cupy, dense_sift, X, *arguments), dense_sift(X, *arguments), atol=3e-6)


def test_dense_sift_of_the_largest_bins(cupy):
    images = skimage.data.camera()[None, :310, 30:340]
    features = on_gpu(cupy, dense_sift, images, 5, 101)
    np.testing.assert_allclose(features, dense_sift(images, 5, 101), atol=3e-6)
    with pytest.raises(ValueError, match="bin_size=701; on a GPU at most 700"):
        dense_sift(cupy.asarray(np.zeros((1, 2104, 2104), np.uint8)), 4, 701)


@pytest.mark.parametrize("step", [1, 7, 699, 700])
def test_dense_sift_of_the_largest_bins_fits_into_shared_memory(step):
    tiles = _Tiles((2801, 2999), step, 700, (701 // step + 1, 899 // step + 1))
    assert tiles.launch(1)[2]["shared"] <= SHARED_MEMORY


# --- Learned patches --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(photos):
    return PatchKMeans(21, samples_per_cluster=50, random_state=0).fit(photos)


def assert_close(features, expected):
    """A distance near 0 is the root of a difference of rounded products: these are multiplied in different orders."""
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("pool", [(1, 1), (2, 3), ((1, 1), (2, 2), (3, 1))])
def test_patch_features(cupy, small, fitted, activation, pool):
    parts = fitted.mean_, fitted.whitening_, fitted.dictionary_
    for step in (1, 2, 5):
        for X in as_dtypes(small):
            arguments = *parts, 6, step, pool, activation
            assert_close(on_gpu(cupy, patch_features, X, *arguments), patch_features(X, *arguments))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("patch_size", [(1, 2), (5, 1), (7, 7)])
def test_patch_features_of_any_patch_and_dictionary(cupy, small, activation, patch_size):
    for channels in (1, 3):
        for n_entries in (1, 32, 70):
            images = small[:2, :11, :13, :channels]
            parts = random_parts(np.prod(patch_size) * channels, n_entries)
            arguments = *parts, patch_size, 2, 2, activation
            expected = patch_features(images, *arguments)
            ours = on_gpu(cupy, patch_features, images, *arguments)
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)  # some are 40


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_patch_features_equal_the_reference(cupy, small, activation):
    parts, images = random_parts(27, 9), small[:2, :8, :9]
    expected = [
        reference.patch_features(image / 255, *parts, (3, 3), 2, [(1, 1), (2, 2)], activation, 0.5) for image in images
    ]
    features = on_gpu(cupy, patch_features, images, *parts, 3, 2, ((1, 1), (2, 2)), activation, alpha=0.5)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4)


# --- Parts of arrays --------------------------------------------------------------------------------------------------


def calls(fitted):
    """Return functions of images, each of which runs a source."""
    parts = fitted.mean_, fitted.whitening_, fitted.dictionary_
    return [
        *(lambda X, n=n, cell=cell: hog(X, n, cell, (2, 2)) for n in (8, 9) for cell in ((8, 8), (5, 5))),
        lambda X: color_histogram(X, 6, "lab", grid=(2, 3)),
        lambda X: dense_sift(X, 4, (4, 6), 0),
        lambda X: patch_features(X, *parts, 6, 7),
    ]


@pytest.mark.parametrize("which", range(7))
def test_images_that_begin_anywhere_in_memory(cupy, fitted, which):
    function = calls(fitted)[which]
    for X in as_dtypes(crops(2, 32, 32))[:2]:
        expected = function(X)
        memory = cupy.asarray(np.concatenate([np.full(16, 99, X.dtype), X.ravel(), np.full(16, 99, X.dtype)]))
        for first in (16, 1, 4, 8):
            memory[first : first + X.size] = cupy.asarray(X.ravel())
            features = function(memory[first : first + X.size].reshape(X.shape)).get()
            np.testing.assert_allclose(features, expected, atol=1e-5 * max(1, expected.max()))


@pytest.mark.parametrize("which", range(7))
def test_images_that_are_parts_of_larger_ones(cupy, fitted, which):
    function = calls(fitted)[which]
    for X in as_dtypes(crops(3, 41, 67))[:2]:
        for part in (np.s_[1:, 3:-5, 2:-1], np.s_[::2, ::-1, ::2], np.s_[:, 5:, :, ::-1]):
            expected = function(np.ascontiguousarray(X[part]))
            features = function(cupy.asarray(X)[part]).get()
            np.testing.assert_allclose(features, expected, atol=1e-5 * max(1, expected.max()))


# --- Symmetries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("colour", [False, True])
def test_hog_of_mirrored_images(cupy, dtype, colour):
    # Angles a become 180 - a: bin k becomes bin 8 - k. Angle 0 stays 0: only on the border is there any.
    images = np.random.default_rng(0).random((2, 120, 136, 3) if colour else (2, 120, 136)).astype(dtype)
    cells, across, down = (
        on_gpu(cupy, hog, X, cells_per_block=(1, 1)).reshape(2, 15, 17, 9)
        for X in (images, images[:, :, ::-1], images[:, ::-1])
    )
    np.testing.assert_allclose(across[:, 1:-1], cells[:, 1:-1, ::-1, ::-1], atol=1e-5)
    np.testing.assert_allclose(down[:, 1:-1], cells[:, ::-1, :, ::-1][:, 1:-1], atol=1e-5)


def test_hog_in_any_order_of_channels(cupy):
    images = np.random.default_rng(0).random((2, 120, 136, 3))  # no two channels equally strong
    for X in (images, images.astype(np.float32)):
        expected = on_gpu(cupy, hog, X)
        for order in ([2, 0, 1], [1, 0, 2]):
            np.testing.assert_allclose(on_gpu(cupy, hog, X[..., order]), expected, atol=1e-6)


@pytest.mark.parametrize("color_space", SPACES)
def test_color_histogram_of_flipped_images(cupy, color_space):
    images = crops(2, 144, 210)
    for grid in ((1, 1), (3, 2), (12, 15)):  # a cell's mirror image is a cell
        cells, flipped = (
            on_gpu(cupy, color_histogram, X, 4, color_space, grid=grid).reshape(2, *grid, -1)
            for X in (images, images[:, ::-1, ::-1])
        )
        np.testing.assert_array_equal(flipped, cells[:, ::-1, ::-1])


def test_color_histogram_of_permuted_channels(cupy):
    images = crops(2, 150, 260)
    counts = on_gpu(cupy, color_histogram, images, (3, 4, 5)).reshape(2, 3, 4, 5)
    permuted = on_gpu(cupy, color_histogram, images[..., [2, 0, 1]], (5, 3, 4)).reshape(2, 5, 3, 4)
    np.testing.assert_array_equal(permuted, counts.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(("step", "bin_size"), [(4, 6), (3, 4), (8, 8)])
def test_dense_sift_of_mirrored_images(cupy, step, bin_size):
    rows, cols = (n - (n - 1 - 3 * bin_size) % step for n in (99, 147))  # descriptors up to both borders
    images, side = crops(2, rows, cols), 3 * bin_size + 1
    grid, across, down = (
        on_gpu(cupy, dense_sift, X, step, bin_size, 0).reshape(
            2, (rows - side) // step + 1, (cols - side) // step + 1, 4, 4, 8
        )
        for X in (images, images[:, :, ::-1], images[:, ::-1])
    )
    np.testing.assert_allclose(across[:, :, ::-1, :, ::-1][..., (4 - np.arange(8)) % 8], grid, atol=3e-6)
    np.testing.assert_allclose(down[:, ::-1, :, ::-1][..., -np.arange(8) % 8], grid, atol=3e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_patch_features_of_flipped_images(cupy, activation):
    images, order = crops(2, 25, 35), np.arange(108).reshape(6, 6, 3)[:, ::-1].ravel()
    mean, whitening, dictionary = random_parts(108, 20)
    mirrored = mean[order], whitening[order][:, order], dictionary[:, order]
    cells, flipped = (
        on_gpu(cupy, patch_features, X, *parts, activation=activation).reshape(2, 2, 2, -1)
        for X, parts in ((images, (mean, whitening, dictionary)), (images[:, :, ::-1], mirrored))
    )
    assert_close(flipped, cells[:, :, ::-1])


# --- All of them ------------------------------------------------------------------------------------------------------


def test_no_source_is_forgotten():
    package = Path(classic_cls.__file__).parent
    assert {path.relative_to(package).as_posix() for path in package.rglob("*.cu")} == set(SOURCES)


def test_every_kernel_was_executed(small, monkeypatch):
    cupy = fake_cupy.install(monkeypatch, threads=32)
    monkeypatch.setattr(cuda_on_cpu.RawModule, "launched", [])
    for function, images, *arguments in small_runs(small):
        on_gpu(cupy, function, images, *arguments)
    launched = {(without_choices(code), kernel) for code, kernel in cuda_on_cpu.RawModule.launched}
    assert launched == all_kernels()
    assert len(all_kernels()) == (2 * (11 + 8) + 5 + 4) + 2 * 2 * 7 + 2 * 2 + 9 * 2 + 2 * 2  # of each source


def test_the_order_of_threads_does_not_matter(small, monkeypatch):
    results = []
    for seed in range(3):
        cupy = fake_cupy.install(monkeypatch, threads=32, seed=seed)
        results.append([on_gpu(cupy, function, X, *rest).tobytes() for function, X, *rest in small_runs(small)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("threads", [64, 96, 256, 1024])
def test_the_number_of_threads_does_not_matter(small, monkeypatch, threads):
    cupy = fake_cupy.install(monkeypatch, threads)
    for function, images, *arguments in small_runs(small):
        expected = function(images, *arguments)
        np.testing.assert_allclose(on_gpu(cupy, function, images, *arguments), expected, rtol=2e-6, atol=1e-5)
