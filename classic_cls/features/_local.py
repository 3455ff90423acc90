"""What encoders of local descriptors share: drawing a sample, the cells of a spatial pyramid, scaling, checks.

A local descriptor is anything with ``describe(images)``, which returns for each image its descriptors (n, n_dims) and
their positions (n, 2), ``(y, x)`` in pixels.
"""

from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone

from .. import _native
from .._arrays import namespace, on_device
from .._images import largest, take
from .dense_sift import DenseSIFT

_PER_IMAGE = 32  # descriptors drawn from one image, at least: fewer would mostly describe pixels in vain
_TIMES_AS_MANY_ON_DEVICE = 16  # images at a time; their descriptors take tens of MiB
_LARGEST = 1e6  # a square must stay far inside float32
_FEATURES_PER_BATCH = 1 << 22  # what is summed must not outgrow memory


class Described(NamedTuple):
    """The descriptors of some images, one after the other, in the images' kind of array."""

    descriptors: Any  # (n, n_dims), float32
    counts: np.ndarray  # how many each image has, on the host
    owners: Any  # (n,), which image each belongs to
    places: Any  # (n, 2), how far down and across the image it lies, in [0, 1]


def as_descriptor(descriptor):
    """Return a copy of a local descriptor to fit, a DenseSIFT for None; raise a TypeError for what is none."""
    if descriptor is None:
        return DenseSIFT()
    if isinstance(descriptor, type) or not callable(getattr(descriptor, "describe", None)):
        raise TypeError(f"descriptor={descriptor!r}; expected DenseSIFT(), KeypointSIFT() or None.")
    return clone(descriptor)


def describe(descriptor, images):
    """Return the descriptors of `images` with their counts, owners and places."""
    if type(descriptor) is DenseSIFT and not isinstance(images, list):
        return _described_alike(descriptor, images)
    xp, described = namespace(*images[:1]), descriptor.describe(images)
    descriptors = xp.concatenate([found for found, _ in described])
    counts = np.array([len(found) for found, _ in described])
    sizes = np.array([image.shape[:2] for image in images]).repeat(counts, 0)
    places = (np.concatenate([positions for _, positions in described]) + 0.5) / sizes
    owners = np.arange(len(counts)).repeat(counts)
    descriptors = as_floats(descriptors, "descriptors") if xp is np else descriptors.astype(np.float32, copy=False)
    return Described(descriptors, counts, xp.asarray(owners), xp.asarray(places))


def _described_alike(descriptor, images):
    """Describe images of one size at once: image by image, a GPU would have to wait for the host."""
    xp = namespace(images)
    descriptors, positions = descriptor.describe_alike(images)
    n, count, n_dims = descriptors.shape
    owners = xp.arange(n).repeat(count)
    places = xp.tile(xp.asarray((positions + 0.5) / np.array(images.shape[1:3])), (n, 1))
    return Described(descriptors.reshape(-1, n_dims), np.full(n, count), owners, places)


def images_per_batch(images, n_features=1, *, pixels=1 << 17):
    """Return how many images to describe at a time, so that their descriptors stay in the cache or fill a GPU."""
    if on_device(images):
        pixels *= _TIMES_AS_MANY_ON_DEVICE
    height, width = largest(images).shape[:2]
    return max(1, min(pixels // (height * width), _FEATURES_PER_BATCH // n_features))


def bytes_per_image(descriptor, images, per_descriptor, per_cell, levels):
    """Return about how many bytes of a GPU's memory an image needs: so many for each descriptor and each finest cell.

    To these come the descriptors themselves, and two copies of them.
    """
    if not on_device(images):
        return 1
    [(descriptors, _)] = descriptor.describe([largest(images)])
    return 3 * descriptors.nbytes + per_descriptor * len(descriptors) + per_cell * 4 ** (levels - 1)


# --- A sample to learn from -------------------------------------------------------------------------------------------


def sample_descriptors(descriptor, images, n_samples, rng, n_jobs=None):
    """Return about `n_samples` descriptors and their places, drawn from random images, the same whatever `n_jobs`.

    Goes through the images in random order until there are enough: a detector may find nothing in some.
    """
    order = rng.permutation(len(images))
    step = min(len(images), max(1, n_samples // _PER_IMAGE))
    quota, found, start = -(-n_samples // step), [], 0
    while start < len(images) and sum(len(descriptors) for descriptors, _ in found) < n_samples:
        chosen = np.sort(order[start : start + step])
        found += _draw_each(descriptor, images, chosen, rng.random_sample((len(chosen), quota + 1)), n_jobs)
        start, step = start + step, 2 * step
    return tuple(namespace(*part).concatenate(part) for part in zip(*found, strict=True))


def _draw_each(descriptor, images, chosen, numbers, n_jobs):
    def draw(indices, numbers):
        found = describe(descriptor, take(images, indices))
        rows = namespace(found.descriptors).asarray(_drawn(found.counts, numbers))
        return found.descriptors[rows], found.places[rows]

    size = images_per_batch(images)
    return Parallel(n_jobs=1 if on_device(images) else n_jobs, require="sharedmem")(
        delayed(draw)(chosen[start : start + size], numbers[start : start + size])
        for start in range(0, len(chosen), size)
    )


def _drawn(counts, numbers):
    """Return which rows are drawn of images with so many each: one of every stretch of them, or all if they are fewer.

    The stretches are as many as the image has random numbers, in [0, 1), but for the last: that says at which row the
    first one begins. So every row is as likely to be drawn, and they lie all over the image.
    """
    edges = np.arange(numbers.shape[1]) * counts[:, None] // (numbers.shape[1] - 1)
    lengths = np.diff(edges)
    rows = edges[:, :-1] + (numbers[:, :-1] * lengths).astype(int) + (numbers[:, -1] * counts).astype(int)[:, None]
    rows = rows % np.maximum(counts, 1)[:, None] + (counts.cumsum() - counts)[:, None]
    return np.sort(rows[lengths > 0])


def check_enough(n_descriptors, n_wanted, parameter):
    """Raise ValueError where there are fewer descriptors than words or the like to learn from them."""
    if n_descriptors < n_wanted:
        raise ValueError(
            f"{parameter}={n_wanted}, but the images gave only {n_descriptors} descriptors to learn from. "
            f"Ask for fewer {parameter.removeprefix('n_')}, sample more densely, or give more or larger images."
        )


# --- The cells of a spatial pyramid -----------------------------------------------------------------------------------


def n_cells(levels):
    """Return how many cells a pyramid has: 1 on level 0, 4 on level 1, 16 on level 2."""
    return sum(4**level for level in range(levels))


def cell_names(levels):
    """Return names such as ``level1_cell2``, level by level and row by row."""
    return [f"level{level}_cell{cell}" for level in range(levels) for cell in range(4**level)]


def finest_cells(described, levels):
    """Return the cell of each descriptor on the finest level, counted through all images, int64."""
    side = 2 ** (levels - 1)
    row, col = (described.places * side).astype(np.int64).clip(0, side - 1).T
    return described.owners * side**2 + row * side + col


def all_cells(finest, levels, merge=np.add, dtype=None):
    """Return all levels (n_images, n_cells, ...) of a pyramid whose finest is given, (n_images * n_finest, ...).

    A cell merges its four quarters.
    """
    side = 2 ** (levels - 1)
    stages = [finest.reshape(-1, side, side, *finest.shape[1:])]
    while side > 1:
        side //= 2
        last = stages[-1]
        stages.append(reduce(merge, [last[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]))
    parts = [stage.reshape(len(stage), -1, *finest.shape[1:]) for stage in reversed(stages)]
    return namespace(finest).concatenate(parts, axis=1, dtype=dtype)


# --- Scaling ----------------------------------------------------------------------------------------------------------


def scale_to_unit(values, order=2):
    """Scale along the last axis, in place, to a norm of 1; zeros stay as they are."""
    xp = namespace(values)
    if order == 2 and xp is np:
        _native.kernels.unit_rows(values)
        return
    total = xp.linalg.norm(values, ord=order, axis=-1, keepdims=True)
    values /= xp.where(total > 0, total, 1)


def unit_cells(values):
    """Scale the cells of (n_images, n_cells, n_numbers) to length 1, then the images; return these flat."""
    scale_to_unit(values)
    rows = values.reshape(len(values), -1)
    if values.shape[1] > 1:
        scale_to_unit(rows)
    return rows


def signed_power(values, power):
    """Raise magnitudes to a power, in place, and keep the signs."""
    xp = namespace(values)
    if power == 0.5 and xp is np:
        _native.kernels.signed_root(values)
    elif power != 1:
        xp.copysign(xp.abs(values) ** power, values, out=values)


# --- Checks -----------------------------------------------------------------------------------------------------------


def as_floats(values, name, *, double=False):
    """Return C-contiguous float32, or float64 as it came if `double`; raise ValueError for NaN and beyond 1e6."""
    xp = namespace(values)
    values = xp.asarray(values)
    values = xp.ascontiguousarray(values, np.float64 if double and values.dtype == np.float64 else np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        square = xp.vdot(values, values)  # half the time of the extremes, and most often enough
    if square <= _LARGEST**2:
        return values
    if not max(values.max(), -values.min()) <= _LARGEST:  # NaN fails too
        raise ValueError(f"{name} hold NaN, or numbers beyond {_LARGEST:g}. Mend, drop or scale them.")
    return values


def as_words(descriptors, vocabulary):
    """Return both as floats; raise ValueError if they do not fit together, TypeError if one alone lies on a GPU."""
    namespace(descriptors, vocabulary)
    descriptors, vocabulary = as_floats(descriptors, "descriptors"), as_floats(vocabulary, "words")
    if descriptors.ndim != 2 or vocabulary.ndim != 2 or descriptors.shape[1] != vocabulary.shape[1]:
        raise ValueError(
            f"descriptors have shape {descriptors.shape} and the vocabulary {vocabulary.shape}; "
            "expected (n, n_dims) and (n_words, n_dims)."
        )
    if len(vocabulary) == 0:
        raise ValueError("The vocabulary has no words.")
    return descriptors, vocabulary


def fraction(value, name):
    """Return a number above 0 and up to 1, or raise a ValueError that names the parameter."""
    if isinstance(value, bool) or not np.isscalar(value) or isinstance(value, str) or not 0 < value <= 1:
        raise ValueError(f"{name}={value!r}; expected a number above 0 and up to 1.")
    return float(value)
