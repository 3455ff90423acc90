"""Slow, obvious descriptors in float64 and NumPy alone: what the package's numbers are tested against."""

import numpy as np

# --- dense SIFT ---------------------------------------------------------------------------------------------


def dense_sift(image, step=4, bin_size=4, contrast_threshold=0.005, root=False):
    """Dense SIFT of one gray image in [0, 1], as VLFeat with a flat window: (n_descriptors, 128)."""
    votes = _orientation_votes(np.asarray(image, np.float64))
    reach = bin_size - 1
    triangle = 1 - np.abs(np.arange(-reach, reach + 1)) / bin_size
    window = [_window_mean(k, bin_size) for k in range(4)]
    padded = np.pad(votes, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    height, width = votes.shape[:2]
    out = []
    for top in range(0, height - 3 * bin_size, step):
        for left in range(0, width - 3 * bin_size, step):
            histogram = np.zeros((4, 4, 8))
            for i in range(4):
                for j in range(4):
                    y, x = top + i * bin_size, left + j * bin_size
                    patch = padded[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
                    histogram[i, j] = np.einsum("y,x,yxo", triangle, triangle, patch) * window[i] * window[j]
            contrast = histogram.sum() / (3 * bin_size + 1) ** 2
            low = contrast < contrast_threshold
            out.append(np.zeros(128) if low else _normalised(histogram.ravel(), root))
    return np.array(out)


def _orientation_votes(image):
    """Share each pixel's gradient magnitude between the two nearest of 8 directions: (height, width, 8)."""
    gy, gx = np.gradient(image)
    magnitude, angle = np.hypot(gx, gy), np.arctan2(gy, gx) % (2 * np.pi) * 8 / (2 * np.pi)
    distance = np.abs(angle[..., None] - np.arange(8))
    distance = np.minimum(distance, 8 - distance)
    return magnitude[..., None] * np.maximum(0, 1 - distance)


def _window_mean(k, bin_size):
    """Mean of a Gaussian of 2 bins about the descriptor's centre, over bin k of 4."""
    x = np.arange(-bin_size + 1, bin_size) + bin_size * (k - 1.5)
    return np.mean(np.exp(-0.5 * (x / (2 * bin_size)) ** 2))


def _normalised(v, root):
    if not v.any():
        return v
    v = np.minimum(v / np.linalg.norm(v), 0.2)
    return np.sqrt(v / v.sum()) if root else v / np.linalg.norm(v)
