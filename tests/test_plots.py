import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from skimage import color, data
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from classic_cls import (
    BagOfVisualWords,
    ColorHistogramDisplay,
    DenseSIFT,
    HOGDisplay,
    KeypointSIFT,
    VisualWordsDisplay,
    assign_words,
    color_histogram,
    hog,
    load_textures,
)

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(params=["gray uint8", "gray float", "rgb uint8", "rgb float"])
def image(request):
    """A picture of 40 x 56 pixels of every kind."""
    kind, dtype = request.param.split()
    photo = data.astronaut()[100:140, 200:256]
    photo = photo if kind == "rgb" else photo[..., 1]
    return photo if dtype == "uint8" else photo / 255


@pytest.fixture(scope="module")
def textures():
    return load_textures().images[::8]


@pytest.fixture(scope="module")
def words(textures):
    return BagOfVisualWords(n_words=12, samples_per_word=50, random_state=0).fit(textures)


def test_package_does_not_import_matplotlib():
    code = "import sys, classic_cls; classic_cls.HOGDisplay; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("make", [HOGDisplay.from_image, ColorHistogramDisplay.from_image])
def test_draws_into_given_axes_or_a_new_figure(make, image):
    display = make(image)
    assert display.plot() is display
    assert display.figure_ is display.ax_.figure
    _, ax = plt.subplots()
    assert display.plot(ax).ax_ is ax
    ax.figure.canvas.draw()


@pytest.mark.parametrize("make", [HOGDisplay.from_image, ColorHistogramDisplay.from_image])
@pytest.mark.parametrize("shape", [(2, 32, 32, 3), (32, 32, 4), (32,), (0, 32)])
def test_wrong_shape_says_what_came(make, shape):
    with pytest.raises(ValueError, match=rf"{shape}".replace("(", r"\(").replace(")", r"\)") + ".*expected one image"):
        make(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("make", [HOGDisplay.from_image, ColorHistogramDisplay.from_image])
def test_floats_beyond_one_are_refused(make):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        make(np.full((32, 32), 200.0))


class TestHOGDisplay:
    def test_same_picture_in_either_dtype(self):
        photo = data.coffee()[:40, :64]
        votes = [HOGDisplay.from_image(image).votes for image in (photo, photo / 255)]
        np.testing.assert_allclose(*votes, atol=1e-5)

    def test_cells_are_those_of_hog(self, image):
        display = HOGDisplay.from_image(image, orientations=6, pixels_per_cell=(5, 8), cells_per_block=1)
        expected = hog(image[None], 6, (5, 8), (1, 1))
        np.testing.assert_allclose(display.votes.ravel(), expected[0], rtol=1e-6)

    def test_a_cell_is_the_mean_over_its_blocks(self, image):
        display = HOGDisplay.from_image(image, pixels_per_cell=8, cells_per_block=(2, 3))
        blocks = hog(image[None], 9, (8, 8), (2, 3)).reshape(4, 5, 2, 3, 9)
        np.testing.assert_allclose(display.votes[0, 0], blocks[0, 0, 0, 0], rtol=1e-6)
        held_twice = [blocks[0, 2, 1, 0], blocks[1, 2, 0, 0], blocks[0, 1, 1, 1], blocks[1, 1, 0, 1]]
        held_twice += [blocks[0, 0, 1, 2], blocks[1, 0, 0, 2]]
        np.testing.assert_allclose(display.votes[1, 2], np.mean(held_twice, axis=0), rtol=1e-6)

    @pytest.mark.parametrize(
        ("edge", "expected"), [("vertical", 90), ("horizontal", 0), ("falling", 45), ("rising", 135)]
    )
    def test_longest_line_lies_along_the_edge(self, edge, expected):
        y, x = np.mgrid[:16, :16]
        side = {"vertical": x > 7, "horizontal": y > 7, "falling": y > x, "rising": x + y > 15}[edge]
        display = HOGDisplay.from_image(side.astype(float), pixels_per_cell=16, cells_per_block=1).plot()
        lines = np.array(display.lines_.get_segments())
        dx, dy = (lines[:, 1] - lines[:, 0])[np.argmax(np.hypot(*(lines[:, 1] - lines[:, 0]).T))]
        angle = np.degrees(np.arctan2(dy, dx)) % 180
        apart = abs(angle - expected)
        assert min(apart, 180 - apart) <= 10.01  # half a bin

    def test_lines_are_centred_on_their_cells(self):
        display = HOGDisplay.from_image(data.camera()[:24, :40], pixels_per_cell=(8, 10), cells_per_block=1).plot()
        lines = np.array(display.lines_.get_segments())
        centers = np.unique(lines.mean(axis=1).round(6), axis=0)
        left = 1.04 * 40
        expected = [(left + 10 * col + 5, 8 * row + 4) for col in range(4) for row in range(3)]
        np.testing.assert_allclose(centers, sorted(expected))
        lengths = np.linalg.norm(lines[:, 1] - lines[:, 0], axis=1)
        assert lengths.max() == pytest.approx(8)
        np.testing.assert_allclose(display.lines_.get_alpha(), lengths / 8)

    def test_picture_and_stars_keep_their_proportions(self, image):
        ax = HOGDisplay.from_image(image).plot().ax_
        picture, night = ax.images
        assert list(picture.get_extent()) == [0, 56, 40, 0]
        assert night.get_extent()[1] - night.get_extent()[0] == pytest.approx(56)
        assert ax.get_aspect() == 1
        labels = [label.get_text() for label in ax.get_xticklabels()]
        assert labels == ["picture, 40 x 56 pixels", "HOG: 5 x 7 cells, 9 orientations"]

    def test_flat_picture_has_no_lines_to_see(self):
        lines = HOGDisplay.from_image(np.full((24, 24), 7, np.uint8)).plot().lines_
        assert not lines.get_alpha().any()

    def test_unknown_parameter_is_named(self):
        with pytest.raises(TypeError, match="n_bins"):
            HOGDisplay.from_image(np.zeros((24, 24)), n_bins=9)


class TestColorHistogramDisplay:
    def test_bars_are_the_largest_bins(self, image):
        display = ColorHistogramDisplay.from_image(image, bins=4, color_space="hsv").plot(n_colors=5)
        widths = [bar.get_width() for bar in display.bars_]
        expected = np.sort(color_histogram(image[None], 4, "hsv", norm="l1")[0])[::-1][:5]
        np.testing.assert_allclose(widths, 100 * expected[expected > 0], rtol=1e-6)
        assert f"{sum(widths):.0f} %" in display.ax_.get_title()

    @pytest.mark.parametrize("space", ["rgb", "hsv", "lab", "opponent"])
    def test_bar_has_the_colour_that_it_counts(self, space):
        for rgb in [(200, 30, 40), (20, 160, 70), (30, 60, 190), (230, 220, 60), (128, 128, 128)]:
            picture = np.full((4, 4, 3), rgb, np.uint8)
            display = ColorHistogramDisplay.from_image(picture, bins=32, color_space=space).plot()
            (bar,) = display.bars_
            assert bar.get_width() == pytest.approx(100)
            apart = color.deltaE_ciede2000(color.rgb2lab(bar.get_facecolor()[:3]), color.rgb2lab(np.array(rgb) / 255))
            assert apart < 8

    def test_gray_bars_are_gray(self):
        display = ColorHistogramDisplay.from_image(np.full((4, 4), 200, np.uint8), bins=4, color_space="gray").plot()
        assert display.bars_[0].get_facecolor() == (0.875, 0.875, 0.875, 1)
        assert display.ax_.get_yticklabels()[0].get_text() == "gray_y3"

    def test_largest_is_on_top(self, image):
        ax = ColorHistogramDisplay.from_image(image).plot().ax_
        low, high = ax.get_ylim()
        assert low > high

    @pytest.mark.parametrize(("parameters", "named"), [({"color_space": "cmyk"}, "color_space"), ({"bins": 0}, "bins")])
    def test_bad_parameter_is_named(self, parameters, named):
        with pytest.raises(ValueError, match=named):
            ColorHistogramDisplay.from_image(np.zeros((4, 4)), **parameters)

    def test_bad_number_of_colours_is_named(self):
        with pytest.raises(ValueError, match="n_colors=0"):
            ColorHistogramDisplay.from_image(np.zeros((4, 4))).plot(n_colors=0)


class TestVisualWordsDisplay:
    def test_shows_the_most_frequent_words(self, words, textures):
        display = VisualWordsDisplay.from_estimator(words, textures, n_words=3, n_patches=4)
        found = assign_words(np.concatenate([d for d, _ in words.descriptor_.describe(textures)]), words.vocabulary_)
        counts = np.bincount(found, minlength=12)
        assert display.words.tolist() == np.argsort(-counts, kind="stable")[:3].tolist()
        np.testing.assert_allclose(display.shares, np.sort(counts)[::-1][:3] / len(found))

    def test_patches_are_the_nearest_of_different_images(self, words, textures):
        display = VisualWordsDisplay.from_estimator(words, textures, n_patches=3, words=[5])
        described = words.descriptor_.describe(textures)
        apart = np.array([np.linalg.norm(d - words.vocabulary_[5], axis=1) for d, _ in described])
        for patch, i in zip(display.patches[0], np.argsort(apart.min(axis=1))[:3], strict=True):
            y, x = described[i][1][apart[i].argmin()].astype(int)
            padded = np.pad(textures[i], 16, mode="edge") / 255
            expected = padded[16 + y - 7 : 16 + y + 9, 16 + x - 7 : 16 + x + 9]
            np.testing.assert_allclose(patch[..., 0], expected, atol=1e-6)

    def test_one_labelled_row_per_word(self, words, textures):
        display = VisualWordsDisplay.from_estimator(words, textures, n_patches=4, words=[7, 2]).plot()
        labels = [label.get_text() for label in display.ax_.get_yticklabels()]
        assert [label.split(" (")[0] for label in labels] == ["word 7", "word 2"]
        (canvas,) = display.ax_.images
        assert canvas.get_array().shape == (2 * 17 - 1, 4 * 17 - 1)
        np.testing.assert_allclose(canvas.get_array()[17:33, 34:50], display.patches[1, 2, ..., 0])

    def test_colour_lists_and_several_sizes(self):
        photos = [data.astronaut()[:90, :120], data.coffee()[50:170, :80] / 255, data.chelsea()[:60, 100:160]]
        words = BagOfVisualWords(DenseSIFT(8, (3, 5)), n_words=6, samples_per_word=20, random_state=0).fit(photos)
        display = VisualWordsDisplay.from_estimator(words, photos, n_words=4).plot()
        assert display.patches.shape == (4, 3, 20, 20, 3)
        assert 0 <= display.patches.min() < display.patches.max() <= 1

    def test_images_without_keypoints_are_left_white(self):
        photos = np.stack([data.camera()[:128, 128:256], np.zeros((128, 128), np.uint8)])
        words = BagOfVisualWords(KeypointSIFT(), n_words=4, random_state=0).fit(photos)
        display = VisualWordsDisplay.from_estimator(words, photos, n_words=2)
        assert display.patches.shape == (2, 2, 32, 32, 1)
        assert (display.patches[:, 1] == 1).all()
        assert (display.patches[:, 0] < 1).any()

    def test_not_fitted(self, textures):
        with pytest.raises(NotFittedError):
            VisualWordsDisplay.from_estimator(BagOfVisualWords(), textures)

    def test_a_pipeline_is_told_to_give_its_step(self, words, textures):
        with pytest.raises(TypeError, match="Pipeline; expected a fitted BagOfVisualWords"):
            VisualWordsDisplay.from_estimator(make_pipeline(words), textures)

    @pytest.mark.parametrize("chosen", [[12], [-1], [0.5], 3])
    def test_words_beyond_the_vocabulary(self, words, textures, chosen):
        with pytest.raises(ValueError, match="from 0 to 11"):
            VisualWordsDisplay.from_estimator(words, textures, words=chosen)

    def test_images_unlike_the_fitted(self, words):
        with pytest.raises(ValueError, match=r"fitted on images of shape \(32, 32, 1\)"):
            VisualWordsDisplay.from_estimator(words, np.zeros((2, 32, 32, 3), np.uint8))
