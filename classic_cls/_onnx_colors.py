"""ColorHistogram as ONNX operators, exact to the bin: the integer and float32 arithmetic of color_histogram.cpp."""

import numpy as np

from .features.color_histogram import _linear_light


def color_histogram(graph, step, images):
    """Return the name of the histograms (n, n_features) float32 of images."""
    layout, (height, width) = step._layout(), images.shape[1:3]
    levels = _SPACES[layout.color_space](graph, *_rgb(graph, images))
    sizes = [180 if layout.color_space == "hsv" and c == 0 else 256 for c in range(len(levels))]
    pairs = zip(levels, layout.bins, sizes, strict=True)
    bins = [graph.Div(graph.Mul(level, np.int32(n)), np.int32(size)) for level, n, size in pairs]
    numbers = [_joint(graph, bins, layout.bins)] if layout.joint else _one_by_one(graph, bins, layout.bins)
    cell = _cell_numbers((height, width), layout.grid) * np.int32(layout.n_bins)
    flat = [graph.reshape(graph.Add(number, cell), height * width) for number in numbers]
    return _normalised(graph, _counts(graph, graph.Concat(*flat, axis=1), layout.n_features), layout)


def _rgb(graph, images):
    """Return red, green and blue levels, each (n, height, width) int32."""
    x = images.name
    if images.dtype == np.float32:
        x = graph.Round(graph.Mul(x, np.float32(255)))
    x = graph.cast(x, np.int32)
    planes = [graph.Gather(x, np.array(c), axis=3) for c in range(images.shape[3])]
    return planes * (3 // len(planes))


def _joint(graph, bins, n_bins):
    number = bins[0]
    for each, n in zip(bins[1:], n_bins[1:], strict=True):
        number = graph.Add(graph.Mul(number, np.int32(n)), each)
    return number


def _one_by_one(graph, bins, n_bins):
    first = np.cumsum([0, *n_bins[:-1]], dtype=np.int32)
    return [graph.Add(each, start) for each, start in zip(bins, first, strict=True)]


def _cell_numbers(size, grid):
    """Return the number of each pixel's cell, (height, width) int32."""
    edges = [np.arange(1, k) * n // k for n, k in zip(size, grid, strict=True)]
    row, col = (np.searchsorted(edge, np.arange(n), side="right") for edge, n in zip(edges, size, strict=True))
    return (row[:, None] * grid[1] + col).astype(np.int32)


def _counts(graph, numbers, n_features):
    numbers = graph.cast(numbers, np.int64)
    one, zero = (_of_one(np.float32(value)) for value in (1, 0))
    shape = graph.Concat(graph.Shape(numbers, end=1), np.array([n_features]), axis=0)
    ones, zeros = graph.ConstantOfShape(graph.Shape(numbers), value=one), graph.ConstantOfShape(shape, value=zero)
    return graph.ScatterElements(zeros, numbers, ones, axis=1, reduction="add")


def _of_one(value):
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([value]))


def _normalised(graph, counts, layout):
    if layout.norm is None:
        return counts
    cells = graph.reshape(counts, layout.grid[0] * layout.grid[1], layout.n_bins)
    if layout.norm == "l2":
        wide = graph.cast(cells, np.float64)
        total = graph.cast(graph.Sqrt(graph.ReduceSum(graph.Mul(wide, wide), np.array([2]))), np.float32)
    else:
        total = graph.ReduceSum(cells, np.array([2]))
    shares = graph.Div(cells, total)
    shares = graph.Sqrt(shares) if layout.norm == "hellinger" else shares
    return graph.reshape(shares, layout.n_features)


# --- Colour spaces: red, green and blue to levels, all (n, height, width) int32 ---------------------------------------


def _keep(graph, r, g, b):
    return r, g, b


def _gray(graph, r, g, b):
    luma = _weighted(graph, (r, g, b), np.array([9798, 19235, 3735], np.int32))
    return [graph.Div(graph.Add(luma, np.int32(1 << 14)), np.int32(1 << 15))]


def _opponent(graph, r, g, b):
    rg = graph.Add(graph.Sub(r, g), np.int32(256))
    yb = graph.Add(graph.Sub(graph.Add(r, g), graph.Mul(b, np.int32(2))), np.int32(512))
    total = graph.Add(graph.Add(r, g), graph.Add(b, np.int32(1)))
    return [graph.Div(each, np.int32(n)) for each, n in ((rg, 2), (yb, 4), (total, 3))]


def _hsv(graph, r, g, b):
    """OpenCV's fixed point: factors of 12 bits for 1 / value and 1 / range."""
    value = graph.Max(graph.Max(r, g), b)
    spread = graph.Sub(value, graph.Min(graph.Min(r, g), b))
    per_value, per_spread = (
        graph.Gather(np.rint([0, *(factor / np.arange(1, 256))]).astype(np.int32), each)
        for factor, each in ((255 << 12, value), (30 << 12, spread))
    )
    on_blue = graph.Add(graph.Sub(r, g), graph.Mul(spread, np.int32(4)))
    on_green = graph.Add(graph.Sub(b, r), graph.Mul(spread, np.int32(2)))
    place = graph.Where(graph.Equal(value, g), on_green, on_blue)
    place = graph.Where(graph.Equal(value, r), graph.Sub(g, b), place)
    half, one = np.int32(1 << 11), np.int32(1 << 12)
    turn = graph.Add(graph.Mul(place, per_spread), half)
    turn = graph.Where(graph.Less(turn, np.int32(0)), graph.Add(turn, np.int32(180 << 12)), turn)
    saturation = graph.Add(graph.Mul(spread, per_value), half)
    return graph.Div(turn, one), graph.Div(saturation, one), value


def _lab(graph, r, g, b):
    """CIE L*a*b*, in the float32 steps of the kernel."""
    light = [graph.Gather(_linear_light(), plane) for plane in (r, g, b)]
    x, y, z = (
        _lab_curve(graph, graph.Mul(_weighted(graph, light, weights), np.float32(1) / np.float32(white)))
        for weights, white in _XYZ
    )
    lightness = graph.Mul(graph.Sub(graph.Mul(y, np.float32(116)), np.float32(16)), np.float32(2.55))
    red = graph.Mul(graph.Sub(x, y), np.float32(500))
    yellow = graph.Mul(graph.Sub(y, z), np.float32(200))
    rounded = ((lightness, 0.5), (red, 128.5), (yellow, 128.5))
    return [graph.cast(graph.Add(each, np.float32(half)), np.int32) for each, half in rounded]


_XYZ = [
    (np.array([0.412453, 0.357580, 0.180423], np.float32), 0.950456),
    (np.array([0.212671, 0.715160, 0.072169], np.float32), 1),
    (np.array([0.019334, 0.119193, 0.950227], np.float32), 1.088754),
]


def _weighted(graph, planes, weights):
    first, second, third = (graph.Mul(x, w) for x, w in zip(planes, weights, strict=True))
    return graph.Add(graph.Add(first, second), third)


def _lab_curve(graph, t):
    """CIE's f, with the kernel's cube root: a third of the exponent, then Halley's iteration twice."""
    x = graph.Max(t, np.float32(0.008856))
    third = graph.Mul(graph.cast(_bits(graph, x), np.float32), np.float32(1) / np.float32(3))
    root = _from_bits(graph, graph.Add(graph.cast(third, np.int32), np.int32(709921077)))
    for _ in range(2):
        cube = graph.Mul(graph.Mul(root, root), root)
        more, less = (graph.Add(a, graph.Mul(b, np.float32(2))) for a, b in ((cube, x), (x, cube)))
        root = graph.Mul(root, graph.Div(more, less))
    straight = graph.Add(graph.Mul(t, np.float32(7.787)), np.float32(16) / np.float32(116))
    return graph.Where(graph.Greater(t, np.float32(0.008856)), root, straight)


_POWERS = np.float32(2) ** np.arange(-7, 2, dtype=np.float32)  # all that lie between 0.008856 and 2
_MANTISSA = 1 << 23


def _bits(graph, x):
    """Return the bits of float32 numbers from 2**-7 to 2 as int32: ONNX can't look at them otherwise."""
    above = graph.cast(graph.GreaterOrEqual(graph.Unsqueeze(x, np.array([-1])), _POWERS), np.int32)
    exponent = graph.Sub(graph.Squeeze(graph.ReduceSum(above, np.array([-1])), np.array([-1])), np.int32(1))
    fraction = graph.Div(x, graph.Gather(_POWERS, exponent))  # 1 to 2
    bits = graph.cast(graph.Mul(fraction, np.float32(_MANTISSA)), np.int32)
    return graph.Add(bits, graph.Mul(graph.Add(exponent, np.int32(127 - 7 - 1)), np.int32(_MANTISSA)))


def _from_bits(graph, bits):
    """Return the float32 numbers whose bits these are."""
    exponent = graph.Div(bits, np.int32(_MANTISSA))
    fraction = graph.cast(graph.Sub(bits, graph.Mul(exponent, np.int32(_MANTISSA))), np.float32)
    fraction = graph.Add(graph.Div(fraction, np.float32(_MANTISSA)), np.float32(1))
    return graph.Mul(fraction, graph.Gather(_POWERS, graph.Sub(exponent, np.int32(127 - 7))))


_SPACES = {"rgb": _keep, "hsv": _hsv, "lab": _lab, "opponent": _opponent, "gray": _gray}
