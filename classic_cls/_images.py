"""What a batch of images is: how input is read and checked, and how a batch is split over threads.

Images come as ``(n, height, width)`` gray or ``(n, height, width, 3)`` RGB, as flat rows ``(n, n_pixels)`` with an
``image_shape``, or as a list of images of different sizes. Inside the package a batch is either one array
``(n, height, width, channels)`` or a list of arrays ``(height, width, channels)``.
"""

import numbers
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from joblib import effective_n_jobs
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from ._arrays import device_of, for_device_batches, namespace, on_device, refuse_device, sum_of_squares
from ._sending import Streamed, stack

_LARGEST = 1e6  # a gradient's square must stay far inside float32; hog.cu knows this number, too


def read_images(X, image_shape=None, *, ragged=False, device=False, who="This function"):
    """Return X as ``(n, height, width, channels)``, or as a list of such images where `ragged` allows sizes to differ.

    No pixel is copied or converted where that can be helped: `as_pixels` does it, piece by piece. Arrays on a GPU stay
    there where `device` allows them, and are refused elsewhere.
    """
    _refuse_file_names(X)
    if not device:
        refuse_device(X, who)
    if is_ragged(X):
        xp = namespace(*X)
        images = [_one_image(image, i) for i, image in enumerate(X)]
        if len({image.shape for image in images}) == 1:
            return stack(images) if isinstance(images[0], Streamed) else xp.stack(images)
        return _checked_sizes(images, ragged)
    X = _in_native_order(X)
    if is_table(X):
        return _unflatten(_rows(X, image_shape), image_shape)
    if image_shape is not None and X.shape[1:] not in (tuple(image_shape), (*image_shape, 1)):
        raise ValueError(
            f"The images have shape {X.shape[1:]}, but image_shape={tuple(image_shape)}. "
            "Leave image_shape=None for images that are not flat rows."
        )
    return _batch(X if on_device(X) else np.asarray(X))


def read_any_sizes(X):
    """Read images of any sizes that are no flat rows."""
    _refuse_file_names(X)
    if is_table(X):
        raise ValueError(
            f"X has shape {np.shape(X)}; expected (n, height, width) gray, (n, height, width, 3) RGB or a list of "
            "images. Of flat rows make images with X.reshape(-1, height, width), of one image a batch with image[None]."
        )
    return read_images(X, ragged=True)


def _refuse_file_names(X):
    first = X[0] if isinstance(X, (list, tuple)) and X else X
    if isinstance(first, (str, bytes, os.PathLike)):
        raise TypeError(
            f"X holds text ({first!r}), and images are expected: arrays of pixels. "
            "ReadImages(size) before this step reads files, load_image_folder(path) a folder of pictures."
        )


def is_ragged(X):
    """Tell whether X is a list (or object array) of images rather than one array or a table of rows."""
    if isinstance(X, np.ndarray) and (X.dtype != object or X.ndim != 1):
        return False
    return isinstance(X, (list, tuple, np.ndarray)) and len(X) > 0 and all(np.ndim(image) >= 2 for image in X)


def _in_native_order(X):
    """Return numbers in the byte order of this machine, which those of a file (16-bit TIFF, FITS) need not have."""
    foreign = isinstance(X, np.ndarray) and not X.dtype.isnative
    return X.astype(X.dtype.newbyteorder("=")) if foreign else X


def _one_image(image, i):
    image = _in_native_order(image if on_device(image) else np.asarray(image))
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(
            f"Image {i} of the list has shape {image.shape}; expected (height, width) gray or (height, width, 3) RGB."
        )
    return image


def _checked_sizes(images, ragged):
    if not ragged:
        sizes = sorted({image.shape[:2] for image in images})
        raise ValueError(
            f"The images have different sizes ({sizes[0]} and {sizes[-1]} among them), and the number of features here "
            "depends on the size. Put Resize(size) before this step."
        )
    if len({image.shape[2] for image in images}) > 1:
        raise ValueError(
            "The list mixes gray and RGB images; convert them to one kind, e.g. with np.stack([gray] * 3, -1)."
        )
    return images


def is_table(X):
    """Tell whether X is flat rows (or too few dimensions for anything), rather than images."""
    return not is_ragged(X) and (hasattr(X, "iloc") or getattr(X, "ndim", 2) <= 2)


def _rows(X, image_shape):
    """Check flat rows; 0-D and 1-D input and sparse matrices get scikit-learn's own message.

    Rows without an `image_shape` are plain numbers: wide integers among them are not levels of gray.
    """
    if on_device(X):
        return _rows_on_device(X, image_shape)
    if image_shape is not None or getattr(X, "dtype", None) in (np.uint8, np.uint16, bool):
        return check_array(X, dtype="numeric", input_name="X")
    return check_array(X, dtype=[np.float64, np.float32], input_name="X")


def _rows_on_device(X, image_shape):
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"Expected 2D array of at least one sample and feature, got shape {X.shape} instead.")
    is_picture = image_shape is not None or X.dtype in (np.uint8, np.uint16, bool)
    return X if is_picture or X.dtype.kind not in "iu" else X.astype(np.float64)


def _unflatten(rows, image_shape):
    if image_shape is None:
        return rows[:, None, :, None]
    shape = _parse_shape(image_shape)
    if rows.shape[1] != np.prod(shape):
        raise ValueError(
            f"image_shape={tuple(image_shape)} means rows of {np.prod(shape)} numbers; X has {rows.shape[1]} features."
        )
    return rows.reshape(len(rows), *shape)


def _parse_shape(image_shape):
    ok = isinstance(image_shape, (tuple, list)) and len(image_shape) in (2, 3)
    if not ok or not all(isinstance(k, numbers.Integral) and k > 0 for k in image_shape):
        raise ValueError(f"image_shape={image_shape!r}; expected (height, width) or (height, width, channels).")
    return (*image_shape, 1)[:3]


def _batch(X):
    if X.ndim not in (3, 4):
        raise ValueError(
            f"The images have shape {X.shape}; expected (n, height, width) gray, (n, height, width, 3) RGB or flat "
            "rows (n, n_pixels). A single image is a batch of one: image[None]."
        )
    images = X[..., None] if X.ndim == 3 else X
    if len(images) == 0:
        raise ValueError(f"Found array with 0 sample(s) (shape={X.shape}) while a minimum of 1 is required.")
    if 0 in images.shape:
        raise ValueError(f"The images have shape {X.shape}: no pixels.")
    if images.shape[3] not in (1, 3):
        hint = " Channels come last: X.transpose(0, 2, 3, 1)." if images.shape[1] in (1, 3) else ""
        alpha = " Drop the alpha channel: X[..., :3]." if images.shape[3] == 4 else ""
        raise ValueError(f"The images have {images.shape[3]} channels (shape={X.shape}); expected 1 or 3.{hint}{alpha}")
    return images


def largest(images):
    """Return the largest image, as far as the first ones of a list tell."""
    return max(images[:64], key=lambda image: image.size) if isinstance(images, list) else images[0]


def take(images, indices):
    """Return some of the images, or of their paths: of an array an array, else a list."""
    if isinstance(images, (list, tuple)):
        return [images[i] for i in indices]
    return images[indices if isinstance(images, Streamed) else namespace(images).asarray(indices)]


def fit_images(estimator, X, *, ragged=False, device=False):
    """Read X for ``fit`` and remember what images `estimator` has seen."""
    who = type(estimator).__name__
    images = read_images(X, estimator.image_shape, ragged=ragged, device=device, who=who)
    if is_table(X):
        validate_data(estimator, X, skip_check_array=True)  # remembers the columns' names
    if isinstance(images, list):
        estimator.image_shape_ = (None, None, images[0].shape[2])
    else:
        estimator.image_shape_ = tuple(int(k) for k in images.shape[1:])
        estimator.n_features_in_ = int(np.prod(images.shape[1:]))
    return images


def transform_images(estimator, X, *, ragged=False, device=False):
    """Read X for ``transform`` and check that it looks like what ``fit`` saw."""
    check_is_fitted(estimator)
    who = type(estimator).__name__
    images = read_images(X, estimator.image_shape, ragged=ragged, device=device, who=who)
    if is_table(X) and hasattr(estimator, "n_features_in_"):
        validate_data(estimator, X, reset=False, skip_check_array=True)
    seen = estimator.image_shape_
    for shape in {image.shape for image in images} if isinstance(images, list) else {images.shape[1:]}:
        if shape[2] != seen[2] or (not ragged and shape != seen):
            raise ValueError(
                f"{who} was fitted on images of shape {seen} (height, width, channels), "
                f"and X has images of shape {shape}."
            )
    return images


def as_pixels(images, *, float_type=np.float32, unit_range=False, unchecked=False):
    """Return images as a C-contiguous array of uint8 or `float_type`.

    uint8 stays as it is, bool becomes 0 and 255, uint16 is divided by 65535, other integers must lie in 0..255 and
    become uint8, floats become `float_type`. Raises ValueError for NaN, infinity and floats whose squares would leave
    float32, and, where `unit_range` is asked for, for floats outside [0, 1]; or leaves that to the caller: `unchecked`.
    Images that are still to be sent to a GPU are looked at where they lie.
    """
    images = images.get() if isinstance(images, Streamed) else images
    xp = namespace(images)
    images = xp.asarray(images)
    if images.dtype == bool:
        images = images.astype(np.uint8) * np.uint8(255)
    elif images.dtype == np.uint16:
        images = images.astype(np.float32) / np.float32(65535)
    elif images.dtype.kind in "iu" and images.dtype != np.uint8:
        images = _bytes_from_integers(images)
    if images.dtype == np.uint8:
        return xp.ascontiguousarray(images)
    if images.dtype.kind != "f":
        raise TypeError(f"The images have dtype {images.dtype}; expected uint8 (0 to 255) or float (0 to 1).")
    images = xp.ascontiguousarray(images, dtype=float_type if images.dtype != float_type else None)
    if not unchecked:
        check_floats(images, unit_range)
    return images


def _bytes_from_integers(images):
    if images.size and (images.min() < 0 or images.max() > 255):
        raise ValueError(
            f"The images are {images.dtype} with values from {images.min()} to {images.max()}; expected 0 to 255. "
            "Scale them to uint8, or to float in [0, 1]."
        )
    return images.astype(np.uint8)


def check_floats(images, unit_range=False):
    """Raise ValueError if `as_pixels` would."""
    if images.size == 0:
        return
    with device_of(images), np.errstate(over="ignore", invalid="ignore"):
        if not unit_range and sum_of_squares(images) <= _LARGEST**2:
            return  # half the time of the extremes, and most often enough
        low, high = float(images.min()), float(images.max())  # NaN wins both
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            "Input X contains NaN or infinity (or a number too large for float32). Mend or drop those images."
        )
    if max(-low, high) > _LARGEST:
        raise ValueError(f"Pixels beyond {_LARGEST:g} cannot be images; expected uint8, or float in [0, 1].")
    if unit_range and (low < 0 or high > 1):
        raise ValueError(
            f"Float images must lie in [0, 1]; these range from {low:.6g} to {high:.6g}. "
            "Divide by the largest possible value (255 for 8-bit pictures), or pass uint8."
        )


def as_bytes(image):
    """Return an image as uint8; floats in [0, 1] are rounded to the nearest of 256 levels."""
    pixels = as_pixels(image, unit_range=True)
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels * np.float32(255)).astype(np.uint8)


def for_batches(function, images, out, *, n_jobs=None, batch_size=256, workspace=1):
    """Call ``function(images[s], out[s])`` for slices `s` of the batch, on `n_jobs` threads, and return `out`.

    Threads rather than processes: the kernels release the GIL, and nothing is copied. The slices depend on nothing
    that a kernel could notice, so the result is the same bytes whatever `n_jobs`. On a GPU the slices are as large as
    its memory allows, where an image needs about `workspace` bytes.
    """
    if on_device(images):
        return for_device_batches(function, images, out, workspace=workspace)
    workers = effective_n_jobs(n_jobs)
    batch_size = max(1, min(batch_size, -(-len(images) // workers)))
    edges = [*range(0, len(images), batch_size), len(images)]
    parts = [(images[start:stop], out[start:stop]) for start, stop in pairwise(edges)]
    if workers == 1:
        for part in parts:
            function(*part)
    else:
        _on_threads(function, parts, workers)
    return out


def _on_threads(function, parts, workers):
    """Call ``function(*part)`` for all parts; joblib.Parallel would take 2 ms more, as much as a few small images."""
    pool = ThreadPoolExecutor(workers)
    try:
        for _ in pool.map(function, *zip(*parts, strict=True)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, or Ctrl-C, no more parts are begun


def pair(value, name):
    """Return a positive int, or two of them, as a tuple of two ints."""
    values = (value, value) if isinstance(value, numbers.Integral) else value
    ok = isinstance(values, (tuple, list, np.ndarray)) and len(values) == 2
    if not ok or not all(isinstance(k, numbers.Integral) and k >= 1 for k in values):
        raise ValueError(f"{name}={value!r}; expected a positive int or a pair (rows, columns) of them.")
    return int(values[0]), int(values[1])


def positive_int(value, name):
    """Return `value` as an int, or raise a ValueError that names the parameter."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r}; expected a positive int.")
    return int(value)


def positive_number(value, name):
    """Return `value` as a float, or raise a ValueError that names the parameter."""
    if not isinstance(value, numbers.Real) or not 0 < value < np.inf:
        raise ValueError(f"{name}={value!r}; expected a positive number.")
    return float(value)


def one_of(value, name, allowed):
    """Return `value` if it is one of `allowed`, or raise a ValueError that lists them."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}; expected one of {', '.join(map(repr, allowed))}.")
    return value
