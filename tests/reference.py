"""What every descriptor should compute: slow, obvious, in float64, with NumPy alone."""

import numpy as np

# ---- Colour histograms ----


def color_levels(image, color_space):
    """Return a uint8 RGB image (height, width, 3) as levels (height, width, channels) of a colour space."""
    return _TO_SPACE[color_space](*np.moveaxis(image.astype(np.int64), -1, 0))


def _hsv(r, g, b):
    v = np.maximum(np.maximum(r, g), b)
    d = v - np.minimum(np.minimum(r, g), b)
    per_value = np.rint([0, *((255 << 12) / np.arange(1, 256))]).astype(np.int64)
    per_range = np.rint([0, *((180 << 12) / (6 * np.arange(1, 256)))]).astype(np.int64)
    s = (d * per_value[v] + (1 << 11)) >> 12
    turn = np.where(v == r, g - b, np.where(v == g, b - r + 2 * d, r - g + 4 * d))
    h = (turn * per_range[d] + (1 << 11)) >> 12
    return np.stack([np.where(h < 0, h + 180, h), s, v], -1)


def _lab(r, g, b):
    srgb = np.stack([r, g, b], -1) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    xyz = linear @ np.transpose(to_xyz) / [0.950456, 1, 1.088754]
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    lab = np.stack([(116 * y - 16) * 255 / 100, 500 * (x - y) + 128, 200 * (y - z) + 128], -1)
    return np.floor(lab + 0.5).astype(np.int64)


def _opponent(r, g, b):
    axes = [(r - g + 255) / 2, (r + g - 2 * b + 510) / 4, (r + g + b) / 3]
    return np.floor(np.stack(axes, -1) + 0.5).astype(np.int64)


def _gray(r, g, b):
    return ((9798 * r + 19235 * g + 3735 * b + (1 << 14)) >> 15)[..., None]


_TO_SPACE = {
    "rgb": lambda r, g, b: np.stack([r, g, b], -1),
    "hsv": _hsv,
    "lab": _lab,
    "opponent": _opponent,
    "gray": _gray,
}


def color_histogram(images, bins, color_space, joint=True, grid=(1, 1), norm=None):
    """Histogram uint8 RGB images, one cell after the other; `bins` has one number per channel."""
    return np.array([_one_color_histogram(image, bins, color_space, joint, grid, norm) for image in images])


def _one_color_histogram(image, bins, color_space, joint, grid, norm):
    levels = color_levels(image, color_space)
    tops = [np.r_[: k + 1] * size // k for k, size in zip(grid, image.shape[:2], strict=True)]
    cells = [
        levels[tops[0][i] : tops[0][i + 1], tops[1][j] : tops[1][j + 1]].reshape(-1, len(bins))
        for i, j in np.ndindex(*grid)
    ]
    return np.concatenate([_normalised(_counts(cell, bins, color_space, joint), norm) for cell in cells])


def _counts(pixels, bins, color_space, joint):
    n_levels = [180 if color_space == "hsv" and c == 0 else 256 for c in range(len(bins))]
    where = pixels * np.array(bins) // n_levels
    if joint:
        return np.bincount(np.ravel_multi_index(where.T, bins), minlength=np.prod(bins)).astype(float)
    return np.concatenate([np.bincount(w, minlength=n) for w, n in zip(where.T, bins, strict=True)]).astype(
        float
    )


def _normalised(counts, norm):
    if norm is None:
        return counts
    if norm == "l2":
        return counts / np.sqrt(np.sum(counts**2))
    shares = counts / np.sum(counts)
    return np.sqrt(shares) if norm == "hellinger" else shares
