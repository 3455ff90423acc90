"""Reads pictures: paths, or the bytes of encoded pictures, become images."""

import csv
import os
import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import gen_batches

from .._files import replacing
from .._images import for_batches, one_of, pair, positive_int
from ._picture import MAX_PIXELS, read_picture

_SMALL = 8 << 10  # bytes of a picture


class ReadImages(TransformerMixin, BaseEstimator):
    """Read pictures, so that a pipeline goes from paths to labels.

    JPEG, PNG, GIF, BMP, PNM, TIFF and WebP, told by what is in them whatever their names end in, and decoded by
    Pillow; a file that is cut short is an error, never half a picture (other damage inside a JPEG, which has no
    checksum, may pass unnoticed). A camera's EXIF orientation is applied, transparent pixels are laid on white, 16-bit
    gray is divided by 257, 16-bit colour keeps its upper 8 bits, CMYK and palettes become RGB (colour profiles are not
    looked at), and of an animation the first frame is taken. 32-bit pixels, whose range no one knows, are refused.

    Parameters
    ----------
    size : int or (int, int), default=None
        Height and width to resize every picture to, whatever its proportions: the result of :class:`Resize` in whole
        levels of 0 to 255, to one level. None leaves them as they are.
    color : {"rgb", "gray"}, default="rgb"
        Gray is ``0.299 R + 0.587 G + 0.114 B``, rounded.
    errors : {"raise", "skip"}, default="raise"
        What a picture does that cannot be read. "skip" leaves it out, warns, and lists it in ``skipped_``: there are
        then fewer images than paths, and labels no longer match. To fit, call :func:`read_pictures` and take the
        labels of the indices it returns.
    max_pixels : int, default=178956970
        A picture with more is refused before it is decoded: a small file can unfold to gigabytes. The default is
        where Pillow gives up by itself; to go beyond it, raise ``PIL.Image.MAX_IMAGE_PIXELS`` too.
    draft : bool, default=False
        Let the JPEG decoder shrink a picture by 2, 4 or 8 where it stays at least as large as `size`: several times
        as fast on large photographs. The pixels then differ a little, so a model must be fitted and used with the
        same value.
    n_jobs : int, default=None
        Number of threads.

    Attributes
    ----------
    kept_ : ndarray of shape (n_images,), int64
        Which paths of the last ``transform`` the images are of.
    skipped_ : tuple of Skipped
        ``path`` and ``reason`` of the others; :func:`write_skipped` writes them down.

    See Also
    --------
    read_pictures : The same as a plain function.
    iter_pictures : In batches, for more pictures than fit into memory.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> from sklearn.pipeline import make_pipeline
    >>> from classic_cls import HOG, LinearSVC, ReadImages
    >>> def encoded(degrees):
    ...     file = io.BytesIO()
    ...     Image.linear_gradient("L").rotate(degrees).save(file, "PNG")
    ...     return file.getvalue()
    >>> pictures = [encoded(degrees) for degrees in (0, 90, 180, 270)]  # or paths
    >>> model = make_pipeline(ReadImages(32), HOG(), LinearSVC())
    >>> model.fit(pictures, ["rows", "columns", "rows", "columns"]).predict(pictures[:2]).tolist()
    ['rows', 'columns']
    """

    def __init__(self, size=None, *, color="rgb", errors="raise", max_pixels=MAX_PIXELS, draft=False, n_jobs=None):
        self.size = size
        self.color = color
        self.errors = errors
        self.max_pixels = max_pixels
        self.draft = draft
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Check the parameters and that X holds paths; no file is opened.

        Parameters
        ----------
        X : sequence of str, path or bytes
            Paths of pictures, or what is in their files: a list, an array of one dimension, or a pandas Series.
        y : ignored

        Returns
        -------
        self : ReadImages
        """
        _checked_options(self.size, self.color, self.errors, self.max_pixels, self.draft)
        _checked_paths(X)
        return self

    def transform(self, X):
        """Read pictures.

        Parameters
        ----------
        X : sequence of str, path or bytes
            As in ``fit``.

        Returns
        -------
        images : ndarray of shape (n, *size, 3) for "rgb" or (n, *size) for "gray", uint8
            A list of arrays (height, width, 3) or (height, width) where `size` is None.

        Raises
        ------
        OSError, ValueError
            As :func:`read_pictures`.
        """
        self.kept_, images, self.skipped_ = read_pictures(X, **self.get_params())
        if self.skipped_:
            first = self.skipped_[0]
            warnings.warn(
                f"{len(self.skipped_)} of {len(self.skipped_) + len(self.kept_)} pictures are left out; the first, "
                f"{first.path}, {first.reason} skipped_ lists them all, and kept_ says which paths the images are of.",
                stacklevel=3,  # past scikit-learn's wrapper of transform
            )
        return images

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        tags.requires_fit = False
        return tags


@dataclass(frozen=True)
class Skipped:
    """A picture that could not be read: its path and the reason, a sentence that goes on after the path."""

    path: str
    reason: str


def read_pictures(paths, size=None, *, color="rgb", errors="raise", max_pixels=MAX_PIXELS, draft=False, n_jobs=None):
    """Read pictures, and say which could not be read.

    Parameters
    ----------
    paths : sequence of str, path or bytes
        Paths of pictures, or what is in their files.
    size, color, max_pixels, draft, n_jobs
        As in :class:`ReadImages`.
    errors : {"raise", "skip"}, default="raise"
        "raise" stops at the first picture that cannot be read, "skip" reports it.

    Returns
    -------
    indices : ndarray of shape (n_images,), int64
        Which of `paths` the images are of, ascending.
    images : ndarray of shape (n_images, *size, 3) or (n_images, *size), uint8, or list of such images
        A list where `size` is None.
    skipped : tuple of Skipped
        ``path`` and ``reason`` of each of the others, in the order of `paths`; of bytes, the path is their position
        and length.

    Raises
    ------
    OSError
        If a file cannot be opened, such as FileNotFoundError, IsADirectoryError or PermissionError.
    ValueError
        If a picture cannot be read whole, or is too large, or has pixels without a known range; and if a parameter
        is out of range.
    TypeError
        If `paths` holds something else, whatever `errors`.

    Examples
    --------
    >>> from classic_cls import read_pictures
    >>> indices, images, skipped = read_pictures(["no_such.jpg", b"no picture"], 32, errors="skip")
    >>> images.shape
    (0, 32, 32, 3)
    >>> print(skipped[0].path, skipped[0].reason)
    no_such.jpg cannot be opened (No such file or directory).
    """
    options = _checked_options(size, color, errors, max_pixels, draft)
    return _read_all(_checked_paths(paths), 0, options, errors, n_jobs)


def iter_pictures(
    paths,
    size=None,
    *,
    batch_size=256,
    color="rgb",
    errors="raise",
    max_pixels=MAX_PIXELS,
    draft=False,
    n_jobs=None,
):
    """Read pictures in batches, in order: no more than one batch of images is in memory.

    Parameters
    ----------
    paths, size, color, errors, max_pixels, draft, n_jobs
        As in :func:`read_pictures`.
    batch_size : int, default=256
        Number of paths in a batch.

    Returns
    -------
    batches : iterator of (indices, images, skipped)
        As :func:`read_pictures` returns them, for one batch of paths after the other; the indices count from the
        first of all `paths`. Where nothing in a batch can be read, there are no images.

    Raises
    ------
    OSError, ValueError, TypeError
        As :func:`read_pictures`: what is wrong with the parameters at once, pictures when their batch is due.

    Examples
    --------
    >>> from classic_cls import iter_pictures
    >>> for indices, images, skipped in iter_pictures(["a.jpg", "b.jpg", "c.jpg"], 8, batch_size=2, errors="skip"):
    ...     print(images.shape, [picture.path for picture in skipped])
    (0, 8, 8, 3) ['a.jpg', 'b.jpg']
    (0, 8, 8, 3) ['c.jpg']
    """
    options = _checked_options(size, color, errors, max_pixels, draft)
    paths = _checked_paths(paths)
    batches = gen_batches(len(paths), positive_int(batch_size, "batch_size"))
    return (_read_all(paths[batch], batch.start, options, errors, n_jobs) for batch in batches)


def write_skipped(path, skipped):
    """Write a report of skipped pictures; an older file is replaced only by a whole one.

    Parameters
    ----------
    path : str or path
        A CSV file with the columns ``path`` and ``reason``, UTF-8.
    skipped : iterable of Skipped
        As :func:`read_pictures` returns them.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from classic_cls import read_pictures, write_skipped
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_skipped(f"{folder}/skipped.csv", read_pictures(["a.jpg"], errors="skip")[2])
    ...     print(Path(folder, "skipped.csv").read_text())
    path,reason
    a.jpg,cannot be opened (No such file or directory).
    """
    rows = [("path", "reason"), *((each.path, each.reason) for each in skipped)]
    # File names need not be Unicode: their bytes are written as they are.
    options = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    with replacing(path) as unfinished, unfinished.open("w", **options) as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _checked_options(size, color, errors, max_pixels, draft):
    """Return what `read_picture` takes, or say which parameter is wrong."""
    one_of(errors, "errors", ("raise", "skip"))
    if one_of(draft, "draft", (True, False)) and size is None:
        raise ValueError("draft=True shrinks pictures to no less than size, and size=None; give a size.")
    return {
        "size": None if size is None else pair(size, "size"),
        "color": one_of(color, "color", ("rgb", "gray")),
        "max_pixels": positive_int(max_pixels, "max_pixels"),
        "draft": draft,
    }


def _checked_paths(paths):
    """Return the paths as a list, or say what else they are."""
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise TypeError(f"{_shown(paths)} is one picture; expected several, or a list of one: [path].")
    if getattr(paths, "ndim", 1) != 1:
        raise ValueError(f"The paths have shape {paths.shape}; expected one dimension: one column of a table.")
    if getattr(getattr(paths, "dtype", None), "kind", "") == "S":
        raise TypeError("NumPy's bytes lose zeros at the end; expected str, or bytes in a list or an object array.")
    paths = list(paths)
    if not paths:
        raise ValueError("Found no paths: 0 sample(s) while a minimum of 1 is required.")
    for i, path in enumerate(paths):
        if not isinstance(path, (str, bytes, os.PathLike)):
            raise TypeError(
                f"Number {i} of the paths is {_shown(path)} ({type(path).__name__}); expected a path (str or Path) "
                "or the bytes of an encoded picture. Arrays of pixels need not be read."
            )
    return paths


def _shown(value):
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _read_all(paths, start, options, errors, n_jobs):
    failures = {}

    def read_some(positions, out):
        for k, i in enumerate(positions.tolist()):
            if errors == "raise" and min(tuple(failures), default=i) < i:
                return  # all that comes before the first failure is still read: it may fail earlier
            try:
                out[k] = read_picture(paths[i], **options)
            except (OSError, ValueError) as error:
                failures[i] = error

    images = _room(len(paths), options)
    n_jobs = 1 if _are_small(paths) else n_jobs
    for_batches(read_some, np.arange(len(paths)), images, n_jobs=n_jobs, batch_size=16)
    if failures and errors == "raise":
        i = min(failures)
        _raise(failures[i], paths[i], start + i)
    skipped = tuple(_report(failures[i], paths[i], start + i) for i in sorted(failures))
    kept = np.array([i for i in range(len(paths)) if i not in failures], np.int64)
    images = images[kept] if failures else images
    return start + kept, list(images) if options["size"] is None else images, skipped


def _are_small(paths):
    """Tell whether decoding takes less time than threads lose as they wait for each other outside of it."""
    some = paths[:: -(-len(paths) // 8)]
    return sum(len(path) if isinstance(path, bytes) else _size(path) for path in some) < _SMALL * len(some)


def _size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return 0  # reading says more


def _room(n, options):
    if options["size"] is None:
        return np.empty(n, object)
    return np.empty((n, *options["size"], *([3] if options["color"] == "rgb" else [])), np.uint8)


def _raise(error, path, i):
    if isinstance(error, OSError):  # names the path itself
        raise error
    raise ValueError(f"{_name(path, i)} {error}") from error


def _report(error, path, i):
    opened = not isinstance(error, OSError)
    return Skipped(_name(path, i), str(error) if opened else f"cannot be opened ({error.strerror}).")


def _name(path, i):
    return f"number {i} ({len(path)} bytes)" if isinstance(path, bytes) else os.fsdecode(path)
