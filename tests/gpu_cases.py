"""What the tests of the CUDA kernels share: the sources, and calls that run all of them."""

import cuda_on_cpu
import numpy as np
from test_patch_kmeans import random_parts

from classic_cls import _arrays, color_histogram, dense_sift, hog, patch_features

NORMS = ["L1", "L1-sqrt", "L2", "L2-Hys"]
ACTIVATIONS = ["triangle", "soft_threshold", "hard"]

# The CUDA sources, with the types that each is compiled for.
PIXELS = [{"Pixel": np.uint8}, {"Pixel": np.float32}]
SOURCES = {
    "features/color_histogram.cu": [{}],
    "features/dense_sift.cu": PIXELS,
    "features/hog.cu": [
        {"Pixel": pixel, "CHANNELS": channels, "RUN": run, "STAGED": staged, "EXACT": exact}
        for pixel in (np.uint8, np.float32, np.float64)
        for channels in (1, 3)
        for run, staged in ((1, 1), (4, 1), (1, 0))
        for exact in ((2,) if pixel == np.float64 else (0, 1, 2))
    ],
    "features/patch_kmeans.cu": PIXELS,
}


def as_dtypes(images):
    """Return the same pictures as uint8, float32 and float64."""
    return images, (images / 255).astype(np.float32), images / 255


def on_gpu(cupy, function, images, *args, **kwargs):
    result = function(cupy.asarray(images), *args, **kwargs)
    assert isinstance(result, cupy.ndarray)
    return result.get()


def small_runs(images):
    """Return calls that run every kernel, for every type, through each of its branches, in a second.

    With 32 threads a block, pictures and windows are wider than a block; bins and cells go up to the border.
    """
    images = images[:2, :, :36]
    gray, tall = images[..., 1], np.concatenate([images, images], 1)
    parts, nothing = random_parts(48, 40), (np.zeros(48), np.eye(48), np.zeros((40, 48)))
    runs = [(hog, X, 9, (4, 6), (2, 2), norm) for X in as_dtypes(gray)[:2] for norm in NORMS]
    runs += [(hog, X, 9, (4, 6), (2, 2)) for X in as_dtypes(images)]
    runs += [(color_histogram, images, bins, "lab", True, 2, norm) for bins in (4, 25) for norm in (None, "l2")]
    runs += [(dense_sift, X, 8, 8, 0, root) for X in as_dtypes(tall)[:2] for root in (False, True)]
    runs += [(patch_features, X, *parts, 4, 2, 2, a) for X in as_dtypes(images)[:2] for a in ACTIVATIONS]
    runs += [(patch_features, images, *nothing, 4, 2, 2, "hard")]  # all are equally near
    return runs


def all_kernels():
    """Return what there is: (complete source, kernel)."""
    codes = [_arrays.kernel_code(source, **types) for source, several in SOURCES.items() for types in several]
    return {(code, kernel) for code in codes for kernel in cuda_on_cpu.KERNEL.findall(code)}
