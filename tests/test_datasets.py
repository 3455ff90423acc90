import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classic_cls import load_dataset, load_image_folder, load_npz
from classic_cls.datasets import EMBEDDED

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def folder(tmp_path):
    """Two classes of four pictures that differ from one another."""
    for label, name in enumerate(["cat", "dog"]):
        (tmp_path / name).mkdir()
        for k in range(4):
            save(np.full((6, 5, 3), 100 * label + 10 * k, np.uint8), tmp_path / name / f"{k}.png")
    return tmp_path


def save(pixels, path, mode=None, **options):
    image = Image.fromarray(pixels) if mode is None else Image.fromarray(pixels).convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def first(folder):
    """Return the picture cat/0.*, read through the folder."""
    dataset = load_image_folder(folder)
    return dataset.images[[name.startswith("cat/0") for name in dataset.filenames].index(True)]


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "n_test"),
    [
        ("digits", (1797, 8, 8), np.float32, 450),
        ("faces", (200, 25, 25), np.float32, 50),
        ("textures", (768, 32, 32), np.uint8, 192),
    ],
)
def test_embedded_sets(name, shape, dtype, n_test):
    dataset = load_dataset(name)
    assert dataset.images.shape == shape
    assert dataset.images.dtype == dtype
    assert len(dataset.test) == n_test
    assert str(shape[0]) in dataset.DESCR
    assert sorted([*dataset.train, *dataset.test]) == list(range(shape[0]))
    assert np.array_equal(np.unique(dataset.target), np.arange(len(dataset.target_names)))
    assert np.ptp(dataset.images) == pytest.approx(255 if dtype == np.uint8 else 1, abs=20)


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_splits_are_stratified_fixed_and_share_no_image(name):
    dataset, again = load_dataset(name), load_dataset(name, random_state=1)
    assert np.array_equal(dataset.test, again.test)
    in_test = np.bincount(dataset.target[dataset.test]) / np.bincount(dataset.target)
    assert np.allclose(in_test, 0.25, atol=0.01)
    seen = {dataset.images[k].tobytes() for k in dataset.train}
    assert not seen & {dataset.images[k].tobytes() for k in dataset.test}


def test_textures_are_cut_from_disjoint_regions():
    from skimage.data import grass

    dataset = load_dataset("textures")
    patches = dataset.images[dataset.target == 1].reshape(16, 16, 32, 32).swapaxes(1, 2).reshape(512, 512)
    assert np.array_equal(patches, grass())
    assert dataset.train[dataset.target[dataset.train] == 1].max() < 256 + 192
    assert dataset.test[dataset.target[dataset.test] == 1].min() == 256 + 192


def test_faces_come_first_in_the_source():
    dataset = load_dataset("faces")
    assert dataset.target[0] == 0
    assert dataset.target[-1] == 1
    assert np.bincount(dataset.target).tolist() == [100, 100]


def test_committed_textures_are_what_the_script_makes(tmp_path):
    spec = importlib.util.spec_from_file_location("make_textures", DATA / "make_textures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.make(tmp_path)
    here, made = load_image_folder(DATA / "textures"), load_image_folder(tmp_path)
    assert here.filenames.tolist() == made.filenames.tolist()
    assert np.array_equal(here.images, made.images)
    assert here.images.shape == (54, 48, 48, 3)
    assert (len(here.train), len(here.test)) == (36, 18)
    assert here.target_names.tolist() == ["brick", "grass", "gravel"]
    assert sum(path.stat().st_size for path in (DATA / "textures").rglob("*.png")) < 400_000


def test_folder_without_parts_is_split(folder):
    dataset = load_image_folder(folder)
    assert dataset.images.shape == (8, 6, 5, 3)
    assert dataset.images.dtype == np.uint8
    assert dataset.target.tolist() == [0] * 4 + [1] * 4
    assert dataset.filenames[5] == "dog/1.png"
    assert dataset.images[5, 0, 0].tolist() == [110] * 3
    assert np.bincount(dataset.target[dataset.test]).tolist() == [1, 1]
    tests = {tuple(load_image_folder(folder, random_state=seed).test) for seed in range(20)}
    assert len(tests) > 5
    assert np.array_equal(load_image_folder(folder, random_state=3).test, load_dataset(folder, random_state=3).test)


def test_folder_with_train_and_test(tmp_path):
    for file in ("train/b/1", "train/b/2", "train/a/1", "test/b/1", "other/c/1"):
        save(np.zeros((4, 4), np.uint8), tmp_path / f"{file}.png")
    dataset = load_image_folder(tmp_path)
    assert dataset.target_names.tolist() == ["a", "b"]
    assert dataset.filenames.tolist() == ["train/a/1.png", "train/b/1.png", "train/b/2.png", "test/b/1.png"]
    assert dataset.target.tolist() == [0, 1, 1, 1]
    assert dataset.train.tolist() == [0, 1, 2]
    assert dataset.test.tolist() == [3]


def test_other_files_are_left_out(folder):
    (folder / "notes.txt").write_text("x")
    (folder / ".git").mkdir()
    (folder / "cat" / "Thumbs.db").write_bytes(b"x")
    (folder / "cat" / "._0.png").write_bytes(b"not a picture")
    save(np.zeros((3, 3, 3), np.uint8), folder / "cat" / "deeper" / "0.png")
    save(np.zeros((6, 5, 3), np.uint8), folder / "cat" / "LOUD.JPG", format="JPEG")
    dataset = load_image_folder(folder)
    assert len(dataset.images) == 9
    assert "cat/LOUD.JPG" in dataset.filenames


def test_sizes_that_differ_make_a_list(folder):
    save(np.zeros((9, 7), np.uint8), folder / "cat" / "0.png")
    dataset = load_image_folder(folder)
    assert isinstance(dataset.images, list)
    assert [image.shape for image in dataset.images[:2]] == [(9, 7, 3), (6, 5, 3)]
    assert {image.dtype for image in dataset.images} == {np.dtype(np.uint8)}
    assert load_image_folder(folder, size=(4, 8)).images.shape == (8, 4, 8, 3)
    assert load_dataset(folder, size=4).images.shape == (8, 4, 4, 3)


def test_exif_orientation_is_applied(folder):
    pixels = np.zeros((6, 4, 3), np.uint8)
    pixels[0, :, 0] = 255  # the top row is red
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to look at it
    save(pixels, folder / "cat" / "0.png", exif=exif)
    assert np.array_equal(first(folder), np.rot90(pixels, -1))


def test_sixteen_bit_gray_is_scaled(folder):
    gray = np.array([[0, 257, 128 * 257], [65535, 60000, 300]], np.uint16)
    for name in ("0.png", "0.pgm", "0.tif"):
        for old in (folder / "cat").glob("0.*"):
            old.unlink()
        save(gray, folder / "cat" / name)
        assert first(folder)[..., 0].tolist() == [[0, 1, 128], [255, 233, 1]]


def test_one_bit_palette_alpha_and_cmyk_become_rgb(folder):
    path = folder / "cat" / "0.png"
    save(np.array([[0, 255]], np.uint8), path, "1")
    assert first(folder).tolist() == [[[0] * 3, [255] * 3]]
    save(np.array([[[200, 10, 20], [0, 0, 255]]], np.uint8), path, "P")
    assert Image.open(path).mode == "P"
    assert np.abs(first(folder).astype(int) - [[[200, 10, 20], [0, 0, 255]]]).max() < 30
    save(np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8), path)
    assert first(folder).tolist() == [[[10, 20, 30], [255] * 3, [204] * 3]]
    save(np.array([[[9, 0], [9, 255]]], np.uint8), path)
    assert first(folder).tolist() == [[[255] * 3, [9] * 3]]
    path.unlink()
    save(np.full((8, 8, 3), (200, 100, 50), np.uint8), folder / "cat" / "0.jpg", "CMYK", quality=95)
    assert np.abs(first(folder)[4, 4].astype(int) - [200, 100, 50]).max() < 8


def test_transparent_colour_key_is_white(folder):
    image = Image.fromarray(np.array([[[1, 2, 3], [7, 8, 9]]], np.uint8))
    image.save(folder / "cat" / "0.png", transparency=(1, 2, 3))
    assert first(folder).tolist() == [[[255] * 3, [7, 8, 9]]]


@pytest.mark.parametrize("extension", ["gif", "webp", "tif"])
def test_first_frame_of_an_animation(folder, extension):
    frames = [Image.fromarray(np.full((6, 5, 3), value, np.uint8)) for value in (255, 0)]
    options = {"lossless": True} if extension == "webp" else {}
    frames[0].save(folder / "cat" / f"0.{extension}", save_all=True, append_images=frames[1:], **options)
    (folder / "cat" / "0.png").unlink()
    assert first(folder).min() == 255


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("extension", ["bmp", "gif", "jpg", "pgm", "png", "tif", "webp"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.7, 0.95, 0.999])
def test_never_half_an_image(folder, extension, kept):
    texture = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    whole = io.BytesIO()
    Image.fromarray(texture).save(whole, format={"jpg": "jpeg", "pgm": "ppm", "tif": "tiff"}.get(extension, extension))
    (folder / "cat" / "0.png").unlink()
    path = folder / "cat" / f"0.{extension}"
    path.write_bytes(whole.getvalue())
    expected = first(folder)
    path.write_bytes(whole.getvalue()[: int(kept * len(whole.getvalue()))])
    if kept > 0.9 and readable(folder):  # what is missing carries no pixels
        assert np.array_equal(first(folder), expected)
    else:
        with pytest.raises(ValueError, match=rf"0\.{extension} cannot be read.*replace it or remove it"):
            first(folder)


def readable(folder):
    try:
        return first(folder) is not None
    except ValueError:
        return False


def test_progressive_jpeg_cut_short(folder):
    texture = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = folder / "cat" / "0.jpg"
    Image.fromarray(texture).save(path, progressive=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"0\.jpg"):
        load_image_folder(folder)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_thirty_two_bit_pictures_are_refused(folder, dtype):
    save(np.zeros((3, 3), dtype), folder / "cat" / "0.tif")
    with pytest.raises(ValueError, match=r"0\.tif .*8 or 16 bits"):
        load_image_folder(folder)


def test_enormous_pictures_are_refused(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"0\.png has more than 20 pixels.*MAX_IMAGE_PIXELS"):
        load_image_folder(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "has none"),
        (["1.png"], "has none"),
        (["a/1.png"], "only one .'a'"),
        (["a/1.png", "a/2.png", "b/x.txt"], r"b has 0 pictures; expected at least 2"),
        (["a/1.png", "a/2.png", "b/1.png"], r"b has 1 pictures; expected at least 2"),
        (["train/a/1.png", "train/b/x.txt", "test/a/1.png"], "train/b has 0 pictures"),
        (["train/a/1.png", "train/b/1.png", "test/c/1.png"], "class 'c', which .*train has not .a, b."),
        (["train/a/1.png", "train/b/1.png", "test/a/x.txt"], "test has no pictures"),
        (["train/a/1.png", "test/a/1.png"], "only one .'a'"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, files, message):
    for file in files:
        save(np.zeros((3, 3), np.uint8), tmp_path / file, format="PNG")
    with pytest.raises(ValueError, match=message):
        load_image_folder(tmp_path)


def test_paths_that_do_not_exist(tmp_path):
    for load in (load_dataset, load_image_folder, load_npz):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"'digit'.*digits, faces, textures"):
        load_dataset("digit")


def arrays(**changes):
    labels = np.array(["x", "y", "x", "y"])
    images = np.arange(48, dtype=np.uint8).reshape(4, 3, 4)
    return {"X_train": images, "y_train": labels, "X_test": images[:2], "y_test": labels[:2]} | changes


def test_npz(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays(), extra=np.zeros(3))
    dataset = load_dataset(tmp_path / "data.npz")
    assert dataset.images.shape == (6, 3, 4)
    assert dataset.images.dtype == np.uint8
    assert dataset.target.tolist() == [0, 1, 0, 1, 0, 1]
    assert dataset.target_names.tolist() == ["x", "y"]
    assert dataset.train.tolist() == [0, 1, 2, 3]
    assert dataset.test.tolist() == [4, 5]
    colour = np.linspace(0, 1, 144).reshape(4, 3, 4, 3)
    np.savez(
        tmp_path / "data.npz",
        **arrays(X_train=colour, X_test=colour[:2], y_train=[7, 9, 7, 9], y_test=[9, 7]),
    )
    dataset = load_npz(str(tmp_path / "data.npz"))
    assert dataset.images.dtype == np.float32
    assert dataset.target_names.tolist() == ["7", "9"]
    assert dataset.target[-2:].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X_train": np.zeros((4, 12), np.uint8)}, r"X_train .*\(4, 12\).*height"),
        ({"X_test": np.zeros((2, 3, 4, 4), np.uint8)}, r"X_test .*\(2, 3, 4, 4\)"),
        ({"X_test": np.zeros((0, 3, 4), np.uint8), "y_test": np.zeros(0, "U1")}, r"X_test .*\(0, 3, 4\)"),
        ({"X_test": np.zeros((2, 3, 5), np.uint8)}, r"\(3, 4\).*\(3, 5\)"),
        ({"X_test": np.zeros((2, 3, 4), np.float32)}, "uint8.*float32"),
        ({"X_train": np.full((4, 3, 4), 7.0), "X_test": np.zeros((2, 3, 4))}, "must lie in"),
        ({"X_train": np.full((4, 3, 4), "a"), "X_test": np.full((2, 3, 4), "a")}, "dtype <U1"),
        ({"y_train": np.array(["x", "y"])}, r"y_train .*\(2,\).*expected 4"),
        ({"y_train": np.zeros(4)}, "y_train .*float64"),
        ({"y_test": np.array([1, 2])}, "strings and ints"),
        ({"y_test": np.array(["x", "z"])}, "'z', which y_train has not"),
        ({"y_train": np.full(4, "x"), "y_test": np.full(2, "x")}, "only the label 'x'"),
        ({"y_test": np.array(["x", None], object)}, "plain arrays"),
    ],
)
def test_npz_that_is_no_data_set(tmp_path, changes, message):
    np.savez(tmp_path / "data.npz", **arrays(**changes))
    with pytest.raises(ValueError, match=message) as error:
        load_npz(tmp_path / "data.npz")
    assert "data.npz" in str(error.value)


def test_npz_with_missing_keys_or_other_contents(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, X_train=np.zeros((2, 3, 3)), labels=np.zeros(2))
    with pytest.raises(ValueError, match=r"has no y_train, X_test, y_test; .*found X_train, labels"):
        load_npz(path)
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match=r"cannot be read as an \.npz file"):
        load_dataset(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"cannot be read as an \.npz file"):
        load_npz(path)
