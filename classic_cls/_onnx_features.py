"""Resize, HOG and ColorHistogram as ONNX operators, which give the numbers of the kernels.

Each takes a graph, a fitted transformer and the images, and returns images or the name of rows (n, n_features) float32.
Rounding is the kernels' own wherever it could decide a bin, so the order of operations matters below.
"""

import numpy as np

from ._images import pair
from ._onnx_graph import Images
from .features.hog import _thresholds

# --- Resize -----------------------------------------------------------------------------------------------------------


def resize(graph, step, images):
    """Resize as OpenCV does on x86: sums in float32 where an image shrinks, a fused multiply-add where it grows."""
    (_, height, width, channels), size = images.shape, pair(step.size, "size")
    x = unit_pixels(graph, images)
    small = min(height, size[0]), min(width, size[1])
    if small != (height, width):
        shrink = _shrink_whole if height % small[0] == width % small[1] == 0 else _shrink
        x = shrink(graph, x, (height, width), small, channels)
    for axis in (2, 1):
        if small[axis - 1] != size[axis - 1]:
            x = _grow(graph, x, axis, small[axis - 1], size[axis - 1])
    return Images(x, np.dtype(np.float32), (None, *size, channels))


def unit_pixels(graph, images):
    """Return pixels as float32, uint8 divided by 255."""
    if images.dtype == np.float32:
        return images.name
    return graph.Div(graph.cast(images.name, np.float32), np.float32(255))


def _shrink_whole(graph, x, size, small, channels):
    """Mean over whole pixels, added up in fours as OpenCV does."""
    rows, cols = size[0] // small[0], size[1] // small[1]
    x = graph.reshape(x, small[0], rows, small[1], cols, channels)
    x = graph.Transpose(x, perm=[0, 1, 3, 5, 2, 4])
    flat = graph.reshape(x, *small, channels, rows * cols)
    fours = rows * cols // 4
    parts = graph.Gather(flat, np.arange(4 * fours), axis=4)
    parts = _running_sum(graph, graph.reshape(parts, *small, channels, fours, 4), 5)
    rest = graph.Gather(flat, np.arange(4 * fours, rows * cols), axis=4)
    total = _running_sum(graph, graph.Concat(parts, rest, axis=4), 4)
    if rows == cols == 2 and channels == 1:  # OpenCV adds these in vectors of four columns, by pairs
        in_vector = np.arange(small[1])[:, None] < small[1] // 4 * 4
        total = graph.Where(in_vector, _running_sum(graph, _running_sum(graph, x, 5), 4), total)
    return graph.Mul(total, np.float32(1 / (rows * cols)))


def _running_sum(graph, x, axis):
    """Sum along an axis from first to last: ReduceSum would choose its own order."""
    return graph.Gather(graph.CumSum(x, np.array(axis)), np.array(-1), axis=axis)


def _shrink(graph, x, size, small, channels):
    """Mean over parts of pixels, along rows and then down columns."""
    for axis in (2, 1):
        index, weight = _area_weights(size[axis - 1], small[axis - 1])
        terms = graph.Mul(graph.Gather(x, index, axis=axis), weight.reshape(*weight.shape, *[1] * (3 - axis)))
        x = _running_sum(graph, terms, axis + 1)
    return x


def _area_weights(size, small):
    """Return which pixels overlap each of a row of larger pixels, and by which share of it: (small, most) each."""
    scale = 1 / (small / size)
    index, weight = np.zeros((small, int(scale) + 3), np.int64), np.zeros((small, int(scale) + 3), np.float32)
    for i in range(small):
        left, right = i * scale, i * scale + scale
        whole = min(scale, size - left)
        last = min(int(np.floor(right)), size - 1)
        first = min(int(np.ceil(left)), last)
        shares = [(k, 1) for k in range(first, last)]
        if first - left > 1e-3:
            shares.insert(0, (first - 1, first - left))
        if right - last > 1e-3:
            shares.append((last, min(right - last, 1, whole)))
        index[i, : len(shares)] = [k for k, _ in shares]
        weight[i, : len(shares)] = [share / whole for _, share in shares]
    used = weight.any(0)
    return index[:, used], weight[:, used]


def _grow(graph, x, axis, small, size):
    """Interpolate linearly: a + (b - a) * t, whose product and sum are rounded together."""
    place = (np.arange(size) + 0.5) * (small / size) - 0.5
    below = np.floor(place).astype(np.int64)
    t = (place - below).astype(np.float32).astype(np.float64).reshape(-1, *[1] * (3 - axis))
    a, b = (graph.Gather(x, np.clip(below + i, 0, small - 1), axis=axis) for i in (0, 1))
    rise = graph.Mul(graph.cast(graph.Sub(b, a), np.float64), t)
    return graph.cast(graph.Add(graph.cast(a, np.float64), rise), np.float32)


# --- HOG --------------------------------------------------------------------------------------------------------------


def hog(graph, step, images):
    """HOG, in double precision where hog.cpp is."""
    geometry = step._geometry()
    careful = images.dtype == np.float64 or images.shape[3] > 1 or geometry.transform_sqrt
    careful = careful or geometry.orientations % 4 == 0 or geometry.block_norm == "L1-sqrt"
    number = np.float64 if careful else np.float32
    pixels = _numbers(graph, images, number, geometry.transform_sqrt)
    x, y, magnitude = _gradients(graph, pixels, images.shape, geometry.cell)
    bins = _bins(graph, x, y, geometry.orientations, number)
    cells = _cells(graph, bins, magnitude, images.shape[1:3], geometry, number)
    return _blocks(graph, cells, images.shape[1:3], geometry)


def _numbers(graph, images, number, root):
    """Return pixels in the precision `number`, in [0, 1]: float32 as some k / 255 if all of an image stand for such."""
    if number == np.float32:
        return unit_pixels(graph, images)
    x = graph.cast(images.name, np.float64)
    if images.dtype == np.uint8:
        x = graph.Div(x, np.float64(255))
    else:
        scaled = graph.Mul(x, np.float64(255))
        level = graph.Round(scaled)
        farthest = graph.ReduceMax(graph.Abs(graph.Sub(scaled, level)), axes=[1, 2, 3])
        x = graph.Where(graph.Less(farthest, np.float64(3e-5)), graph.Div(level, np.float64(255)), x)
    return graph.Sqrt(x) if root else x


def _gradients(graph, pixels, shape, cell):
    """Return gx, gy and the magnitude (n, 1, height, width) of the strongest channel, for the pixels in whole cells."""
    neighbours = []
    for axis, other in ((2, 1), (1, 2)):
        inside = graph.Gather(pixels, np.arange(shape[other] // cell[other - 1] * cell[other - 1]), axis=other)
        place, last = np.arange(shape[axis] // cell[axis - 1] * cell[axis - 1]), shape[axis] - 1
        before, after = np.abs(place - 1), last - np.abs(last - place - 1)  # reflected
        ends = (graph.Gather(inside, np.clip(i, 0, last), axis=axis) for i in (after, before))
        neighbours.append(graph.Transpose(graph.Sub(*ends), perm=[0, 3, 1, 2]))
    x, y = neighbours
    if shape[3] == 1:
        return x, y, graph.Sqrt(graph.Add(graph.Mul(x, x), graph.Mul(y, y)))
    magnitude = _hypot(graph, x, y)
    strongest = graph.ArgMax(magnitude, axis=1)
    return [graph.GatherElements(each, strongest, axis=1) for each in (x, y, magnitude)]


def _hypot(graph, x, y):
    """Return the hypotenuse, rounded as by glibc 2.35: that decides between channels of nearly the same strength."""
    two = np.float64(2)
    x, y = graph.Abs(x), graph.Abs(y)
    long, short = graph.Max(x, y), graph.Min(x, y)
    root = graph.Sqrt(graph.Add(graph.Mul(long, long), graph.Mul(short, short)))
    excess = graph.Sub(root, short)
    a = graph.Mul(long, graph.Sub(graph.Mul(two, excess), long))
    b = graph.Mul(graph.Sub(excess, graph.Mul(two, graph.Sub(long, short))), excess)
    even = graph.Add(a, b)
    excess = graph.Sub(root, long)
    a = graph.Mul(graph.Mul(two, excess), graph.Sub(long, graph.Mul(two, short)))
    b = graph.Mul(graph.Sub(graph.Mul(np.float64(4), excess), short), short)
    uneven = graph.Add(a, graph.Add(b, graph.Mul(excess, excess)))
    error = graph.Where(graph.LessOrEqual(root, graph.Mul(two, short)), even, uneven)
    return graph.Sub(root, graph.Div(error, graph.Max(graph.Mul(two, root), np.float64(1e-300))))


def _bins(graph, x, y, orientations, number):
    """Return the bin of every gradient (n, 1, height, width): how many thresholds its angle has reached.

    With gy made positive, it has reached one where gx <= cotangent * gy. The products are taken in parts that double
    precision holds exactly, since pixels that lie on a threshold are frequent.
    """
    x, y = (graph.cast(each, np.float64) for each in (x, y))
    up = graph.Less(y, np.float64(0))
    turn = graph.Or(up, graph.And(graph.Equal(y, np.float64(0)), graph.Less(x, np.float64(0))))
    side, y = graph.Where(turn, graph.Neg(x), x), graph.Abs(y)
    upward, downward = _thresholds(orientations)[:, 1:, None, None]  # each (orientations - 1, 1, 1, 2)
    if number == np.float32:  # hog.cpp's threshold is the same for both, and 24 bits of gy need no halves
        factors, halves = _parts(downward)[:2], [y]
    else:
        factors = [graph.Where(up, *parts) for parts in zip(_parts(upward), _parts(downward), strict=True)]
        halves = _halves(graph, y)
    for factor in factors:
        for half in halves:
            side = graph.Sub(side, graph.Mul(half, factor))
    reached = graph.cast(graph.LessOrEqual(side, np.float64(0)), np.int64)
    return graph.ReduceSum(reached, np.array([1]))


def _halves(graph, y):
    """Split numbers into parts of 26 bits (Dekker)."""
    scaled = graph.Mul(y, np.float64(2**27 + 1))
    high = graph.Sub(scaled, graph.Sub(scaled, y))
    return high, graph.Sub(y, high)


def _parts(cotangents):
    """Split numbers that come as sums of two, along the last axis, into three, of which the first have 26 bits."""
    high, low = np.moveaxis(cotangents, -1, 0)
    scaled = high * (2**27 + 1)
    first = scaled - (scaled - high)
    return first, high - first, low


def _cells(graph, bins, magnitude, size, geometry, number):
    """Return the mean histograms of the cells, (n, down * across, orientations) float32."""
    down, across = (k // cell for k, cell in zip(size, geometry.cell, strict=True))
    own = graph.Equal(bins, np.arange(geometry.orientations)[:, None, None])
    votes = graph.reshape(
        graph.Where(own, magnitude, number(0)), geometry.orientations, down, geometry.cell[0], across, geometry.cell[1]
    )
    means = graph.Div(graph.ReduceSum(votes, np.array([3, 5])), number(np.prod(geometry.cell)))
    cells = graph.reshape(graph.cast(means, np.float32), geometry.orientations, down * across)
    return graph.Transpose(cells, perm=[0, 2, 1])


def _blocks(graph, cells, size, geometry):
    """Gather the cells of every block, and normalise it."""
    across, (rows, cols) = size[1] // geometry.cell[1], geometry.blocks(size)
    place = np.arange(rows)[:, None] * across + np.arange(cols)
    inside = np.arange(geometry.block[0])[:, None] * across + np.arange(geometry.block[1])
    index = place.reshape(-1, 1) + inside.ravel()
    blocks = graph.reshape(graph.Gather(cells, index, axis=1), len(index), index.shape[1] * geometry.orientations)
    return graph.reshape(_normalised(graph, blocks, geometry.block_norm), geometry.n_features(size))


def _normalised(graph, blocks, norm):
    eps = np.float32(1e-5)
    if norm.startswith("L1"):
        blocks = graph.Div(blocks, graph.Add(graph.ReduceSum(blocks, np.array([2])), eps))
        return graph.Sqrt(blocks) if norm == "L1-sqrt" else blocks
    for clip in (False, True) if norm == "L2-Hys" else (False,):
        blocks = graph.Min(blocks, np.float32(0.2)) if clip else blocks
        squares = graph.ReduceSum(graph.Mul(blocks, blocks), np.array([2]))
        blocks = graph.Div(blocks, graph.Sqrt(graph.Add(squares, eps * eps)))
    return blocks
