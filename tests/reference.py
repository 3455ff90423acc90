"""Every descriptor once more: slow, obvious, float64, and NumPy alone. What the kernels are checked against."""

import numpy as np

# --- HOG --------------------------------------------------------------------------------------------------------------


def hog(image, orientations, pixels_per_cell, cells_per_block, block_norm, transform_sqrt):
    """HOG of one image (height, width, channels) in [0, 1]."""
    image = np.sqrt(image) if transform_sqrt else image
    gy, gx = np.zeros_like(image), np.zeros_like(image)
    gy[1:-1] = image[2:] - image[:-2]
    gx[:, 1:-1] = image[:, 2:] - image[:, :-2]
    magnitude = np.hypot(gx, gy)
    strongest = magnitude.argmax(2)[..., None]
    gx, gy, magnitude = (np.take_along_axis(a, strongest, 2)[..., 0] for a in (gx, gy, magnitude))
    angle = np.rad2deg(np.arctan2(gy, gx)) % 180
    rows, cols = pixels_per_cell
    down, across = image.shape[0] // rows, image.shape[1] // cols
    cells = np.zeros((down, across, orientations))
    for y in range(down * rows):
        for x in range(across * cols):
            for k in range(orientations):
                if 180 / orientations * k <= angle[y, x] < 180 / orientations * (k + 1):
                    cells[y // rows, x // cols, k] += magnitude[y, x] / (rows * cols)
    high, wide = cells_per_block
    blocks = [
        _normalised(cells[r : r + high, c : c + wide].ravel(), block_norm)
        for r in range(down - high + 1)
        for c in range(across - wide + 1)
    ]
    return np.concatenate(blocks)


def _normalised(block, norm, eps=1e-5):
    if norm == "L1":
        return block / (block.sum() + eps)
    if norm == "L1-sqrt":
        return np.sqrt(block / (block.sum() + eps))
    block = block / np.sqrt((block**2).sum() + eps**2)
    if norm == "L2":
        return block
    block = np.minimum(block, 0.2)
    return block / np.sqrt((block**2).sum() + eps**2)


# --- Bag of visual words ----------------------------------------------------------------------------------------------


def nearest_word(descriptors, vocabulary):
    """Index of the nearest word of each descriptor, the first of equals."""
    distances = ((descriptors[:, None].astype(float) - vocabulary[None].astype(float)) ** 2).sum(2)
    return distances.argmin(1)


def word_counts(words, positions, size, n_words, levels):
    """Counts of the words in every cell of a spatial pyramid."""
    counts = []
    for level in range(levels):
        cells = np.zeros((2**level, 2**level, n_words))
        for word, (y, x) in zip(words, positions, strict=True):
            row, col = int((y + 0.5) / size[0] * 2**level), int((x + 0.5) / size[1] * 2**level)
            cells[row, col, word] += 1
        counts.append(cells.ravel())
    return np.concatenate(counts)
