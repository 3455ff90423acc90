"""K-means in array code: for CuPy and every other namespace of the array API.

What these lack is a scatter: sums by cluster are products with a matrix of zeros and ones, which cost no more than the
distances do. On a GPU, kernels find the nearest and add rows up. All of them add in the same order every time.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn.externals.array_api_compat import array_namespace, device

from ._array_api import beside, to_numpy
from ._arrays import WARP, blocks_for, load_kernels, namespace, on_device, threads_for

_CHUNK = 1 << 24  # distances that are held at a time
_REASSIGNED = 0.01  # a center with less than this share of the largest one's rows is moved, as in scikit-learn
_PATIENCE = 10  # mini-batches without a lower inertia
_PART = 16  # rows of a cluster, on average, that a thread block of a GPU adds up; all, if these are fewer


class Clustering(NamedTuple):
    """Centers (n_clusters, n_features), the labels of the rows, their inertia, and the passes that it took."""

    centers: Any
    labels: Any
    inertia: float
    n_iter: int


def cluster(X, n_clusters, *, init, n_init, max_iter, tol, batch_size, rng):
    """Return the clustering of least inertia of `n_init`, or the one that begins with the centers `init`, if not None.

    The steps are those of scikit-learn's KMeans, or of its MiniBatchKMeans where there is a `batch_size`; so are the
    random numbers of the former.
    """
    xp = array_namespace(X)
    mean = xp.mean(X, axis=0)
    X = _in_rows(X - mean)  # distances are differences of products, which are small around the mean
    tol = tol * float(xp.mean(xp.var(X, axis=0)))
    runs = []
    for _ in range(n_init if init is None else 1):
        start = plus_plus(_sample(X, n_clusters, batch_size, rng), n_clusters, rng) if init is None else init - mean
        if batch_size is None:
            runs.append(lloyd(X, start, max_iter, tol))
        else:
            runs.append(mini_batch(X, start, min(batch_size, X.shape[0]), max_iter, tol, rng))
    best = min(runs, key=lambda run: run.inertia)
    return best._replace(centers=best.centers + mean)


def _in_rows(X):
    """Return X with its rows one after the other, for the kernels."""
    return namespace(X).ascontiguousarray(X) if on_device(X) else X


def _sample(X, n_clusters, batch_size, rng):
    """Return rows to begin with: all of them, or three mini-batches."""
    size = 3 * max(batch_size or 0, n_clusters)
    return X if batch_size is None or size >= X.shape[0] else _rows(X, rng.randint(X.shape[0], size=size))


def plus_plus(X, n_clusters, rng):
    """Return rows that lie far apart: each the best of a few that were drawn in proportion to the squared distances."""
    xp, n = array_namespace(X), X.shape[0]
    squares = xp.sum(X * X, axis=1)

    def squared_distances(chosen):
        rows = xp.take(X, chosen, axis=0)
        distances = xp.take(squares, chosen)[:, None] - 2 * (rows @ X.T) + squares
        return xp.where(distances > 0, distances, 0.0)

    chosen = [beside(X, np.array([int(n * rng.random_sample())]))]
    closest = squared_distances(chosen[0])
    draws = beside(X, rng.uniform(size=(n_clusters - 1, 2 + int(np.log(n_clusters)))))  # sent at once
    for i in range(n_clusters - 1):
        edges = xp.cumulative_sum(xp.astype(closest[0, :], xp.float64))
        candidates = xp.searchsorted(edges, draws[i, :] * edges[-1])
        candidates = xp.where(candidates < n, candidates, n - 1)
        distances = xp.minimum(squared_distances(candidates), closest)
        best = xp.reshape(xp.argmin(xp.sum(distances, axis=1)), (1,))
        chosen.append(xp.take(candidates, best))
        closest = xp.take(distances, best, axis=0)
    return xp.take(X, xp.concat(chosen), axis=0)


# --- Lloyd's algorithm ------------------------------------------------------------------------------------------------


def lloyd(X, centers, max_iter, tol):
    """Return what Lloyd's algorithm makes of these centers, until their squared movements sum up to `tol` or less."""
    xp = array_namespace(X)
    for n_iter in range(1, max_iter + 1):  # noqa: B007
        labels = nearest(X, centers)
        last, centers = centers, _means(X, labels, centers)
        moved = float(xp.sum((centers - last) ** 2))
        if moved <= tol:
            break
    if moved > 0:
        labels = nearest(X, centers)
    return Clustering(centers, labels, _inertia(X, labels, centers), n_iter)


def nearest(X, centers):
    """Return the index of the nearest center of each row; of centers equally near, the first."""
    xp = array_namespace(X)
    half = xp.sum(centers * centers, axis=1) / 2
    return xp.concat([_least(half, X[rows, :] @ centers.T) for rows in _chunks(X, centers.shape[0])])


def _least(half, products):
    """Return the column of each row of ``half - products`` that holds the least; of equal ones, the first."""
    if not on_device(products):
        return array_namespace(products).argmin(half - products, axis=1)
    columns = namespace(products).empty(len(products), np.int64)
    kernels, blocks = load_kernels("_array_kmeans.cu", Number=products.dtype), blocks_for(len(products) * WARP)
    kernels.launch("nearest", blocks, products, *products.shape, half.astype(products.dtype, copy=False), columns)
    return columns


def sums_by_cluster(X, labels, n_clusters):
    """Return the sum of the rows of each cluster (n_clusters, n_features), and how many they are, both float64."""
    if on_device(X):
        return _sums_on_device(X, labels, n_clusters)
    xp = array_namespace(X)
    clusters, sums, counts = xp.arange(n_clusters, device=device(X)), 0, 0
    for rows in _chunks(X, n_clusters):
        member = xp.astype(labels[rows, None] == clusters, X.dtype)
        sums = sums + xp.astype(member.T @ X[rows, :], xp.float64)
        counts = counts + xp.sum(member, axis=0, dtype=xp.float64)
    return sums, counts


def _sums_on_device(X, labels, n_clusters):
    xp, (n, width) = namespace(X), X.shape
    order = xp.argsort(labels, kind="stable")
    edges = xp.searchsorted(labels[order], xp.arange(n_clusters + 1))
    n_parts = max(1, n // (_PART * n_clusters))
    sums = xp.empty((n_clusters, n_parts, width))
    arguments, n_blocks = (_in_rows(X), width, order, edges, n_parts, sums), n_clusters * n_parts
    kernels = load_kernels("_array_kmeans.cu", Number=X.dtype)
    kernels.launch("cluster_sums", n_blocks, *arguments, threads=threads_for(width))
    return sums.sum(1), (edges[1:] - edges[:-1]).astype(np.float64)


def _means(X, labels, centers):
    """Return the means of the clusters; an empty one gets the farthest row, or lies on the largest if all are equal."""
    xp = array_namespace(X)
    sums, counts = sums_by_cluster(X, labels, centers.shape[0])
    if not bool(xp.all(counts > 0)):
        labels = _without_empty(X, labels, centers, to_numpy(counts))
        sums, counts = sums_by_cluster(X, labels, centers.shape[0])
    largest = int(xp.argmax(counts))
    means = sums / xp.where(counts > 0, counts, 1.0)[:, None]
    return xp.astype(xp.where(counts[:, None] > 0, means, means[largest, :]), X.dtype)


def _without_empty(X, labels, centers, counts):
    """Return labels that give each empty cluster one of the rows that are farthest from their centers."""
    empty, distances = np.flatnonzero(counts == 0), to_numpy(_squared_distances(X, labels, centers))
    if distances.max() == 0:
        return labels
    moved = to_numpy(labels).copy()
    moved[np.argsort(-distances, kind="stable")[: len(empty)]] = empty
    return beside(X, moved)


def _inertia(X, labels, centers):
    xp = array_namespace(X)
    return float(xp.sum(_squared_distances(X, labels, centers), dtype=xp.float64))


def inertia(X, centers):
    """Return the sum of the squared distances of the rows to their nearest centers."""
    return _inertia(X, nearest(X, centers), centers)


def _squared_distances(X, labels, centers):
    """Return the squared distance of each row to the center of its label."""
    xp = array_namespace(X)
    parts = (X[rows, :] - xp.take(centers, labels[rows], axis=0) for rows in _chunks(X, X.shape[1]))
    return xp.concat([xp.sum(part * part, axis=1) for part in parts])


def distances(X, centers):
    """Return the distance of each row to each center, (n, n_clusters)."""
    xp = array_namespace(X)
    mean = xp.mean(centers, axis=0)
    X, centers = X - mean, centers - mean
    squares = xp.sum(X * X, axis=1)[:, None] - 2 * (X @ centers.T) + xp.sum(centers * centers, axis=1)
    return xp.sqrt(xp.where(squares > 0, squares, 0.0))


def _chunks(X, width):
    """Return slices of the rows, so few at a time that with `width` numbers each they fill a chunk."""
    step = max(1, _CHUNK // width)
    return [slice(start, min(start + step, X.shape[0])) for start in range(0, X.shape[0], step)]


def _rows(X, indices):
    return array_namespace(X).take(X, beside(X, indices), axis=0)


# --- Mini-batches -----------------------------------------------------------------------------------------------------


def mini_batch(X, centers, batch_size, max_iter, tol, rng):
    """Return what mini-batches make of these centers: each is the mean of all the rows that it was given so far.

    Ends after `max_iter` passes, once the centers move by no more than `tol`, or where the batches' smoothed inertia
    stays above its minimum.
    """
    n, n_clusters = X.shape[0], centers.shape[0]
    weights, unmoved, smoothed = np.zeros(n_clusters), 0, _Smoothed(min(1, 2 * batch_size / (n + 1)))
    for step in range(1, max_iter * n // batch_size + 1):
        batch = _rows(X, rng.randint(n, size=batch_size))
        unmoved += batch_size
        due = unmoved >= 10 * n_clusters or not weights.all()
        last, (centers, weights, score) = centers, _updated(batch, centers, weights)
        if due:
            unmoved, (centers, weights) = 0, _reassigned(batch, centers, weights, rng)
        moved = float(array_namespace(X).sum((centers - last) ** 2))
        if step > 1 and (moved <= tol or smoothed.stalls(score)):  # the first is the initial centers' score
            break
    labels = nearest(X, centers)
    return Clustering(centers, labels, _inertia(X, labels, centers), -(-step * batch_size // n))


def _updated(batch, centers, weights):
    """Return the centers and their weights with the rows of a batch taken in, and the batch's inertia before."""
    xp, labels = array_namespace(batch), nearest(batch, centers)
    score = _inertia(batch, labels, centers)
    sums, counts = sums_by_cluster(batch, labels, centers.shape[0])
    before, after = (beside(batch, w, xp.float64)[:, None] for w in (weights, weights + to_numpy(counts)))
    means = (xp.astype(centers, xp.float64) * before + sums) / xp.where(after > 0, after, 1.0)
    return xp.astype(xp.where(counts[:, None] > 0, means, centers), batch.dtype), weights + to_numpy(counts), score


def _reassigned(batch, centers, weights, rng):
    """Return centers and weights of which those of little weight, half a batch at most, are random rows of the batch.

    Their new weight is the least of the others': enough to keep them for a while.
    """
    xp, n = array_namespace(batch), batch.shape[0]
    light = np.flatnonzero(weights < _REASSIGNED * weights.max())
    light = light[np.argsort(weights[light], kind="stable")][: n // 2]
    if len(light) == 0:
        return centers, weights
    sources, is_light = np.zeros(len(weights), int), np.zeros(len(weights), bool)
    sources[light], is_light[light] = rng.choice(n, len(light), replace=False), True
    weights = np.where(is_light, weights[~is_light].min(), weights)
    return xp.where(beside(batch, is_light)[:, None], _rows(batch, sources), centers), weights


class _Smoothed:
    """An exponentially weighted average, and for how long it has not fallen."""

    def __init__(self, alpha):
        self.alpha, self.average, self.least, self.waited = alpha, None, np.inf, 0

    def stalls(self, value):
        """Take in a value, and tell whether the average has not fallen for too long."""
        self.average = value if self.average is None else self.average + self.alpha * (value - self.average)
        self.waited = 0 if self.average < self.least else self.waited + 1
        self.least = min(self.least, self.average)
        return self.waited >= _PATIENCE
