"""Pictures are read whole, upright and the same from any source, or refused with their name and the reason."""

import builtins
import csv
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import crops
from hypothesis import settings
from PIL import Image, ImageFile
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from classic_cls import (
    HOG,
    LinearSVC,
    ReadImages,
    Resize,
    iter_pictures,
    load_image_folder,
    read_pictures,
    write_skipped,
)
from classic_cls.features.read_images import Skipped

LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}
# How the pixels of a picture lie in its file, by EXIF orientation, and how they are meant.
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(file, kind, **options)
    return file.getvalue()


def read(picture, **options):
    """Return the only image of one picture."""
    return read_pictures([picture], **options)[1][0]


@pytest.fixture(scope="module")
def photo():
    return crops(1, 31, 23)[0]


@pytest.fixture
def folder(tmp_path):
    """Four pictures, of which 1 is no picture and 2 is missing, and their paths."""
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, pixels in enumerate(crops(4, 20, 30)):
        paths[i].write_bytes(encoded(pixels))
    paths[1].write_text("no picture")
    paths[2].unlink()
    return paths


@pytest.fixture
def half_pictures_allowed(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_pixels_are_those_of_the_file(photo, kind):
    image = read(encoded(photo, kind, **LOSSLESS[kind]))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, photo)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg(photo, options):
    picture = encoded(photo, "JPEG", quality=95, **options)
    np.testing.assert_array_equal(read(picture), np.asarray(Image.open(io.BytesIO(picture))))
    assert np.abs(read(picture).astype(int) - photo).mean() < 8


def test_any_source_gives_the_same(tmp_path, photo):
    path = tmp_path / "wrong extension.jpg"
    path.write_bytes(encoded(photo))
    for paths in (
        [str(path)],
        (path,),
        [encoded(photo)],
        np.array([str(path)]),
        np.array([path], object),
        np.array([encoded(photo)], object),
        pd.Series([str(path)], index=[7]),
        pd.Series([str(path)], dtype="string"),
    ):
        np.testing.assert_array_equal(ReadImages().fit_transform(paths)[0], photo)


@pytest.mark.parametrize("size", [16, (8, 50), (31, 23)])
@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_resized_as_resize_does(photo, size, color):
    pictures = [encoded(photo), encoded(photo[5:, :9])]
    resized = ReadImages(size, color=color).fit_transform(pictures)
    expected = Resize(size).fit_transform(ReadImages(color=color).fit_transform(pictures))
    assert resized.dtype == np.uint8
    np.testing.assert_allclose(resized, expected * 255, rtol=0, atol=1)
    assert np.mean(resized - expected * 255) == pytest.approx(0, abs=0.2)


def test_a_folder_and_its_paths_give_the_same(tmp_path):
    for i, pixels in enumerate(crops(4, 20, 30)):
        (tmp_path / f"{i % 2}").mkdir(exist_ok=True)
        (tmp_path / f"{i % 2}" / f"{i}.jpg").write_bytes(encoded(pixels, "JPEG"))
    dataset = load_image_folder(tmp_path, size=12)
    paths = [tmp_path / name for name in dataset.filenames]
    np.testing.assert_array_equal(ReadImages(12).fit_transform(paths), dataset.images)


def test_gray(photo):
    gray = read(encoded(photo), color="gray")
    assert gray.shape == photo.shape[:2]
    assert np.abs(gray - photo @ [0.299, 0.587, 0.114]).max() < 0.51
    levels = photo[..., 1].copy()
    np.testing.assert_array_equal(read(encoded(levels), color="gray"), levels)
    np.testing.assert_array_equal(read(encoded(levels)), np.stack([levels] * 3, -1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation(photo, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = LOSSLESS.get(kind, {"quality": 100, "subsampling": 0})
    image = read(encoded(photo, kind, exif=exif, **options))
    lying = read(encoded(photo, kind, **options))
    np.testing.assert_array_equal(image, UPRIGHT[orientation](lying))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_gray(kind):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(read(encoded(levels, kind), color="gray"), np.rint(levels / 257))


def test_sixteen_bit_gray_with_a_transparent_level():
    levels = np.array([[0, 257, 1000]], np.uint16)
    assert read(encoded(levels, transparency=257), color="gray").tolist() == [[0, 255, 4]]


def gray_tiff(bits, photometric, values):
    """Return a TIFF of one row of gray levels, the way cameras and scanners write them and Pillow does not."""
    data = np.packbits([value >> (bits - 1 - k) & 1 for value in values for k in range(bits)]).tobytes()
    if bits == 16:
        data = np.array(values, "<u2").tobytes()
    tags = {256: len(values), 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(data)}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    padded = data + b"\0" * (len(data) % 2)
    header = struct.pack("<2sHI", b"II", 42, 8 + len(padded))
    return header + padded + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def test_tiff_with_other_levels_is_refused():
    assert read(gray_tiff(16, 1, [0, 257, 65535]), color="gray").tolist() == [[0, 1, 255]]
    assert read(gray_tiff(8, 0, [0, 5, 255]), color="gray").tolist() == [[255, 250, 0]]
    for bits, photometric in ((12, 1), (16, 0)):
        with pytest.raises(ValueError, match="not 16 bits with black at zero"):
            read(gray_tiff(bits, photometric, [0, 1, 4000, 4095]))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bits_are_refused(dtype):
    with pytest.raises(ValueError, match=r"^number 0 .\d+ bytes. has 32-bit"):
        read(encoded(np.zeros((3, 3), dtype), "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_are_white(mode):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[..., 3] = 255, 0, 51
    picture = encoded(Image.fromarray(pixels).convert(mode) if mode != "PA" else palette_with_alpha())
    assert read(picture, color="gray").tolist() == [[0, 255, 204]]


def palette_with_alpha():
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    picture.putpalette([0] * 9)
    picture.info["transparency"] = bytes([255, 0, 51])
    return picture


def test_cmyk_and_one_bit(photo):
    smooth = np.asarray(Image.fromarray(photo).resize((64, 64), Image.Resampling.BICUBIC))
    cmyk = read(encoded(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=100))
    assert np.abs(cmyk.astype(int) - smooth).mean() < 3
    bits = photo[..., 0] > 128
    np.testing.assert_array_equal(read(encoded(Image.fromarray(bits), "TIFF"), color="gray"), bits * 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame(kind):
    frames = [Image.new("L", (5, 4), level) for level in (255, 0)]
    assert read(encoded(frames[0], kind, save_all=True, append_images=frames[1:])).min() == 255


@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_draft_is_no_smaller_and_nearly_the_same(color, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = np.asarray(Image.fromarray(crops(1, 100, 140)[0]).resize((560, 400), Image.Resampling.BICUBIC))
    picture = encoded(smooth, "JPEG", quality=95, exif=exif)
    size = (50, 70) if orientation == 1 else (70, 50)
    fast, slow = (read(picture, size=size, color=color, draft=draft).astype(int) for draft in (True, False))
    assert 0 < np.abs(fast - slow).mean() < 2
    fits_once = (280, 200) if orientation == 1 else (200, 280)  # the decoder's half is too small for it
    np.testing.assert_array_equal(*(read(picture, size=fits_once, draft=draft) for draft in (True, False)))
    np.testing.assert_array_equal(*(read(encoded(smooth), size=50, draft=draft) for draft in (True, False)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
def test_never_half_a_picture_even_if_pillow_is_told_so(photo, kind, half_pictures_allowed):
    whole = encoded(photo, kind)
    for kept in (0.5, 0.8):
        with pytest.raises(ValueError, match="cannot be read as a picture"):
            read(whole[: int(kept * len(whole))])
    assert ImageFile.LOAD_TRUNCATED_IMAGES
    half = [whole[: len(whole) // 2]] * 200
    assert len(read_pictures(half, 8, errors="skip", n_jobs=4)[2]) == 200
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_damaged_pixels_are_refused_even_if_pillow_is_told_otherwise(photo, half_pictures_allowed):
    picture = bytearray(encoded(photo))
    at = picture.index(b"IDAT") + 40
    picture[at : at + 60] = bytes(60)
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        read(bytes(picture))


def test_too_many_pixels_are_refused_before_decoding(photo, monkeypatch):
    picture = encoded(photo)
    assert read(picture, max_pixels=31 * 23).shape == photo.shape
    with pytest.raises(ValueError, match=r"has 31 x 23 pixels; expected 1 to max_pixels=712"):
        read(picture, max_pixels=31 * 23 - 1)
    with pytest.raises(ValueError, match=r"has 31 x 23 pixels"):  # not: that it is cut short
        read(picture[: len(picture) // 2], max_pixels=700)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(ValueError, match=r"more than 600 pixels.*MAX_IMAGE_PIXELS"):
        read(picture)


def test_what_cannot_be_opened_keeps_its_error(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no_such") as error:
        read(tmp_path / "no_such.jpg")
    assert error.value.__cause__ is None  # rather than itself: who follows the causes would not come to an end
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        read(tmp_path)

    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(PermissionError, match=r"secret\.jpg"):
        read("secret.jpg")
    assert read_pictures(["secret.jpg"], errors="skip")[2] == (
        Skipped("secret.jpg", "cannot be opened (Permission denied)."),
    )


@pytest.mark.parametrize("content", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_picture(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read as a picture .none of JPEG.*replace it or remove it"):
        read(path)


@pytest.mark.parametrize("size", [None, 8])
def test_skipped_are_reported(folder, size):
    indices, images, skipped = read_pictures(folder, size, errors="skip")
    assert indices.tolist() == [0, 3]
    assert indices.dtype == np.int64
    assert [each.path for each in skipped] == [str(folder[1]), str(folder[2])]
    assert skipped[0].reason.startswith("cannot be read as a picture (none of JPEG")
    assert skipped[1].reason == "cannot be opened (No such file or directory)."
    for i, image in zip(indices, images, strict=True):
        np.testing.assert_array_equal(image, read(folder[i], size=size))
    with pytest.raises(ValueError, match=r"1\.png cannot be read"):
        read_pictures(folder, size)


def test_transformer_skips_aloud(folder):
    reader = ReadImages(8, errors="skip")
    with pytest.warns(
        UserWarning, match=r"2 of 4 pictures are left out; the first, .*1\.png, cannot be read"
    ) as caught:
        images = reader.fit(folder).transform(folder)
    assert caught[0].filename == __file__
    assert len(images) == 2
    assert reader.kept_.tolist() == [0, 3]
    assert [each.path for each in reader.skipped_] == [str(folder[1]), str(folder[2])]
    reader.transform(folder[:1])
    assert reader.skipped_ == ()
    model = make_pipeline(ReadImages(32, errors="skip"), HOG(), LinearSVC())
    with pytest.raises(ValueError, match="inconsistent numbers of samples"), pytest.warns(UserWarning, match="2 of 4"):
        model.fit(folder, [0, 1, 0, 1])


@pytest.mark.parametrize("n_jobs", [1, 2, 5])
def test_any_number_of_threads(photo, n_jobs):
    pictures = [encoded(np.roll(photo, k, 0)) for k in range(60)]
    np.testing.assert_array_equal(
        ReadImages(16, n_jobs=n_jobs).fit_transform(pictures), ReadImages(16).fit_transform(pictures)
    )
    for bad in (59, 33, 17):
        pictures[bad] = b""
    skipped = read_pictures(pictures, errors="skip", n_jobs=n_jobs)[2]
    assert [each.path for each in skipped] == [f"number {bad} (0 bytes)" for bad in (17, 33, 59)]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_the_first_bad_picture_is_named_though_a_later_one_fails_sooner(photo, n_jobs):
    large = encoded(np.tile(photo, (9, 9, 1)))
    pictures = [large] * 15 + [b"first", b"later"] + [large] * 15  # two batches
    with pytest.raises(ValueError, match=r"^number 15 \(5 bytes\) cannot"):
        read_pictures(pictures, n_jobs=n_jobs)


@pytest.mark.parametrize("size", [None, 8])
def test_batches_are_the_whole(folder, size):
    batches = list(iter_pictures(folder, size, batch_size=3, errors="skip"))
    assert [indices.tolist() for indices, _, _ in batches] == [[0], [3]]
    _, images, skipped = read_pictures(folder, size, errors="skip")
    assert sum((each for _, _, each in batches), ()) == skipped
    for got, expected in zip([image for _, some, _ in batches for image in some], images, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_batches_name_bytes_by_their_place_among_all(photo):
    batches = iter_pictures([encoded(photo)] * 5 + [b"x"], batch_size=2)
    next(batches), next(batches)
    with pytest.raises(ValueError, match=r"^number 5 \(1 bytes\)"):
        next(batches)


def test_report_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "skipped.csv"
    skipped = [Skipped('a, "b"\nc.jpg', "reason, with comma"), Skipped("é\udcff.jpg", "x")]
    write_skipped(path, skipped)
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert list(csv.reader(file)) == [["path", "reason"], *([each.path, each.reason] for each in skipped)]
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        write_skipped(path, [*skipped, None])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("as_given", [list, np.array, lambda paths: np.array(paths, object), pd.Series])
def test_pipeline_from_paths_to_labels(tmp_path, as_given):
    paths, y = [], np.arange(12) % 2
    for i, pixels in enumerate(crops(12, 40, 36)):
        paths.append(str(tmp_path / f"{i}.png"))
        stripes = np.where(np.arange(40)[:, None] % 8 < 4, 255, pixels[..., 0]).astype(np.uint8)
        Path(paths[-1]).write_bytes(encoded(stripes if y[i] else np.ascontiguousarray(stripes.T)))
    X = as_given(paths)
    model = make_pipeline(ReadImages(32), HOG(), LinearSVC()).fit(X, y)
    assert model.predict(X).tolist() == y.tolist()
    assert pickle.loads(pickle.dumps(model)).predict(X).tolist() == y.tolist()
    search = GridSearchCV(model, {"readimages__size": [24, (32, 40)]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_score_ > 0.9


def test_estimator():
    reader = ReadImages((8, 9), color="gray", errors="skip", max_pixels=10, draft=True, n_jobs=2)
    assert clone(reader).get_params() == reader.get_params()
    assert "ReadImages" in reader._repr_html_()
    assert not hasattr(reader, "set_output")
    assert reader.fit(["never opened"]) is reader


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": (4, 4, 3)}, r"size=\(4, 4, 3\)"),
        ({"color": "RGB"}, "color='RGB'; expected one of 'rgb', 'gray'"),
        ({"errors": "ignore"}, "errors='ignore'"),
        ({"max_pixels": 2e8}, "max_pixels=2"),
        ({"draft": True}, "give a size"),
        ({"draft": "yes", "size": 8}, "draft='yes'"),
    ],
)
def test_bad_parameters(photo, parameters, message):
    for use in (ReadImages(**parameters).fit, ReadImages(**parameters).transform):
        with pytest.raises(ValueError, match=message):
            use([encoded(photo)])
    with pytest.raises(ValueError, match=message):
        iter_pictures([encoded(photo)], **parameters)


def test_bad_batch_size():
    with pytest.raises(ValueError, match="batch_size=0"):
        iter_pictures(["a"], batch_size=0)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("a.jpg", TypeError, r"'a.jpg' is one picture.*\[path\]"),
        (Path("a.jpg"), TypeError, "is one picture"),
        (b"GIF89a" * 100, TypeError, r"^b'GIF89a.{,60}\.\.\. is one picture"),
        ([], ValueError, "0 sample"),
        (np.array(["a", "b"])[:, None], ValueError, r"shape \(2, 1\)"),
        (pd.DataFrame({"path": ["a"]}), ValueError, "one column"),
        (np.array([b"GIF"]), TypeError, "lose zeros"),
        (["a.jpg", None], TypeError, "Number 1 of the paths is None .NoneType.; expected a path"),
        (pd.Series(["a.jpg", np.nan]), TypeError, "Number 1 of the paths is nan"),
        ([np.zeros((4, 4), np.uint8)], TypeError, "ndarray.*Arrays of pixels need not be read"),
        (np.zeros((2, 4, 4), np.uint8), ValueError, r"shape \(2, 4, 4\)"),
    ],
)
def test_what_are_no_paths(X, error, message):
    for errors in ("raise", "skip"):
        with pytest.raises(error, match=message):
            ReadImages(errors=errors).fit(X)
        with pytest.raises(error, match=message):
            ReadImages(errors=errors).transform(X)


def damaged(picture, rng):
    """Return the picture with a few bytes changed, cut short, or with a piece repeated or missing."""
    spoilt = bytearray(picture)
    kind = rng.integers(4)
    a, b = sorted(rng.integers(0, len(picture), 2))
    if kind == 0:
        return picture[:b]
    if kind == 1:
        return picture[:a] + picture[b:]
    if kind == 2:
        return picture[:b] + picture[a:]
    for at in rng.integers(0, len(picture), rng.integers(1, 6)):
        spoilt[at] = rng.integers(256)
    return bytes(spoilt)


@pytest.mark.parametrize("warned", [pytest.param(w, marks=pytest.mark.filterwarnings(w)) for w in ("ignore", "error")])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
def test_damaged_pictures_are_read_or_reported(photo, kind, warned):
    rng = np.random.default_rng(len(kind))
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG", "TIFF", "WEBP") else {}
    picture = encoded(photo, kind, **options)
    n = max(150, settings.default.max_examples // 2)  # 5,000 where tests are thorough: see conftest.py
    pictures = [damaged(picture, rng) for _ in range(n)]
    indices, images, skipped = read_pictures(pictures, 8, errors="skip", max_pixels=10**6)
    alone = [outcome(each) for each in pictures]
    assert images.shape == (len(indices), 8, 8, 3)
    assert len(indices) + len(skipped) == n
    assert len(skipped) > n / 8
    for i, image in zip(indices, images, strict=True):
        np.testing.assert_array_equal(image, alone[i])
    reasons = [str(each) for each in alone if isinstance(each, Exception)]
    for each, reason in zip(skipped, reasons, strict=True):
        assert reason.split(" ", 4)[4] == each.reason


def outcome(picture):
    try:
        return read(picture, size=8, max_pixels=10**6)
    except (OSError, ValueError) as error:
        return error
