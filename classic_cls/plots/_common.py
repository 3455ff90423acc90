"""What the displays share: reading one image, and axes to show it in."""

import numpy as np

from .._images import as_pixels


def one_image(image):
    """Return one image as (height, width, channels), uint8 or float in [0, 1]."""
    image = np.asarray(image)
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise ValueError(
            f"The image has shape {image.shape}; expected one image, (height, width) gray or (height, width, 3) RGB. "
            "Of a batch take one: images[0]."
        )
    return as_pixels(image.reshape(*image.shape[:2], -1), unit_range=True)


def axes(ax, size):
    """Return `ax`, or the axes of a new figure of `size` inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def show(ax, image, **kwargs):
    """Show an image (height, width, channels) without ticks or frame."""
    pixels = image.squeeze(-1) if image.shape[-1] == 1 else image
    white = 255 if image.dtype == np.uint8 else 1
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=white, interpolation="nearest", **kwargs)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
