"""What the tests of the CUDA kernels share: the sources, and calls that run all of them."""

import re

import cuda_on_cpu
import numpy as np
from test_patch_kmeans import random_parts

from classic_cls import _array_kmeans, _arrays, color_histogram, dense_sift, hog, patch_features
from classic_cls.features._hog_tiles import Tiles

SPACES = ["rgb", "hsv", "lab", "opponent", "gray"]
NORMS = ["L1", "L1-sqrt", "L2", "L2-Hys"]
ACTIVATIONS = ["triangle", "soft_threshold", "hard"]

# The CUDA sources, with the types that each is compiled for.
CHOSEN = {"ORIENTATIONS": 9, "CELL_ROWS": 8, "CELL_COLS": 8, "BLOCK_ROWS": 2, "BLOCK_COLS": 2}
HOG = CHOSEN | {"LANES": 4, "sizes": Tiles((32, 32, 1), 1, 16, 9, (8, 8), (2, 2)).sizes}
SOURCES = {
    "_array_kmeans.cu": [{"Number": np.float32}, {"Number": np.float64}],
    "features/color_histogram.cu": [
        {"CHANNELS": channels, "RUN": run, "SPACE": space, "JOINT": joint, "IN_SHARED": in_shared}
        for channels in (1, 3)
        for run in (1, 4)
        for space in range(5)
        for joint, in_shared in (((0, 1), (1, 1), (1, 0)) if space == 2 else ((1, 1),))
    ],
    "features/dense_sift.cu": [
        {"Pixel": pixel, "CHANNELS": n, "SPACING": spacing, "REACH": reach}
        for pixel in (np.uint8, np.float32)
        for n in (1, 3)
        for spacing, reach in ((4, 1), (1, 3))
    ],
    "features/hog.cu": [
        HOG
        | {"Pixel": pixel, "CHANNELS": channels, "RUN": run, "STAGED": staged, "IN_SHARED": in_shared}
        | {"EXACT": exact, "NORM": norm}
        for pixel in (np.uint8, np.float32, np.float64)
        for channels in (1, 3)
        for run, staged, in_shared, norm in ((1, 1, 1, 0), (4, 1, 1, 2), (8, 1, 1, 3), (1, 0, 1, 1), (1, 1, 0, 3))
        if channels == 1 or run < 8
        for exact in ((2,) if pixel == np.float64 else (0, 1, 2) if staged and in_shared else (0,))
    ],
    "features/patch_kmeans.cu": [
        {"Pixel": pixel, "ACTIVATION": activation, "IN_SHARED": in_shared}
        for pixel, in_shared in ((np.uint8, 1), (np.float32, 1), (np.uint8, 0))
        for activation in range(3)
    ],
}


def nearest(points, centers):
    return _array_kmeans.nearest(points, _arrays.namespace(points).asarray(centers))


def sums_by_cluster(points, labels, n_clusters):
    xp = _arrays.namespace(points)
    return xp.column_stack(_array_kmeans.sums_by_cluster(points, xp.asarray(labels), n_clusters))


SOURCE_OF = {
    nearest: "_array_kmeans.cu",
    sums_by_cluster: "_array_kmeans.cu",
    color_histogram: "features/color_histogram.cu",
    dense_sift: "features/dense_sift.cu",
    hog: "features/hog.cu",
    patch_features: "features/patch_kmeans.cu",
}


def as_dtypes(images):
    """Return the same pictures as uint8, float32 and float64."""
    return images, (images / 255).astype(np.float32), images / 255


def on_gpu(cupy, function, images, *args, **kwargs):
    result = function(cupy.asarray(images), *args, **kwargs)
    assert isinstance(result, cupy.ndarray)
    return result.get()


def equals(shape, odd):
    """Return a picture, float32, of a few levels of gray: many gradients are on a diagonal, or alike in two channels.

    A picture with an odd pixel, which is no level of 255, is read as it is, and rounding decides otherwise.
    """
    images = np.random.default_rng(0).integers(99, 103, (1, *shape)).astype(np.float32) / np.float32(255)
    images[0, 9, 9, 1] += np.float32(1e-3) * odd
    return images


def small_runs(images):
    """Return calls that run every kernel, for every type, through each of its branches, in a second.

    With 32 threads a block, pictures and windows are wider than a block; bins and cells go up to the border.
    """
    images = images[:2, :, :36]
    gray, tall = images[..., 1], np.concatenate([images, images], 1)
    parts, nothing = random_parts(48, 40), (np.zeros(48), np.eye(48), np.zeros((40, 48)))
    of_levels, odd = (equals(images.shape[1:], odd) for odd in (False, True))
    runs = [(hog, X, 8, 4, 2) for X in (of_levels, odd)]
    runs += [(hog, np.concatenate([of_levels, odd])[:, 4:12, 4:12], 8, 4, 2)]  # at once
    runs += [(hog, gray, 9, (19, 4), 1), *((hog, gray, 9, (4, 6), (2, 2), norm) for norm in NORMS)]
    runs += [
        (hog, X, n, cell, 2, "L2-Hys", root)
        for pictures in (gray, images)
        for X in as_dtypes(pictures)
        for cell in ((4, 6), (6, 4), *([(6, 8)] if pictures is gray else []))
        for n, root in ((9, False), (8, False), (9, True))
    ]
    large = np.tile(tall[:1], (1, 3, 3, 1))  # of one cell, too large for shared memory
    runs += [(hog, X, 9, large.shape[1:3], 1, "L1") for Y in (large[..., 1], large) for X in as_dtypes(Y)]
    many = np.tile(tall, (1, 2, 1, 1))  # of one block, whose cells are too many for shared memory
    runs += [(hog, X, 9, (2, 3), (36, 12), "L2") for Y in (many[..., 1], many) for X in as_dtypes(Y)]
    several = gray, images, gray[:, :, 1:], images[:, :, 1:]  # of whole words, and not
    runs += [(color_histogram, images, bins, "lab", True, 2, norm) for bins in (4, 25) for norm in (None, "l2")]
    runs += [(color_histogram, X, 7, space) for X in several for space in SPACES]
    runs += [(color_histogram, X, 25, "lab", joint) for X in several for joint in (False, True)]
    runs += [
        (dense_sift, X, *how, 0, root)
        for pictures in (tall, tall[..., 1])
        for X in as_dtypes(pictures)[:2]
        for how, root in (((8, 8), False), ((4, 6), True))
    ]
    runs += [(dense_sift, large, 60, 30, 0)]  # one descriptor, whose bins have more rows than fit
    runs += [(patch_features, X, *parts, 4, 2, 2, a) for X in as_dtypes(images)[:2] for a in ACTIVATIONS]
    runs += [(patch_features, images, *nothing, 4, 2, 2, "hard")]  # all are equally near
    many = random_parts(48, 12_100)  # whose sums do not fit into shared memory
    runs += [(patch_features, images[:1, :6, :8], *many, 4, 2, (1, 2), a) for a in ACTIVATIONS]
    return runs + kmeans_runs()


def kmeans_runs():
    """Return calls with centers that are equally near, a cluster without rows, and one of several parts."""
    points = np.random.default_rng(0).normal(size=(290, 41))
    centers = np.concatenate([points[:32], points[:10], points[:10]])  # of the same lane, and of others
    labels = np.arange(290) % 7 // 3 * 2  # 0, 2 and 4
    return [
        run
        for X in (points.astype(np.float32), points)
        for run in (
            (nearest, X, centers.astype(X.dtype)),
            (nearest, X[:, :3], centers[::-1, :3].astype(X.dtype)),
            (nearest, X, centers[:2].astype(X.dtype)),
            (sums_by_cluster, X, labels, 6),
            (sums_by_cluster, X, labels // 4, 2),
            (sums_by_cluster, X[:, ::2], labels * 0, 1),
        )
    ]


def without_choices(code):
    """Return a complete source without sizes and what the user chose, of which there is no end."""
    code = cuda_on_cpu.SIZE.sub("", code).replace("\n\n", "\n")
    return re.sub(r"constexpr int (LANES|ORIENTATIONS|CELL_\w+|BLOCK_\w+|NORM|SPACING|REACH) = \d+;\n", "", code)


def all_kernels():
    """Return what there is: (complete source but for the user's choices, kernel)."""
    codes = [_arrays.kernel_code(source, **types) for source, several in SOURCES.items() for types in several]
    return {(without_choices(code), kernel) for code in codes for kernel in cuda_on_cpu.KERNEL.findall(code)}
