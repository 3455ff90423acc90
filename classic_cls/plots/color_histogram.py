"""Shows the most frequent colours of a picture as bars."""

import numpy as np

from .._images import positive_int
from ..features.color_histogram import ColorHistogram
from ._common import axes, one_image


class ColorHistogramDisplay:
    """The most frequent colours of a picture: the largest bins of its joint histogram, in their own colours.

    Use :meth:`from_image` to make one.

    Parameters
    ----------
    shares : ndarray of shape (n_bins,)
        Share of the pixels in each bin.
    colors : ndarray of shape (n_bins, 3)
        RGB in [0, 1] of each bin's centre.
    names : ndarray of shape (n_bins,)
        What :meth:`ColorHistogram.get_feature_names_out` calls the bins.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    bars_ : matplotlib BarContainer
        The bars, the largest first.

    See Also
    --------
    ColorHistogram : The descriptor.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> import numpy as np
    >>> from classic_cls import ColorHistogramDisplay
    >>> red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    >>> display = ColorHistogramDisplay.from_image(red, color_space="hsv", bins=(6, 2, 2)).plot()
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['hsv_h0_s1_v1']
    """

    def __init__(self, shares, colors, names):
        self.shares = shares
        self.colors = colors
        self.names = names

    @classmethod
    def from_image(cls, image, bins=8, color_space="rgb"):
        """Count a picture's colours.

        Parameters
        ----------
        image : array of shape (height, width) or (height, width, 3)
            uint8, or float in [0, 1].
        bins, color_space
            As in :class:`ColorHistogram`.

        Returns
        -------
        display : ColorHistogramDisplay

        Raises
        ------
        ValueError
            If `image` is not one image, or holds NaN or floats outside [0, 1], or a parameter is out of range.
        """
        histogram = ColorHistogram(bins, color_space, norm="l1")
        shares = histogram.fit_transform(one_image(image)[None])[0]
        return cls(shares, _bin_colors(histogram._layout().bins, color_space), histogram.get_feature_names_out())

    def plot(self, ax=None, *, n_colors=12):
        """Draw the most frequent colours as bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        n_colors : int, default=12
            Number of bars, at most; empty bins get none.

        Returns
        -------
        self : ColorHistogramDisplay
        """
        order = np.argsort(-self.shares, kind="stable")[: positive_int(n_colors, "n_colors")]
        order = order[self.shares[order] > 0]
        self.ax_ = axes(ax, (5.5, 1.1 + 0.27 * len(order)))
        self.figure_ = self.ax_.figure
        percent = 100 * self.shares[order]
        self.bars_ = self.ax_.barh(self.names[order], percent, color=self.colors[order], edgecolor="0.4", linewidth=0.6)
        self.ax_.invert_yaxis()
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.ax_.set(xlabel="share of the pixels (%)")
        self.ax_.set_title(f"{len(order)} of {len(self.shares)} bins hold {percent.sum():.0f} % of the pixels")
        return self


def _bin_colors(bins, color_space):
    """Return the RGB colour, in [0, 1], of each bin's centre."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in bins), indexing="ij"), -1).reshape(-1, len(bins))
    centers = (index + 0.5) / bins
    to_rgb = {
        "rgb": lambda c: c,
        "hsv": lambda c: _cv_rgb(c * [360, 1, 1], "COLOR_HSV2RGB"),
        "lab": lambda c: _cv_rgb(c * [100, 255, 255] - [0, 128, 128], "COLOR_LAB2RGB"),
        "opponent": _rgb_of_opponent,
        "gray": lambda c: np.repeat(c, 3, axis=1),
    }
    return np.clip(to_rgb[color_space](centers), 0, 1)


def _cv_rgb(colors, conversion):
    import cv2

    return cv2.cvtColor(colors.astype(np.float32)[None], getattr(cv2, conversion))[0]


def _rgb_of_opponent(levels):
    red_green, yellow_blue, total = (levels * [2, 4, 3] - [1, 2, 0]).T
    blue = (total - yellow_blue) / 3
    return np.stack([total - blue + red_green, total - blue - red_green, 2 * blue], -1) / 2
