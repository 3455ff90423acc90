"""Principal components of local descriptors."""

import numpy as np

from .. import _native
from .._arrays import namespace, on_device


def learn_pca(points, n_dims):
    """Return the mean of `points` and their `n_dims` axes of largest variance, (n_dims, n_columns), float32."""
    if n_dims > points.shape[1]:
        raise ValueError(
            f"n_dims={n_dims}, but the descriptors have only {points.shape[1]} numbers. Ask for fewer, or None for all."
        )
    mean = points.mean(0, dtype=np.float64)
    centered = points - mean
    axes = np.linalg.eigh(centered.T @ centered)[1][:, ::-1][:, :n_dims].T
    strongest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)
    return mean.astype(np.float32), np.ascontiguousarray(axes * np.sign(strongest), np.float32)


def project(points, components, mean=None, dtype=np.float32):
    """Return ``(points - mean) @ components.T``, where the points lie.

    Without a mean, what is zero stays zero, exactly. On the host a row is the same whatever rows are beside it.
    """
    shift = np.zeros(len(components))
    if mean is not None:
        shift -= components.astype(np.float64) @ mean
    if on_device(points):
        axes, shift = (namespace(points).asarray(a, dtype) for a in (components, shift))
        return points.astype(dtype, copy=False) @ axes.T + shift
    out = np.empty((len(points), len(components)), dtype)
    _native.kernels.project(points, components, shift.astype(dtype), out)
    return out


def uncentered(projected, components, mean):
    """Return what ``project(points, components, mean)`` would have been without the mean, float64."""
    return projected + components.astype(np.float64) @ mean
