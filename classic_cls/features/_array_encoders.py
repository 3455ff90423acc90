"""What the kernels of bags of words, VLAD and Fisher vectors do, in array code for descriptors on a GPU.

Nothing is added in an order that chance decides. The descriptors of each cell are laid side by side, with room for as
many as the fullest one has, and products and sums over these add them up.
"""

import numpy as np

from .._arrays import namespace

_CHUNK = 1 << 24  # numbers that are held at a time
_NEGLIGIBLE = 1e-8  # a posterior, as in the kernel


# --- Words and their weights ------------------------------------------------------------------------------------------


def nearest_words(descriptors, vocabulary, n_neighbors):
    """Return the nearest words of each descriptor, the nearest first, int32; of words equally near, the first."""
    xp, half = namespace(descriptors), (vocabulary * vocabulary).sum(1) / 2
    words = xp.empty((len(descriptors), n_neighbors), np.int32)
    for rows in _chunks(len(descriptors), len(vocabulary)):
        distances = half - descriptors[rows] @ vocabulary.T
        each = xp.arange(len(distances))
        for k in range(n_neighbors):
            nearest = distances.argmin(1)
            words[rows, k] = nearest
            distances[each, nearest] = np.inf
    return words


def soft_weights(descriptors, vocabulary, words, beta):
    """Return weights, of sum 1, that are proportional to ``exp(-beta * distance**2)``, float32."""
    xp = namespace(descriptors)
    weights = xp.empty(words.shape, np.float32)
    for rows in _chunks(len(words), words.shape[1] * vocabulary.shape[1]):
        differences = vocabulary[words[rows]] - descriptors[rows, None]
        differences *= differences
        squares = differences.sum(2)
        shares = xp.exp(-beta * (squares - squares.min(1, keepdims=True)))
        weights[rows] = shares / shares.sum(1, keepdims=True)
    return weights


def llc_weights(descriptors, vocabulary, words, regularization):
    """Return weights, of sum 1, with which the words come nearest to the descriptor, float32; found in double."""
    xp, n_neighbors = namespace(descriptors), words.shape[1]
    weights, eye = xp.empty(words.shape, np.float32), xp.eye(n_neighbors)
    for rows in _chunks(len(words), n_neighbors * vocabulary.shape[1]):
        differences = vocabulary[words[rows]].astype(np.float64) - descriptors[rows, None]
        products = differences @ differences.transpose(0, 2, 1)
        trace = xp.trace(products, axis1=1, axis2=2)[:, None, None]
        products += xp.where(trace > 0, regularization * trace, 1) * eye  # 1 where all words lie on the descriptor
        solved = xp.linalg.solve(products, xp.ones((*products.shape[:2], 1)))[..., 0]
        weights[rows] = solved / solved.sum(1, keepdims=True)
    return weights


def pool_weights(words, weights, cells, n_cells, n_words, pooling):
    """Return what `pooling`, "sum" or "max", makes of each word's weights in each cell, (n_cells, n_words), float64."""
    xp, pooled = namespace(words), namespace(words).zeros((n_cells, n_words))
    for some, rows, there in _by_cell(cells, n_cells, n_words):
        table = xp.zeros((rows.size, n_words), np.float32)
        shares = weights[rows] * there[..., None]
        xp.put_along_axis(table, *(a.reshape(rows.size, -1) for a in (words[rows], shares)), axis=1)
        table = table.reshape(*rows.shape, n_words)
        if pooling == "sum":
            pooled[some] += table.sum(1, dtype=np.float64)
        else:
            pooled[some] = xp.maximum(pooled[some], table.max(1))
    return pooled


# --- Sums over the descriptors of each cell ---------------------------------------------------------------------------


def residual_sums(descriptors, axes, words, labels, cells, n_cells):
    """Return the sums of descriptor, projected onto axes if there are any, less word, (n_cells, n_words, n_dims).

    In double, and projected once they are summed: see the kernel.
    """
    xp, n_words, depth = namespace(descriptors), len(words), descriptors.shape[1]
    sums, counts = xp.zeros((n_cells, n_words, depth)), xp.zeros((n_cells, n_words, 1))
    for some, rows, there in _by_cell(cells, n_cells, n_words + depth):
        owners = xp.where(there, labels[rows], -1)
        members = (owners[:, None] == xp.arange(n_words)[:, None]).astype(np.float64)
        sums[some] += members @ descriptors[rows].astype(np.float64)
        counts[some] += members.sum(2, keepdims=True)
    if axes is not None:
        sums = (sums.reshape(-1, depth) @ axes.astype(np.float64).T).reshape(n_cells, n_words, -1)
    return sums - counts * words


def fisher_sums(points, weights, means, variances, cells, n_cells):
    """Return how many points belong to each Gaussian of a cell, and their summed deviations, float64.

    Shapes are (n_cells, n_components) and (n_cells, 2, n_components, n_dims); deviations are z and z**2 - 1. With x the
    points, about the mixture's center, both the log densities and the sums are products with (1, x, x**2). The mixture
    is NumPy's.
    """
    xp, (n_components, n_dims) = namespace(points), means.shape
    weights, means, variances = (a.astype(np.float64) for a in (weights, means, variances))
    center, factors = (xp.asarray(a) for a in _density_factors(weights, means, variances))
    moments = xp.zeros((n_cells, n_components, 1 + 2 * n_dims))
    for some, rows, there in _by_cell(cells, n_cells, n_components + 2 * n_dims):
        powers = xp.empty((*rows.shape, 1 + 2 * n_dims))
        powers[..., 0] = there  # what only fills a cell up is all zeros
        x = powers[..., 1 : 1 + n_dims]
        x[...] = (points[rows] - center) * there[..., None]
        xp.multiply(x, x, out=powers[..., 1 + n_dims :])
        posteriors = _posteriors(powers.reshape(rows.size, -1) @ factors).reshape(*rows.shape, -1)
        moments[some] += posteriors.transpose(0, 2, 1) @ powers
    counts, first, second = moments[..., :1], moments[..., 1 : 1 + n_dims], moments[..., 1 + n_dims :]
    shift, scale = xp.asarray(means) - center, xp.asarray(1 / np.sqrt(variances))
    first, second = first - shift * counts, second - shift * (2 * first - shift * counts)
    return counts[..., 0], xp.stack([first * scale, second * scale**2 - counts], axis=1)


def _density_factors(weights, means, variances):
    """Return a center, and what (1, x, x**2) about it is multiplied with for log densities, but for a constant.

    The center is where the Gaussians lie on average, the narrow ones above all: far from there x**2 and what is
    subtracted from it would be large and nearly equal.
    """
    shares = weights[:, None] / variances
    center = (shares * means).sum(0) / shares.sum(0)
    shift = means - center
    offsets = np.log(weights) - (np.log(variances) + shift**2 / variances).sum(1) / 2
    return center, np.vstack([offsets, (shift / variances).T, (-0.5 / variances).T])


def _posteriors(densities):
    """Turn log densities, in place, into posteriors; negligible ones are 0."""
    densities -= densities.max(1, keepdims=True)
    namespace(densities).exp(densities, out=densities)
    densities /= densities.sum(1, keepdims=True)
    densities *= densities > _NEGLIGIBLE
    return densities


def _by_cell(cells, n_cells, width):
    """Yield slices of the cells with the rows that lie in each, (n, most), in their order, and which are rows at all.

    There are so few at a time that with `width` numbers each they fill a chunk.
    """
    xp = namespace(cells)
    order = xp.argsort(cells, kind="stable")
    edges = xp.searchsorted(cells[order], xp.arange(n_cells + 1))[:, None]
    most = int((edges[1:] - edges[:-1]).max())  # the host waits for this one number
    across = max(1, min(most, _CHUNK // width))
    for some in _chunks(n_cells, width * across):
        for start in range(0, most, across):
            places = edges[:-1][some] + xp.arange(start, min(start + across, most))
            there = places < edges[1:][some]
            yield some, order[xp.where(there, places, 0)], there


def _chunks(n, width):
    """Return slices of `n` rows, so few at a time that with `width` numbers each they fill a chunk."""
    step = max(1, _CHUNK // width)
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
