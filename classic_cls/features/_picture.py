"""How one picture becomes an image: upright, opaque, 8 bits; and never from a file that is cut short."""

import io
import threading

import numpy as np

from .resize import stretch

MAX_PIXELS = 178_956_970  # where Pillow, too, takes a picture for an attack
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP")  # no EPS: that would start Ghostscript
_TURNED = (5, 6, 7, 8)  # EXIF orientations with rows and columns exchanged
_BITS, _PHOTOMETRIC, _BLACK_IS_ZERO = 258, 262, 1  # of TIFF
_ORIENTATION = 0x0112


def read_picture(source, *, size=None, color="rgb", max_pixels=MAX_PIXELS, draft=False):
    """Return the picture in a file, or in bytes, as an image (height, width, 3) or (height, width), uint8.

    Raises OSError if the file cannot be opened, and ValueError, whose text goes on after the picture's name, if what
    is in it cannot be read.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        image = _decode(file, color, max_pixels, size if draft else None)
    if size is None or image.shape[:2] == size:
        return image
    resized = np.empty((*size, *image.shape[2:]), np.uint8)
    stretch(image, resized)
    return resized


class _Refused(ValueError):
    """A picture in order that has no 8-bit image."""


def _decode(file, color, max_pixels, draft_size):
    from PIL import Image, UnidentifiedImageError

    try:
        with _whole_pictures, Image.open(file, formats=_FORMATS) as picture:
            return _pixels(picture, color, max_pixels, draft_size)
    except _Refused:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"has more than {2 * Image.MAX_IMAGE_PIXELS} pixels, which Pillow takes for an attack. "
            "Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        ) from error
    except Exception as error:  # decoders raise many kinds
        unknown = isinstance(error, UnidentifiedImageError)
        reason = f"none of {', '.join(_FORMATS)}" if unknown else f"{type(error).__name__}: {error}"
        raise ValueError(
            f"cannot be read as a picture ({reason}). It may be damaged or cut short: replace it or remove it."
        ) from error


class _WholePictures:
    """While a picture is read, Pillow's global switch for half pictures (LOAD_TRUNCATED_IMAGES) is off.

    With it, Pillow fills what is missing with gray and says nothing. A program that has set it for other pictures
    finds it set again when the last of our threads has read its own.
    """

    def __init__(self):
        self.lock, self.readers, self.was_on = threading.Lock(), 0, False

    def __enter__(self):
        from PIL import ImageFile

        with self.lock:
            self.readers += 1
            self.was_on |= ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False

    def __exit__(self, *error):
        from PIL import ImageFile

        with self.lock:
            self.readers -= 1
            if self.readers == 0 and self.was_on:
                ImageFile.LOAD_TRUNCATED_IMAGES, self.was_on = True, False


_whole_pictures = _WholePictures()


def _pixels(picture, color, max_pixels, draft_size):
    from PIL import ImageOps

    _check_header(picture, max_pixels)
    if draft_size is not None:
        turned = picture.getexif().get(_ORIENTATION) in _TURNED
        picture.draft(None, draft_size if turned else draft_size[::-1])
    ImageOps.exif_transpose(picture, in_place=True)
    rgb = _rgb(picture)
    return np.array(rgb.convert("L") if color == "gray" else rgb)


def _check_header(picture, max_pixels):
    """Refuse, before anything is decoded, what is too large or has gray levels of unknown meaning."""
    if not 0 < picture.width * picture.height <= max_pixels:
        raise _Refused(
            f"has {picture.height} x {picture.width} pixels; expected 1 to max_pixels={max_pixels}. "
            "Make it smaller, or raise max_pixels if you trust it."
        )
    tiff = picture.format == "TIFF"
    if picture.mode == "F" or (tiff and picture.mode == "I"):
        raise _Refused("has 32-bit or signed pixels, which have no known range. Save it with 8 or 16 bits.")
    if tiff and picture.mode.startswith("I"):
        tags = picture.tag_v2.get(_BITS), picture.tag_v2.get(_PHOTOMETRIC, _BLACK_IS_ZERO)
        if tags != ((16,), _BLACK_IS_ZERO):
            raise _Refused("has gray levels that are not 16 bits with black at zero. Save it so, or with 8 bits.")


def _rgb(picture):
    from PIL import Image

    if picture.mode.startswith("I"):
        return _eight_bits(picture).convert("RGB")
    if "A" in picture.mode.upper().replace("LAB", "") or "transparency" in picture.info:
        pixels = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bits(picture):
    """Return 16-bit gray, which Pillow's own conversion would clip, scaled to 8 bits; its transparent level white."""
    from PIL import Image

    levels = np.asarray(picture)
    scaled = np.rint(levels / 257).astype(np.uint8)
    scaled[levels == picture.info.get("transparency", -1)] = 255
    return Image.fromarray(scaled)
