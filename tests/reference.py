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
        _normalised_block(cells[r : r + high, c : c + wide].ravel(), block_norm)
        for r in range(down - high + 1)
        for c in range(across - wide + 1)
    ]
    return np.concatenate(blocks)


def _normalised_block(block, norm, eps=1e-5):
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


def soft_words(descriptors, vocabulary, n_neighbors, beta):
    """Weight of every word (n, n_words) for each descriptor, from its distances to the nearest."""
    weights = np.zeros((len(descriptors), len(vocabulary)))
    for i, x in enumerate(descriptors.astype(float)):
        distances = ((vocabulary.astype(float) - x) ** 2).sum(1)
        near = np.argsort(distances, kind="stable")[:n_neighbors]
        weights[i, near] = np.exp(-beta * (distances[near] - distances.min()))
        weights[i] /= weights[i].sum()
    return weights


def llc_words(descriptors, vocabulary, n_neighbors, regularization):
    """Weight of every word (n, n_words) with which the nearest rebuild each descriptor."""
    weights = np.zeros((len(descriptors), len(vocabulary)))
    for i, x in enumerate(descriptors.astype(float)):
        differences = vocabulary.astype(float) - x
        near = np.argsort((differences**2).sum(1), kind="stable")[:n_neighbors]
        products = differences[near] @ differences[near].T
        products += regularization * np.trace(products) * np.eye(n_neighbors)
        solution = np.linalg.solve(products, np.ones(n_neighbors))
        weights[i, near] = solution / solution.sum()
    return weights


def pool_words(weights, positions, size, levels, pooling):
    """Sum, or maximum from 0 on, of weights (n, n_words) in every cell of a spatial pyramid."""
    cells = []
    for level in range(levels):
        for cell in np.ndindex(2**level, 2**level):
            inside = ((positions + 0.5) / size * 2**level).astype(int) == cell
            rows = weights[inside.all(1)]
            cells.append(rows.sum(0) if pooling == "sum" else rows.max(0, initial=0))
    return np.concatenate(cells)


# --- VLAD and Fisher vectors ------------------------------------------------------------------------------------------


def vlad(descriptors, vocabulary, power=1, norm=None):
    """VLAD of one set of descriptors."""
    sums = np.zeros(vocabulary.shape)
    for x, word in zip(descriptors.astype(float), nearest_word(descriptors, vocabulary), strict=True):
        sums[word] += x - vocabulary[word]
    sums = np.sign(sums) * np.abs(sums) ** power
    if norm == "intra":
        sums = np.array([_unit(row) for row in sums])
    return sums.ravel() if norm is None else _unit(sums.ravel())


def fisher_vector(descriptors, weights, means, variances, power=1, norm=None):
    """Fisher vector of one set of descriptors, by means and variances."""
    weights, means, variances = (a.astype(float) for a in (weights, means, variances))
    first, second = np.zeros(means.shape), np.zeros(means.shape)
    for x in descriptors.astype(float):
        z = (x - means) / np.sqrt(variances)
        density = np.log(weights) - 0.5 * np.log(variances).sum(1) - 0.5 * (z**2).sum(1)
        posterior = np.exp(density - density.max())
        posterior = (posterior / posterior.sum())[:, None]
        first += posterior * z / len(descriptors)
        second += posterior * (z**2 - 1) / len(descriptors)
    first /= np.sqrt(weights)[:, None]
    second /= np.sqrt(2 * weights)[:, None]
    vector = np.concatenate([first.ravel(), second.ravel()])
    vector = np.sign(vector) * np.abs(vector) ** power
    return vector if norm is None else _unit(vector)


def pyramid(encode, points, positions, size, levels):
    """Encode the points of every cell of a spatial pyramid, scale each to length 1, and then the whole."""
    cells = []
    for level in range(levels):
        for cell in np.ndindex(2**level, 2**level):
            inside = ((positions + 0.5) / size * 2**level).astype(int) == cell
            cells.append(_unit(encode(points[inside.all(1)])))
    return _unit(np.concatenate(cells))


def _unit(v):
    return v / np.linalg.norm(v) if v.any() else v


# --- Colour histograms ------------------------------------------------------------------------------------------------


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
    return np.concatenate([np.bincount(w, minlength=n) for w, n in zip(where.T, bins, strict=True)]).astype(float)


def _normalised(counts, norm):
    if norm is None:
        return counts
    if norm == "l2":
        return counts / np.sqrt(np.sum(counts**2))
    shares = counts / np.sum(counts)
    return np.sqrt(shares) if norm == "hellinger" else shares


# --- Dense SIFT ------------------------------------------------------------------------------------------------------


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
            out.append(np.zeros(128) if low else _unit_descriptor(histogram.ravel(), root))
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


def _unit_descriptor(v, root):
    if not v.any():
        return v
    v = np.minimum(v / np.linalg.norm(v), 0.2)
    return np.sqrt(v / v.sum()) if root else v / np.linalg.norm(v)


# --- Learned patches --------------------------------------------------------------------------------------------------


def patch_features(image, mean, whitening, dictionary, patch_size, step, grids, activation, alpha):
    """Features of one image (height, width, channels) in [0, 1] from its patches' responses to a dictionary."""
    rows, cols = patch_size
    tops, lefts = (range(0, n - k + 1, step) for n, k in zip(image.shape[:2], patch_size, strict=True))
    patches = [[image[y : y + rows, x : x + cols].ravel() for x in lefts] for y in tops]
    responses = np.array(
        [
            [_respond(_even(p - p.mean()) - mean, whitening, dictionary, activation, alpha) for p in row]
            for row in patches
        ]
    )
    means = []
    for down, across in grids:
        for i, j in np.ndindex(down, across):
            top, bottom = i * len(tops) // down, (i + 1) * len(tops) // down
            left, right = j * len(lefts) // across, (j + 1) * len(lefts) // across
            means.append(responses[top:bottom, left:right].mean((0, 1)))
    return np.concatenate(means)


def _even(centered_patch):
    return centered_patch / np.sqrt((centered_patch**2).mean() + 10 / 255**2)


def _respond(patch, whitening, dictionary, activation, alpha):
    whitened = patch @ whitening
    if activation == "soft_threshold":
        product = dictionary @ whitened
        return np.maximum(0, np.concatenate([product, -product]) - alpha)
    distances = np.linalg.norm(dictionary - whitened, axis=1)
    if activation == "triangle":
        return np.maximum(0, distances.mean() - distances)
    return np.eye(len(dictionary))[distances.argmin()]


# --- Linear SVM -------------------------------------------------------------------------------------------------------


def svm_objectives(X, y, coef, intercept, C, class_weight=None, sample_weight=None):
    """Objective of each one-against-rest problem of a linear SVM with squared hinge loss."""
    X, classes = X.astype(float), np.unique(y)
    sample_weight = np.ones(len(y)) if sample_weight is None else sample_weight
    if class_weight == "balanced":
        class_weight = {c: sample_weight.sum() / len(classes) / sample_weight[y == c].sum() for c in classes}
    factor = np.array([(class_weight or {}).get(c, 1.0) for c in classes])
    objectives = []
    for k, (w, b) in enumerate(zip(coef, intercept, strict=True)):
        own = y == (classes[1] if len(classes) == 2 else classes[k])
        others = factor[0] if len(classes) == 2 else 1.0
        costs = C * sample_weight * np.where(own, factor[1] if len(classes) == 2 else factor[k], others)
        loss = sum(c * max(0, 1 - (1 if o else -1) * (w @ x + b)) ** 2 for c, o, x in zip(costs, own, X, strict=True))
        objectives.append(0.5 * (w @ w + b * b) + loss)
    return np.array(objectives)


def svm_gradients(X, y, coef, intercept, C):
    """Gradient of each objective of three or more classes by the features' weights and the intercept."""
    gradients = []
    for label, w, b in zip(np.unique(y), coef, intercept, strict=True):
        gradient = np.append(w, b)
        for x, sign in zip(X.astype(float), np.where(y == label, 1, -1), strict=True):
            gradient -= 2 * C * sign * max(0, 1 - sign * (w @ x + b)) * np.append(x, 1)
        gradients.append(gradient)
    return np.array(gradients)
