import io

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import crops
from PIL import Image
from skimage import data
from sklearn.utils import Bunch

from classic_cls import DuplicatesDisplay, load_textures
from classic_cls.benchmark import _alignment, find_duplicates, find_leaks

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def pictures():
    """Ninety pieces of photographs that don't overlap, (90, 64, 64, 3) uint8: those with the most to see."""
    photos = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.immunohistochemistry()]
    tiles = [photo[y : y + 64, x : x + 64] for photo in photos for y in range(0, 450, 64) for x in range(0, 600, 64)]
    whole = np.stack([tile for tile in tiles if tile.shape == (64, 64, 3)])
    slopes = np.abs(np.diff(whole.mean(axis=3), axis=1)).mean(axis=(1, 2))
    return whole[np.random.default_rng(0).permutation(np.argsort(-slopes)[:90])]


def recompressed(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=50)
    return np.array(Image.open(file))


def cut(image, top, bottom, left, right):
    height, width = image.shape[:2]
    inner = Image.fromarray(image[top : height - bottom, left : width - right])
    return np.array(inner.resize((width, height), Image.Resampling.BICUBIC))


def scaled(image, factor, added=0):
    return (image * float(factor) + added).round().clip(0, 255).astype(np.uint8)


CHANGES = {
    "recompressed": recompressed,
    "cut at one side": lambda image: cut(image, 0, 0, 6, 0),
    "cut all around": lambda image: cut(image, 4, 4, 4, 4),
    "darker": lambda image: scaled(image, 0.7),
    "brighter": lambda image: scaled(image, 1.4),
    "added": lambda image: scaled(image, 1, 40),
    "subtracted": lambda image: scaled(image, 1, -40),
    "half the size": lambda image: np.array(Image.fromarray(image).resize((32, 32), Image.Resampling.BOX)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["rgb", "gray", "float"])
def test_changed_copies_are_found_and_nothing_else(pictures, change, kind):
    originals = list(pictures if kind != "gray" else pictures[..., 1])
    copies = [CHANGES[change](image) for image in originals[:20]]
    images = originals + copies
    if kind == "float":
        images = [image / 255 for image in images]
    found = find_duplicates(images)
    expected = {(i, len(originals) + i) for i in range(20)}
    pairs = set(map(tuple, found.pairs.tolist()))
    assert pairs <= expected
    assert len(pairs) >= 18
    assert (found.similarity >= 0.9).all()
    assert not found.exact.any()
    between = find_duplicates(images[:90], images[90:])
    assert len(set(map(tuple, between.pairs.tolist())) & {(i, i) for i in range(20)}) >= 18
    turned = find_duplicates(images[90:], images[:90])
    assert len(set(map(tuple, turned.pairs.tolist())) & {(i, i) for i in range(20)}) >= 18


def test_a_cut_copy_is_a_candidate_by_its_inner_part():
    images = load_textures().images
    copies = np.stack([cut(image, 3, 3, 3, 3) for image in images])
    thumbs, others = (_alignment.thumbnails(x[..., None]) for x in (images, copies))
    for pairs in (_alignment.candidates(thumbs, others), _alignment.candidates(others, thumbs)):
        assert (pairs[:, 0] == pairs[:, 1]).sum() > 0.93 * len(images)  # 0.84 if margins were never left out


def test_white_stays_white_in_a_brightened_copy(pictures):
    copies = np.stack([scaled(image, 1.5, 40) for image in pictures])
    white = (copies == 255).mean(axis=(1, 2, 3))
    chosen = np.flatnonzero((white > 0.2) & (white < 0.6))
    assert len(chosen) >= 10
    thumbs, others = (_alignment.thumbnails(x[chosen]) for x in (pictures, copies))
    same = np.column_stack([np.arange(len(chosen))] * 2)
    for similarity in (_alignment.similarities(thumbs, others, same), _alignment.similarities(others, thumbs, same)):
        assert np.median(similarity) > 0.97


def test_the_most_similar_come_first(pictures):
    copies = [recompressed(image) for image in pictures[:20]]
    found = find_duplicates(np.concatenate([pictures, copies, pictures[30:32]]))
    assert found.exact.tolist() == [True] * 2 + [False] * (len(found) - 2)
    assert (np.diff(found.similarity) <= 0).all()
    assert len(set(found.similarity.tolist())) > 10


def test_exact_copies_are_all_found(pictures):
    images = np.concatenate([pictures, pictures[10:40], pictures[:1]])
    for threshold in (0.9, 1):
        found = find_duplicates(images, threshold=threshold)
        assert found.pairs.tolist() == [[0, 120], *([i, 80 + i] for i in range(10, 40))]
        assert found.exact.all()
        assert (found.similarity == 1).all()


def test_exact_means_the_pixels_at_8_bits(pictures):
    images = pictures[:4]
    changed = images.copy()
    changed[2, 5, 7, 1] ^= 1
    found = find_duplicates(images, changed / 255, threshold=1)
    assert found.pairs.tolist() == [[0, 0], [1, 1], [3, 3]]
    flat = np.full((2, 12), 7, np.uint8)
    assert len(find_duplicates([flat, flat.reshape(4, 6), flat.reshape(3, 8)], threshold=1)) == 0


def test_flat_pictures_are_copies_only_if_exact():
    flat = np.stack([np.full((16, 16), level, np.uint8) for level in (10, 60, 200, 60)])
    noisy = np.random.default_rng(0).integers(0, 2, (20, 16, 16), dtype=np.uint8) + np.uint8(100)
    assert find_duplicates(np.concatenate([flat, noisy])).pairs.tolist() == [[1, 3]]


def test_different_noise_is_no_copy():
    noise = np.random.default_rng(0).integers(0, 256, (200, 24, 24, 3), dtype=np.uint8)
    assert len(find_duplicates(noise)) == 0


def test_look_alikes_are_no_copies():
    rng = np.random.default_rng(0)
    shirt = np.zeros((28, 28))
    shirt[4:26, 7:21] = 200
    shirt[4:12, 2:26] = 200
    shirts = shirt + (shirt > 0) * rng.integers(-25, 25, (60, 28, 28))
    images = np.concatenate([shirts, shirts[:1] * 0.9]).astype(np.uint8)
    assert find_duplicates(images).pairs.tolist() == [[0, 60]]
    pairs = np.column_stack([np.zeros(20, int), np.arange(1, 21)])
    thumbs = _alignment.thumbnails(images[..., None])
    assert (_alignment.similarities(thumbs, thumbs, pairs) > 0.85).any()  # without the comparison some would count


def test_a_mirror_image_is_none(pictures):
    assert len(find_duplicates(pictures[:60], pictures[:60, :, ::-1])) == 0


def test_many_copies_of_one_image(pictures):
    images = np.concatenate([pictures, np.repeat(pictures[:1], 100, axis=0)])
    found = find_duplicates(images)
    assert found.exact.all()
    listed = np.bincount(found.pairs.ravel(), minlength=190)
    assert (listed[[0, *range(90, 190)]] >= 20).all()
    assert not listed[1:90].any()
    assert len(found) <= 101 * 20


def test_near_copies_of_exact_copies_are_all_listed(pictures):
    images = np.concatenate([pictures, pictures[:1], recompressed(pictures[0])[None]])
    found = find_duplicates(images)
    assert found.pairs.tolist() == [[0, 90], [0, 91], [90, 91]]
    assert found.exact.tolist() == [True, False, False]


def test_lists_of_several_sizes():
    rng = np.random.default_rng(0)
    sides = rng.integers(40, 90, (60, 2))
    images = [crops(1, height, width, seed=i)[0] for i, (height, width) in enumerate(sides.tolist())]
    tall = np.array(Image.fromarray(images[5]).resize((50, 75), Image.Resampling.BICUBIC))
    assert [5, 60] in find_duplicates([*images, tall]).pairs.tolist()


def test_same_result_for_any_number_of_threads(pictures):
    images = np.concatenate([pictures, [recompressed(image) for image in pictures[:40]]])
    one, two = (find_duplicates(images, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert len(one) >= 38
    np.testing.assert_array_equal(one.pairs, two.pairs)
    np.testing.assert_allclose(one.similarity, two.similarity, atol=1e-5)


@pytest.mark.parametrize("shift", [(0.08, 0), (-0.1, 0.05)])
def test_alignment_finds_a_known_place(pictures, shift):
    target = np.float32([[*shift, shift[1], -shift[0]]] * 8)
    photos = _alignment.thumbnails(pictures[:8]).astype(np.float32)
    b = _alignment._luma(_alignment._moved(photos, target))
    place = _alignment._registered(_alignment._luma(photos), b, np.zeros_like(target), n_steps=20)
    assert np.median(np.abs(place - target).max(axis=1)) < 0.01


def test_cell_means_are_means():
    image = np.random.default_rng(0).random((32, 32), np.float32)
    cells = _alignment._cell_means(8)
    np.testing.assert_allclose(cells @ image @ cells.T, image.reshape(8, 4, 8, 4).mean((1, 3)), rtol=1e-5)
    np.testing.assert_allclose(_alignment._cell_means(5, cut=2).sum(axis=1), 1, rtol=1e-6)
    assert not _alignment._cell_means(5, cut=2)[:, [0, 1, 30, 31]].any()


def test_small_sets(pictures):
    assert find_duplicates(pictures[:1]).pairs.shape == (0, 2)
    assert find_duplicates(pictures[:2]).table.shape == (0, 4)
    assert find_duplicates(pictures[[3, 3]]).pairs.tolist() == [[0, 1]]
    assert find_duplicates([pictures[0]], [pictures[0]]).pairs.tolist() == [[0, 0]]
    assert find_duplicates(pictures[:1], recompressed(pictures[0])[None]).pairs.tolist() == [[0, 0]]


def test_table(pictures):
    found = find_duplicates(np.concatenate([pictures, pictures[5:6], recompressed(pictures[8])[None]]))
    assert found.table[["index", "other", "exact"]].values.tolist() == [[5, 90, True], [8, 91, False]]
    assert len(found) == 2
    assert (found.n_images, found.n_others) == (92, None)


class TestConflicts:
    def test_within(self, pictures):
        found = find_duplicates(np.concatenate([pictures, pictures[5:8]]), threshold=1)
        labels = np.arange(93) % 7
        labels[90] = labels[5]
        assert found.conflicts(labels).pairs.tolist() == [[6, 91], [7, 92]]
        names = np.array(list("abcdefg"))[labels]
        assert found.conflicts(names).pairs.tolist() == [[6, 91], [7, 92]]

    def test_between_and_several_labels(self, pictures):
        found = find_duplicates(pictures[:9], pictures[4:6], threshold=1)
        assert found.conflicts(np.arange(9), [4, 6]).pairs.tolist() == [[5, 1]]
        labels, others = np.eye(9), np.eye(9)[4:6]
        assert len(found.conflicts(labels, others)) == 0
        others[0, 8] = 1
        assert found.conflicts(labels, others).pairs.tolist() == [[4, 0]]

    def test_too_few_labels(self, pictures):
        found = find_duplicates(pictures[:9], pictures[4:6], threshold=1)
        with pytest.raises(ValueError, match=r"labels is an array of shape \(8,\); .* each of the 9 images"):
            found.conflicts(np.arange(8), [1, 2])
        with pytest.raises(ValueError, match=r"other_labels is None; .* each of the 2 images"):
            found.conflicts(np.arange(9))


@pytest.mark.parametrize("threshold", [0, 1.1, "high", float("nan")])
def test_bad_threshold(pictures, threshold):
    with pytest.raises(ValueError, match=r"threshold=.*expected a number above 0"):
        find_duplicates(pictures, threshold=threshold)


def test_bad_images(pictures):
    with pytest.raises(ValueError, match="Gray images are compared with RGB"):
        find_duplicates(pictures, pictures[..., 0])
    with pytest.raises(ValueError, match=r"X has shape \(90, 192\); expected .* Of flat rows make images"):
        find_duplicates(pictures[:, 0].reshape(90, -1))
    with pytest.raises(ValueError, match="NaN"):
        find_duplicates(np.full((3, 8, 8), np.nan))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        find_duplicates(np.full((3, 8, 8), 200.0))


class TestLeaks:
    @pytest.fixture
    def bunch(self, pictures):
        """Sixty training and thirty test images: two leak, a training pair and a test pair are copies."""
        images = pictures.copy()
        images[70], images[75] = images[3], recompressed(images[4])
        images[21], images[89] = images[20], images[80]
        target = np.arange(90) % 10
        target[70] = target[3]
        target[21] = target[20]
        order = np.random.default_rng(1).permutation(90)
        place = np.argsort(order)
        parts = {"train": place[:60], "test": place[60:]}
        return Bunch(images=images[order], target=target[order], **parts), place

    def test_each_side(self, bunch):
        dataset, place = bunch
        leaks = find_leaks(dataset)
        assert leaks.between.pairs.tolist() == [[place[3], place[70]], [place[4], place[75]]]
        assert leaks.between.exact.tolist() == [True, False]
        assert leaks.within_train.pairs.tolist() == [[place[20], place[21]]]
        assert leaks.within_test.pairs.tolist() == [[place[80], place[89]]]
        assert leaks.leaked.tolist() == sorted([place[70], place[75]])
        conflicting = {tuple(pair) for pair in leaks.conflicts.pairs.tolist()}
        assert conflicting == {(place[4], place[75]), (place[80], place[89])}

    def test_summary(self, bunch):
        text = find_leaks(bunch[0]).summary()
        assert text.startswith("2 of 30 test images (6.67%) have a copy among the 60 training images; of 1 the copy")
        assert "1 pair of copies (1 exact), within the test images 1 pair of" in text
        assert "In 2 of all these pairs" in text
        assert "\n" not in text

    def test_a_list_and_an_image_on_both_sides(self, pictures):
        images = list(pictures[:20])
        dataset = Bunch(images=images, target=np.arange(20), train=np.arange(12), test=np.arange(11, 20))
        leaks = find_leaks(dataset)
        assert leaks.between.pairs.tolist() == [[11, 11]]
        assert len(leaks.conflicts) == 0

    def test_none(self, pictures):
        dataset = Bunch(images=pictures, target=np.zeros(90), train=np.arange(50), test=np.arange(50, 90))
        leaks = find_leaks(dataset)
        assert leaks.leaked.size == 0
        assert "Nothing leaks that could be found" in leaks.summary()


class TestDisplay:
    def test_shows_pairs_with_labels(self, pictures):
        images = np.concatenate([pictures, pictures[5:6], recompressed(pictures[8])[None]])
        found = find_duplicates(images)
        display = DuplicatesDisplay.from_duplicates(found, images, labels=np.arange(92))
        assert display.plot() is display
        assert display.pictures.shape == (2, 2, 64, 64, 3)
        np.testing.assert_allclose(display.pictures[0, 1], pictures[5] / 255, atol=1e-6)
        assert display.captions == ["5, 90: exact\n5 | 90", f"8, 91: {found.similarity[1]:.3f}\n8 | 91"]
        assert [text.get_text() for text in display.ax_.texts] == display.captions
        (canvas,) = display.ax_.images
        shown = canvas.get_array()
        np.testing.assert_allclose(shown[:64, 66:130, :3], pictures[5] / 255, atol=1e-6)
        assert shown[:64, 66:130, 3].all()
        assert not shown[64:, :, 3].any()  # below them the page shows through
        display.figure_.canvas.draw()

    def test_gray_lists_between_two_sets(self, pictures):
        images, other = [*pictures[:5, ..., 0]], [pictures[3, :40, :, 0], pictures[1, ..., 0]]
        display = DuplicatesDisplay.from_duplicates(find_duplicates(images, other), images, other, other_labels="ab")
        assert display.captions == ["1, 1: exact\nb"]
        _, ax = plt.subplots()
        assert display.plot(ax).ax_ is ax

    def test_no_more_than_asked_for(self, pictures):
        images = np.concatenate([pictures, pictures])
        display = DuplicatesDisplay.from_duplicates(find_duplicates(images, threshold=1), images, n_pairs=7)
        assert len(display.pictures) == 7

    def test_what_cannot_be_shown(self, pictures):
        with pytest.raises(ValueError, match="no copies were found"):
            DuplicatesDisplay.from_duplicates(find_duplicates(pictures), pictures)
        found = find_duplicates(pictures, pictures[:3], threshold=1)
        with pytest.raises(ValueError, match="images holds 4 images; expected the 90"):
            DuplicatesDisplay.from_duplicates(found, pictures[:4], pictures[:3])
        with pytest.raises(ValueError, match="other holds 0 images; expected the 3"):
            DuplicatesDisplay.from_duplicates(found, pictures)
        with pytest.raises(ValueError, match="There are 2 labels; expected 90"):
            DuplicatesDisplay.from_duplicates(found, pictures, pictures[:3], labels=[1, 2])
