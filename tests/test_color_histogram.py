import cv2
import numpy as np
import pandas as pd
import pytest
import reference
from skimage.color import rgb2lab
from sklearn.utils.estimator_checks import check_estimator

from classic_cls import ColorHistogram, _native, color_histogram

SPACES = ["rgb", "hsv", "lab", "opponent", "gray"]
CV_SPACES = {"hsv": cv2.COLOR_RGB2HSV, "lab": cv2.COLOR_RGB2LAB, "gray": cv2.COLOR_RGB2GRAY}


@pytest.fixture(scope="module")
def images():
    """Noise, a smooth ramp and flat colours."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 37, 29, 3), dtype=np.uint8)
    y, x = np.mgrid[:37, :29]
    ramp = np.stack([x * 8, y * 6, (x + y) * 3], -1).astype(np.uint8)
    return np.stack([*noise, ramp, np.full_like(ramp, 255), np.zeros_like(ramp)])


@pytest.fixture(scope="module")
def color_cube():
    """Every fifth level of every channel, black and white included, as two pictures."""
    levels = np.arange(0, 256, 5)
    return np.stack(np.meshgrid(levels, levels, levels), -1).astype(np.uint8).reshape(2, -1, 52, 3)


def bins_of(color_space, bins):
    return bins[:1] if color_space == "gray" else bins


def assert_close(features, expected, color_space, norm=None):
    """Exact, but for Lab, where single precision may round a few pixels the other way."""
    assert features.dtype == np.float32
    if color_space != "lab":
        np.testing.assert_allclose(features, expected, rtol=3e-7, atol=0)
    elif norm is None:
        assert np.abs(features - expected).sum() <= 1e-4 * expected.sum()
    else:
        np.testing.assert_allclose(features, expected, atol=0.05)
        assert np.abs(features - expected).mean() < 1e-5


@pytest.mark.usefixtures("body")
class TestKernel:
    @pytest.mark.parametrize("grid", [(1, 1), (3, 2)])
    @pytest.mark.parametrize("bins", [(8, 8, 8), (1, 13, 30)])
    @pytest.mark.parametrize("joint", [True, False])
    @pytest.mark.parametrize("color_space", SPACES)
    def test_equals_the_reference(self, images, color_space, joint, bins, grid):
        for norm in (None, "l1", "l2", "hellinger"):
            arguments = bins_of(color_space, bins), color_space, joint, grid, norm
            expected = reference.color_histogram(images, *arguments)
            assert_close(color_histogram(images, *arguments), expected, color_space, norm)

    @pytest.mark.parametrize("color_space", SPACES)
    def test_every_level_counts(self, color_cube, color_space):
        bins = bins_of(color_space, (180 if color_space == "hsv" else 256, 256, 256))
        expected = reference.color_histogram(color_cube, bins, color_space, joint=False)
        assert_close(color_histogram(color_cube, bins, color_space, joint=False), expected, color_space)

    @pytest.mark.parametrize("n_bins", [*range(1, 34), 50, 64, 90, 100, 128, 179, 180, 181, 200, 255, 256])
    def test_puts_every_level_in_its_bin(self, n_bins):
        hues = np.arange(180)
        hsv = np.stack([hues, np.full(180, 255), np.full(180, 255)], -1)[None].astype(np.uint8)
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        bins = (n_bins, n_bins, n_bins)
        expected = reference.color_histogram([image], bins, "hsv", joint=False)
        assert (color_histogram([image], bins, "hsv", joint=False) == expected).all()
        image = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, -1)
        expected = np.tile(np.bincount(np.arange(256) * n_bins // 256, minlength=n_bins), 3)
        assert (color_histogram([image], bins, joint=False) == expected).all()

    @pytest.mark.parametrize("bins", [(8, 8, 8), (16, 4, 5), (30, 32, 32), (2, 1, 256)])
    @pytest.mark.parametrize("color_space", ["rgb", "hsv", "gray"])
    def test_equals_opencv(self, images, color_cube, color_space, bins):
        bins = bins_of(color_space, bins)
        for batch in (images, color_cube):
            counts = color_histogram(batch, bins, color_space)
            for image, row in zip(batch, counts, strict=True):
                assert (row == opencv_histogram(image, bins, color_space)).all()

    def test_lab_is_opencvs_to_one_level(self, color_cube):
        for image in color_cube:
            ours = color_histogram(image[None], 256, "lab", joint=False).reshape(3, 256)
            theirs = opencv_histogram(image, (256,), "lab", joint=False).reshape(3, 256)
            assert earth_movers(ours, theirs).max() < 0.2

    def test_lab_is_skimages(self, color_cube):
        for image in color_cube:
            ours = color_histogram(image[None], 256, "lab", joint=False).reshape(3, 256)
            lab = np.rint(rgb2lab(image) * [2.55, 1, 1] + [0, 128, 128]).astype(int)
            theirs = np.stack([np.bincount(lab[..., c].ravel(), minlength=256) for c in range(3)])
            assert earth_movers(ours, theirs).max() < 0.05

    @pytest.mark.parametrize("size", [(1, 1), (1, 255), (256, 1), (1, 257), (3, 5), (16, 16), (61, 67)])
    @pytest.mark.parametrize("color_space", SPACES)
    def test_any_size(self, color_space, size):
        images = np.random.default_rng(1).integers(0, 256, (3, *size, 3), dtype=np.uint8)
        for grid in {(1, 1), size if max(size) < 6 else (1, 1), (min(size[0], 5), min(size[1], 7))}:
            bins = bins_of(color_space, (4, 5, 6))
            expected = reference.color_histogram(images, bins, color_space, grid=grid)
            assert_close(color_histogram(images, bins, color_space, grid=grid), expected, color_space)

    @pytest.mark.parametrize(("size", "grid"), [((400, 1000), (1, 1)), ((70_000, 4), (1, 2))])
    def test_counts_past_sixteen_bits(self, size, grid):
        images = np.full((2, *size, 3), 9, np.uint8)
        images[0, ::2] = 200
        counts = color_histogram(images, 2, grid=grid).reshape(2, -1, 8)
        n_pixels = size[0] * size[1] // grid[1]
        assert (counts[0][:, [0, 7]] == n_pixels / 2).all()
        assert (counts[1, :, 0] == n_pixels).all()
        assert (counts.sum(2) == n_pixels).all()

    @pytest.mark.parametrize("color_space", SPACES)
    def test_gray_images_are_equal_channels(self, images, color_space):
        gray = images[..., 0]
        expected = color_histogram(gray[..., None].repeat(3, -1), 6, color_space, grid=2)
        assert (color_histogram(gray, 6, color_space, grid=2) == expected).all()

    def test_permuted_channels_permute_the_axes(self, images):
        counts = color_histogram(images, (3, 4, 5)).reshape(-1, 3, 4, 5)
        permuted = color_histogram(images[..., [2, 0, 1]], (5, 3, 4)).reshape(-1, 5, 3, 4)
        assert (permuted == counts.transpose(0, 3, 1, 2)).all()

    def test_flipped_images_flip_the_grid(self, images):
        images = images[:, :36, :28]  # a cell's mirror image is a cell
        cells = color_histogram(images, 4, "hsv", grid=(3, 2)).reshape(-1, 3, 2, 64)
        flipped = color_histogram(images[:, ::-1, ::-1], 4, "hsv", grid=(3, 2)).reshape(-1, 3, 2, 64)
        assert (flipped == cells[:, ::-1, ::-1]).all()

    @pytest.mark.parametrize("color_space", SPACES)
    def test_bodies_agree_to_the_byte(self, color_cube, color_space):
        expected = np.empty((2, 256), np.float32)
        bins = [64] if color_space == "gray" else [8, 8, 4]
        expected = expected[:, : np.prod(bins)].copy()
        _native._native_baseline.color_histogram(color_cube, bins, color_space, True, (1, 1), "none", expected)
        assert (color_histogram(color_cube, bins, color_space) == expected).all()

    def test_kernel_refuses_what_does_not_fit(self, images):
        images = images.copy()
        good = {"bins": [2] * 3, "color_space": "rgb", "joint": True, "grid": (1, 1), "norm": "none"}
        wrong = [
            {"bins": [2]},
            {"bins": [2, 2, 0]},
            {"bins": [2, 2, 257]},
            {"grid": (38, 1)},
            {"grid": (0, 1)},
        ]
        wrong += [{"bins": [256] * 3}, {"color_space": "cmyk"}, {"norm": "l3"}, {"joint": False}]
        for change in wrong:
            with pytest.raises(ValueError):
                _native.kernels.color_histogram(images, **good | change, out=np.empty((5, 8), np.float32))


def opencv_histogram(image, bins, color_space, joint=True):
    levels = cv2.cvtColor(image, CV_SPACES[color_space]) if color_space in CV_SPACES else image
    ranges = [0, 180 if color_space == "hsv" else 256, 0, 256, 0, 256]
    if joint:
        return cv2.calcHist([levels], list(range(len(bins))), None, bins, ranges[: 2 * len(bins)]).ravel()
    return np.concatenate([cv2.calcHist([levels], [c], None, bins, [0, 256]).ravel() for c in range(3)])


def earth_movers(ours, theirs):
    """By how many levels the pixels differ on average, at least, per channel."""
    return np.abs(np.cumsum(ours - theirs, 1)).sum(1) / ours.sum(1)


def test_the_same_in_any_dtype(images):
    expected = color_histogram(images, 16, "hsv")
    for same in (
        images.astype(int),
        images / 255,
        (images / 255).astype(np.float32),
        images.astype(np.uint16) * 257,
    ):
        assert (color_histogram(same, 16, "hsv") == expected).all()


def test_floats_go_to_the_nearest_level():
    image = np.array([[[0.49, 0.51, 254.49]]]) / 255
    features = color_histogram(image[None], 256, joint=False).reshape(3, 256)
    assert (features.argmax(1) == [0, 1, 254]).all()


def test_any_memory_layout(images):
    expected = color_histogram(images)
    read_only = images.copy()
    read_only.flags.writeable = False
    reversed_twice = images[:, ::-1].copy()[:, ::-1]
    for same in (read_only, np.asfortranarray(images), reversed_twice):
        assert (color_histogram(same) == expected).all()
        assert (same == images).all()


def test_batches_and_threads_change_nothing(images):
    many = np.concatenate([images] * 60)
    many += np.arange(len(many), dtype=np.uint8)[:, None, None, None]
    whole = color_histogram(many, 5, "lab", norm="l2")
    assert whole.tobytes() == color_histogram(many, 5, "lab", norm="l2", n_jobs=2).tobytes()
    assert whole.tobytes() == ColorHistogram(5, "lab", norm="l2").fit_transform(many).tobytes()
    alone = [color_histogram(image[None], 5, "lab", norm="l2") for image in many]
    assert (np.concatenate(alone) == whole).all()


def test_flat_rows_with_a_shape_are_images(images):
    rows = images.reshape(len(images), -1)
    expected = color_histogram(images, grid=(2, 3))
    assert (color_histogram(rows, grid=(2, 3), image_shape=(37, 29, 3)) == expected).all()
    assert (color_histogram(rows / 255, grid=(2, 3), image_shape=(37, 29, 3)) == expected).all()
    frame = pd.DataFrame(rows / 255)
    assert (ColorHistogram(grid=(2, 3), image_shape=(37, 29, 3)).fit_transform(frame) == expected).all()


def test_rows_of_numbers_are_clipped():
    rows = np.array([[-3.0, 0, 0.5, 1, 7]])
    assert (color_histogram(rows, 2, "gray") == [[2, 3]]).all()
    assert (ColorHistogram(2, "gray").fit(rows).transform(rows.tolist()) == [[2, 3]]).all()
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        color_histogram(rows, image_shape=(1, 5))


def test_lists_of_different_sizes(images):
    pictures = [images[0], images[1, :5, :9], images[2, :1, :1], images[3, 1:]]
    expected = np.concatenate([color_histogram(picture[None], 4, "opponent") for picture in pictures])
    assert (color_histogram(pictures, 4, "opponent") == expected).all()
    histogram = ColorHistogram(4, "opponent", n_jobs=2).fit(pictures)
    assert (histogram.transform(pictures) == expected).all()
    assert (histogram.transform(pictures[0][None]) == expected[:1]).all()
    assert histogram.image_shape_ == (None, None, 3)
    assert len(histogram.get_feature_names_out()) == 64


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({"bins": (1, 2, 1), "color_space": "hsv"}, ["hsv_h0_s0_v0", "hsv_h0_s1_v0"]),
        ({"bins": (1, 2, 1), "joint": False}, ["rgb_r0", "rgb_g0", "rgb_g1", "rgb_b0"]),
        ({"bins": 2, "color_space": "gray"}, ["gray_y0", "gray_y1"]),
        ({"bins": 1, "color_space": "lab", "grid": (1, 2)}, ["lab_r0_c0_l0_a0_b0", "lab_r0_c1_l0_a0_b0"]),
        (
            {"bins": 1, "color_space": "opponent", "joint": False},
            ["opponent_rg0", "opponent_yb0", "opponent_i0"],
        ),
    ],
)
def test_names(images, parameters, names):
    histogram = ColorHistogram(**parameters).set_output(transform="pandas")
    assert list(histogram.fit_transform(images).columns) == names


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"bins": 0}, "expected an int from 1 to 256"),
        ({"bins": 257}, "expected an int from 1 to 256"),
        ({"bins": 8.0}, "expected an int from 1 to 256"),
        ({"bins": (8, 8)}, r"each channel of 'rgb' \(3\)"),
        ({"bins": (8, 8, 8), "color_space": "gray"}, r"each channel of 'gray' \(1\)"),
        ({"bins": 64}, "262144 bins; expected at most 65536"),
        ({"color_space": "cmyk"}, "expected one of 'rgb', 'hsv', 'lab', 'opponent', 'gray'"),
        ({"grid": 0}, "expected a positive int or a pair"),
        ({"grid": (1, 2, 3)}, "expected a positive int or a pair"),
        ({"grid": (38, 1)}, "37 x 29 pixels has too few for a grid of 38 x 1"),
        ({"norm": "l3"}, "expected one of None, 'l1', 'l2', 'hellinger'"),
    ],
)
def test_wrong_parameters(images, parameters, message):
    with pytest.raises(ValueError, match=message):
        color_histogram(images, **parameters)
    with pytest.raises(ValueError, match=message):
        ColorHistogram(**parameters).fit(images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 1.0, r"must lie in \[0, 1\]"),
        (lambda x: x / 255 - 0.01, r"must lie in \[0, 1\]"),
        (lambda x: np.where(x == 255, np.nan, x / 255), "NaN or infinity"),
        (lambda x: x.transpose(0, 3, 1, 2), "Channels come last"),
        (lambda x: x.astype(int) - 1, "expected 0 to 255"),
        (lambda x: [x[0] / 255, x[1, :3] * 1.0], r"must lie in \[0, 1\]"),
        (lambda x: [x[0], x[1, :3, :, 0]], "mixes gray and RGB"),
        (lambda x: np.where(x[..., 0].reshape(5, -1) == 255, np.inf, 0.5), "infinity"),
    ],
)
def test_wrong_images(images, change, message):
    wrong = change(images)
    with pytest.raises(ValueError, match=message):
        color_histogram(wrong)
    with pytest.raises(ValueError, match=message):
        ColorHistogram().fit(wrong)


def test_transform_wants_the_channels_of_fit(images):
    with pytest.raises(ValueError, match="was fitted on images of shape"):
        ColorHistogram().fit(images).transform(images[..., 0])


def test_check_estimator():
    checks = check_estimator(ColorHistogram(), on_skip=None)
    assert sum(check["status"] == "passed" for check in checks) >= 40
    assert {check["check_name"] for check in checks if check["status"] != "passed"} <= {"check_array_api_input"}
