"""Shows histograms of oriented gradients as stars beside the picture."""

import numpy as np

from ..features.hog import HOG
from ._common import axes, one_image, show


class HOGDisplay:
    """A picture beside its histograms of oriented gradients, drawn as stars.

    A cell is a star of one line per orientation. The line lies along the edge, that is, across the gradient that voted
    for it, and is the longer and brighter the larger the vote.

    Use :meth:`from_image` to make one.

    Parameters
    ----------
    image : ndarray of shape (height, width, channels)
        The picture, uint8 or float in [0, 1].
    votes : ndarray of shape (cells_down, cells_across, orientations)
        One histogram per cell.
    pixels_per_cell : (int, int)
        Rows and columns of a cell.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : matplotlib LineCollection
        The lines of the stars.

    See Also
    --------
    HOG : The descriptor.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from classic_cls import HOGDisplay, load_faces
    >>> display = HOGDisplay.from_image(load_faces().images[0], pixels_per_cell=5, cells_per_block=2).plot()
    >>> display.votes.shape
    (5, 5, 9)
    """

    def __init__(self, image, votes, pixels_per_cell):
        self.image = image
        self.votes = votes
        self.pixels_per_cell = pixels_per_cell

    @classmethod
    def from_image(cls, image, **hog_parameters):
        """Describe a picture.

        Parameters
        ----------
        image : array of shape (height, width) or (height, width, 3)
            uint8, or float in [0, 1].
        **hog_parameters
            Parameters of :class:`HOG`. A cell is shown as the mean of its histograms in the blocks that hold it.

        Returns
        -------
        display : HOGDisplay

        Raises
        ------
        ValueError
            If `image` is not one image, is too small for one block, or holds NaN or floats outside [0, 1].
        """
        pixels = one_image(image)
        hog = HOG(**hog_parameters)
        features = hog.fit_transform(pixels[None])[0]
        geometry = hog._geometry()
        blocks = features.reshape(*geometry.blocks(pixels.shape[:2]), *geometry.block, geometry.orientations)
        return cls(pixels, _mean_over_blocks(blocks), geometry.cell)

    def plot(self, ax=None):
        """Draw the picture at the left and the stars at the right.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : HOGDisplay
        """
        from matplotlib.collections import LineCollection

        height, width = self.image.shape[:2]
        self.ax_ = axes(ax, (8, 0.4 + 3.9 * height / width))
        self.figure_ = self.ax_.figure
        shift = 1.04 * width
        show(self.ax_, self.image, extent=(0, width, height, 0))
        show(self.ax_, np.zeros((1, 1, 1), np.uint8), extent=(shift, shift + width, height, 0))
        segments, strength = self._stars()
        segments[..., 0] += shift
        thickness = min(1.5, 40 / max(self.votes.shape[:2]))
        self.lines_ = LineCollection(segments, colors="white", alpha=strength, linewidths=thickness)
        self.ax_.add_collection(self.lines_)
        self.ax_.set(xlim=(0, shift + width), ylim=(height, 0))
        down, across, orientations = self.votes.shape
        stars = f"HOG: {down} x {across} cells, {orientations} orientations"
        self.ax_.set_xticks([width / 2, shift + width / 2], [f"picture, {height} x {width} pixels", stars])
        return self

    def _stars(self):
        """Return the lines ((x, y), (x, y)) of all votes, and each vote relative to the largest."""
        row, col, orientation = np.indices(self.votes.shape).reshape(3, -1)
        strength = self.votes.ravel() / max(self.votes.max(), np.finfo(np.float32).tiny)
        angle = np.pi * (orientation + 0.5) / self.votes.shape[2]
        along = np.stack([-np.sin(angle), np.cos(angle)], -1)  # the gradient is (cos, sin), with y downwards
        half = 0.5 * min(self.pixels_per_cell) * strength[:, None] * along
        center = (np.stack([col, row], -1) + 0.5) * self.pixels_per_cell[::-1]
        return np.stack([center - half, center + half], 1), strength


def _mean_over_blocks(blocks):
    """Return the mean histogram of each cell over the blocks (down, across, block rows, block cols, bins) it is in."""
    down, across, rows, cols, n = blocks.shape
    total = np.zeros((down + rows - 1, across + cols - 1, n))
    count = np.zeros_like(total)
    for row, col in np.ndindex(rows, cols):
        cells = np.s_[row : row + down, col : col + across]
        total[cells] += blocks[:, :, row, col]
        count[cells] += 1
    return total / count
