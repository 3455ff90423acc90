"""How alike two pictures are once small crops, shifts and changes of brightness are undone.

Everything works on thumbnails, ``(n, channels, 32, 32)`` uint8. `candidates` finds for each the few that look most
alike when blurred, `similarities` looks closely at those, and `lookalikes` are pictures to compare with, too far down
the list to be copies. Blurring and resampling are products with small matrices: ``rows @ pictures @ columns``.
"""

import numpy as np

from .._images import as_bytes, for_batches

_SIDE = 32  # of a thumbnail
_CUT = 2  # margin left out in the second way of looking for candidates
_CANDIDATES = 4  # per picture and way of looking
_LOOKALIKES = range(16, 24)  # the ranks, from the nearest on, of pictures that are alike but no copies
_PROMISING = 0.88  # correlation of blurred, aligned pictures that deserve a close look
_ZOOMS = (-0.12, 0.12)  # changes of scale where the search begins, besides none
_REACH = 0.35  # largest shift (in half sides) and change of scale
_GAIN = 2  # largest change of contrast
_NOISE = 0.5  # variance, in squared levels of 255, that says nothing: flat pictures are not alike


def thumbnails(images, n_jobs=None):
    """Return images of any sizes as ``(n, channels, 32, 32)`` uint8."""

    def shrink_some(part, out):
        for image, thumbnail in zip(part, out, strict=True):
            thumbnail[...] = np.moveaxis(_resized(as_bytes(image)).reshape(_SIDE, _SIDE, -1), -1, 0)

    out = np.empty((len(images), images[0].shape[2], _SIDE, _SIDE), np.uint8)
    return for_batches(shrink_some, images, out, n_jobs=n_jobs)


def _resized(image):
    """Average pixels along an axis that shrinks, interpolate along one that grows."""
    import cv2

    height, width = np.minimum(image.shape[:2], _SIDE).tolist()
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)


def candidates(thumbs, others=None, *, n_jobs=None):
    """Return pairs ``(n_pairs, 2)`` of thumbnails worth a close look: of `thumbs` and `others`, or within `thumbs`.

    The neighbours of a picture are sought among the others, and among the others without their margins, so that a
    cropped copy finds its original.
    """
    whole, inner = (_coarse(thumbs, cut, n_jobs) for cut in (0, _CUT))
    if others is None:
        pairs = np.concatenate([_neighbours(whole, base, n_jobs) for base in (whole, inner)])
        pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
    else:
        other_whole, other_inner = (_coarse(others, cut, n_jobs) for cut in (0, _CUT))
        looks = (other_whole, whole), (other_whole, inner), (other_inner, whole)
        pairs = np.concatenate([_neighbours(queries, base, n_jobs) for queries, base in looks])[:, ::-1]
    return np.unique(pairs, axis=0)


def _coarse(thumbs, cut, n_jobs):
    """Return the means of 8 x 8 cells, less their own mean, as vectors of unit length: no brightness, no contrast."""
    cells = _cell_means(8, cut)

    def describe_some(part, out):
        means = (cells @ part.astype(np.float32) @ cells.T).reshape(out.shape)
        means -= means.mean(axis=1, keepdims=True)
        np.divide(means, np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1), out=out)

    out = np.empty((len(thumbs), 64 * thumbs.shape[1]), np.float32)
    return for_batches(describe_some, thumbs, out, n_jobs=n_jobs)


def _cell_means(n_cells, cut=0):
    """Return the matrix (n_cells, 32) that averages a thumbnail's rows in cells, `cut` rows left out at either end."""
    edges = np.linspace(cut, _SIDE - cut, n_cells + 1)[:, None]
    pixels = np.arange(_SIDE)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return (overlap.clip(0) * n_cells / (_SIDE - 2 * cut)).astype(np.float32)


def _neighbours(queries, base, n_jobs):
    """Return the pairs (query, neighbour) of each query's nearest, itself among them if it is in `base`."""
    found = _ranked(queries, base, range(min(_CANDIDATES + 1, len(base))), n_jobs)
    return np.column_stack([np.repeat(np.arange(len(queries)), found.shape[1]), found.ravel()])


def _ranked(queries, base, ranks, n_jobs):
    """Return the indices of the vectors of `base` that are at `ranks` from the nearest on, in no order."""
    nearest, farthest = len(base) - 1 - ranks[0], len(base) - 1 - ranks[-1]

    def search_some(part, out):
        out[...] = np.argpartition(part @ base.T, (farthest, nearest), axis=1)[:, farthest : nearest + 1]

    return for_batches(search_some, queries, np.empty((len(queries), len(ranks)), np.int64), n_jobs=n_jobs)


def lookalikes(thumbs, others, *, n_jobs=None):
    """Return which of `others` look like each thumbnail but are no copies, unless there are more than a dozen of these.

    ``(len(thumbs), n)`` indices, with n = 0 where there are too few others to tell.
    """
    if len(others) < 2 * _LOOKALIKES.stop:
        return np.empty((len(thumbs), 0), np.int64)
    return _ranked(_coarse(thumbs, 0, n_jobs), _coarse(others, 0, n_jobs), _LOOKALIKES, n_jobs)


def similarities(thumbs, others, pairs, *, n_jobs=None):
    """Return how alike the thumbnails of each pair are, ``(n_pairs,)`` float32, at most 1.

    It is the smaller of two correlations, that of all channels and that of the luma's details, after one picture has
    been shifted and scaled, and changed in brightness and contrast, so as to fit the other. Pairs that are far from
    alike when blurred get 0.
    """
    blurred = [_blurred_halves(x, n_jobs) for x in (thumbs, others)]

    def compare_some(part, out):
        place, promise = _glance(*(x[index] for x, index in zip(blurred, part.T, strict=True)))
        close = np.flatnonzero(promise >= _PROMISING)
        out[...] = 0
        if len(close):
            a, b = (x[index[close]].astype(np.float32) for x, index in zip((thumbs, others), part.T, strict=True))
            out[close] = _look_closely(a, b, place[close])

    return for_batches(compare_some, pairs, np.empty(len(pairs), np.float32), n_jobs=n_jobs)


def _blurred_halves(thumbs, n_jobs):
    """Return the thumbnails' luma, blurred, at half their size: ``(n, 16, 16)`` float32."""
    matrix = _blur(_SIDE // 2, 1) @ _cell_means(_SIDE // 2)

    def shrink_some(part, out):
        out[...] = matrix @ _luma(part.astype(np.float32)) @ matrix.T

    out = np.empty((len(thumbs), _SIDE // 2, _SIDE // 2), np.float32)
    return for_batches(shrink_some, thumbs, out, n_jobs=n_jobs)


def _luma(pictures):
    red, green, blue = pictures.swapaxes(0, 1) if pictures.shape[1] == 3 else [pictures[:, 0]] * 3
    return np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue


def _glance(a, b):
    """Return where `a` fits `b`, and their correlation there, or where the search began if that is higher."""
    starts = np.zeros((3, len(a), 4), np.float32)
    starts[1:, :, 1::2] = np.float32(_ZOOMS)[:, None, None]
    fits = np.array([_fit(a, b, start) for start in starts])
    start = starts[fits.argmax(axis=0), np.arange(len(a))]
    place = _registered(a, b, start, n_steps=5)
    return place, np.maximum(_fit(a, b, place), fits.max(axis=0))


def _fit(a, b, place):
    return _correlation(_moved(a, place), b, _inside(place, b.shape[-1]))


def _look_closely(a, b, place):
    """Return the similarity of pictures near `place`, or unmoved, should the search have strayed."""
    blur = _blur(_SIDE, 0.8)
    blurred = [blur @ _luma(x) @ blur.T for x in (a, b)]
    place = _registered(*blurred, place, n_steps=5)
    still = np.zeros_like(place)
    strayed = _fit(*blurred, still) > _fit(*blurred, place)
    return _similarity(a, b, np.where(strayed[:, None], still, place))


def _registered(a, b, place, n_steps):
    """Refine the places ``(n, 4)`` at which pictures `a` fit pictures `b` ``(n, side, side)``, by Gauss-Newton steps.

    A place is the shift and the change of scale of the rows, and those of the columns: row y of `b`, from -1 at the top
    to 1 at the bottom, is row ``(1 + scale) * y + shift`` of `a`. The slopes are those of `b`, and need computing only
    once (inverse compositional alignment: Baker and Matthews, IJCV 2004); brightness and contrast are projected out.
    """
    n, side, _ = b.shape
    target = _unit(b)
    slopes = _slopes(target)
    normal = slopes @ slopes.swapaxes(1, 2)
    damping = 1e-4 * np.trace(normal, axis1=1, axis2=2) + 1e-6
    solver = np.linalg.inv(normal + damping[:, None, None] * np.eye(4, dtype=np.float32)) @ slopes
    for _ in range(n_steps):
        apart = (target - _unit(_moved(a, place))) * _inside(place, side)
        place = (place + (solver @ apart.reshape(n, -1, 1))[..., 0]).clip(-_REACH, _REACH)
    return place


def _unit(pictures):
    """Return pictures ``(n, side, side)`` of zero mean and unit length, but for the noise."""
    n_pixels = pictures[0].size
    flat = pictures.reshape(-1, n_pixels)
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.sqrt(np.einsum("ij,ij->i", flat, flat) + _NOISE * n_pixels)[:, None]
    return flat.reshape(pictures.shape)


def _slopes(target):
    """Return how pictures ``(n, side, side)`` change with shift and scale of rows and of columns, (n, 4, n_pixels)."""
    n, side, _ = target.shape
    at = np.linspace(-1, 1, side, dtype=np.float32)
    down, across = np.gradient(target, at[1] - at[0], axis=(1, 2))
    slopes = np.stack([down, down * at[:, None], across, across * at], axis=1).reshape(n, 4, -1)
    slopes -= slopes.mean(axis=2, keepdims=True)
    flat = target.reshape(n, 1, -1)
    return slopes - (slopes @ flat.swapaxes(1, 2)) * flat


def _moved(pictures, place):
    """Return pictures ``(n, ..., side, side)`` at their places, interpolated linearly."""
    rows, columns = (_interpolation(place[:, k : k + 2], pictures.shape[-1]) for k in (0, 2))
    if pictures.ndim == 4:
        rows, columns = rows[:, None], columns[:, None]
    return rows @ pictures @ columns.swapaxes(-1, -2)


def _interpolation(shift_and_scale, side):
    wanted = _source(shift_and_scale, side).clip(0, side - 1)
    return np.maximum(0, 1 - np.abs(wanted[:, :, None] - np.arange(side, dtype=np.float32)))


def _inside(place, side):
    """Return 1 where a moved picture has pixels, 0 beyond its edges, ``(n, side, side)``."""
    rows, columns = (np.abs(_source(place[:, k : k + 2], side) - (side - 1) / 2) <= side / 2 for k in (0, 2))
    return (rows[:, :, None] & columns[:, None]).astype(np.float32)


def _source(shift_and_scale, side):
    """Return which row of the picture each row at its place comes from, ``(n, side)``."""
    shift, scale = shift_and_scale.T[..., None]
    at = np.linspace(-1, 1, side, dtype=np.float32)
    return ((1 + scale) * at + shift + 1) * ((side - 1) / 2)


def _similarity(a, b, place):
    """Return the similarity of pictures in place, if one is the other brightened, darkened or changed in contrast.

    Which is the copy isn't known, and what turned white in it is not white in the original: both are tried.
    """
    a, inside = _moved(a, place), _inside(place, _SIDE)
    gain, offset = _contrast(a, b, inside[:, None])
    possible = (np.abs(np.log(gain)) < np.log(_GAIN))[:, 0, 0, 0]
    copies = (gain * a + offset, b), (a, (b - offset) / gain)
    return possible * np.maximum(*(_agreement(x.clip(0, 255), y.clip(0, 255), inside) for x, y in copies))


def _contrast(a, b, inside):
    """Return the gain and offset, (n, 1, 1, 1) each, that make `a` most like `b` where neither is black or white."""
    weights = inside * ((np.minimum(a, b) > 3) & (np.maximum(a, b) < 252)) + np.float32(1e-3) * inside
    weights /= weights.sum(axis=(1, 2, 3), keepdims=True)
    mean_a, mean_b, mean_aa, mean_ab = ((weights * x).sum(axis=(1, 2, 3), keepdims=True) for x in (a, b, a * a, a * b))
    gain = ((mean_ab - mean_a * mean_b) / (mean_aa - mean_a**2 + _NOISE)).clip(0.1, 10)
    return gain, mean_b - gain * mean_a


def _agreement(a, b, inside):
    everything = _correlation(a, b, np.broadcast_to(inside[:, None], a.shape))
    return np.minimum(everything, _correlation(_details(a), _details(b), inside))


def _details(pictures):
    """Return what is one to three pixels large in the luma."""
    luma, fine, coarse = _luma(pictures), _blur(_SIDE, 0.8), _blur(_SIDE, 1.7)
    return fine @ luma @ fine.T - coarse @ luma @ coarse.T


def _blur(side, sigma):
    """Return the matrix that blurs the rows of a picture, by a Gaussian of `sigma` pixels."""
    apart = np.abs(np.arange(side)[:, None] - np.arange(side)) / sigma
    weights = np.where(apart < 4, np.exp(-0.5 * apart**2), 0)  # no denormal numbers, which are slow
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _correlation(a, b, weights):
    """Return the correlation of pictures, lower where they are so flat that noise could make it."""
    a, b, weights = (x.reshape(len(x), -1) for x in (a, b, weights))
    weights = weights / weights.sum(axis=1, keepdims=True)
    a, b = (x - np.einsum("ij,ij->i", x, weights)[:, None] for x in (a, b))
    aa, bb, ab = (np.einsum("ij,ij,ij->i", x, y, weights) for x, y in ((a, a), (b, b), (a, b)))
    return ab / np.sqrt((aa + _NOISE) * (bb + _NOISE))
