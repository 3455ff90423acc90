"""Shows what corruptions do to a picture, and what they do to the accuracy of models."""

import numpy as np

from .._images import as_bytes, one_of
from ..benchmark.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from ._common import axes, one_image, show


class CorruptionsDisplay:
    """One picture under each corruption, a row per kind, from clean to severe.

    Use :meth:`from_image` to make one.

    Parameters
    ----------
    pictures : ndarray of shape (n_kinds, 6, height, width, channels), uint8
        The picture as it is, and at severity 1 to 5.
    kinds : list of str
        Names of the rows.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.

    See Also
    --------
    classic_cls.benchmark.corrupt : Corrupts whole batches.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from classic_cls import CorruptionsDisplay, load_faces
    >>> display = CorruptionsDisplay.from_image(load_faces().images[0]).plot()
    >>> display.pictures.shape
    (8, 6, 25, 25, 1)
    """

    def __init__(self, pictures, kinds):
        self.pictures = pictures
        self.kinds = kinds

    @classmethod
    def from_image(cls, image, *, kinds=None, random_state=0):
        """Corrupt a picture.

        Parameters
        ----------
        image : array of shape (height, width) or (height, width, 3)
            uint8, or float in [0, 1].
        kinds : list of str, default=None
            Of ``classic_cls.benchmark.CORRUPTIONS``; None means all.
        random_state : int, default=0
            As in :func:`classic_cls.benchmark.corrupt`.

        Returns
        -------
        display : CorruptionsDisplay

        Raises
        ------
        ValueError
            If `image` is not one image, or there is no such kind.
        """
        clean = as_bytes(one_image(image))
        kinds = list(CORRUPTIONS) if kinds is None else [one_of(kind, "kind", CORRUPTIONS) for kind in kinds]
        if not kinds:
            raise ValueError(f"kinds={kinds!r}; expected at least one of {', '.join(CORRUPTIONS)}.")
        rows = [
            [clean] + [corrupt(clean[None], kind, k, random_state=random_state)[0] for k in SEVERITIES]
            for kind in kinds
        ]
        return cls(np.array(rows), kinds)

    def plot(self, ax=None):
        """Draw a row per kind and a column per severity.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : CorruptionsDisplay
        """
        n_kinds, n_columns, height, width, channels = self.pictures.shape
        self.ax_ = axes(ax, (2 + n_columns, 0.4 + n_kinds * height / width))
        self.figure_ = self.ax_.figure
        gap = max(1, min(height, width) // 16)
        tiles = np.pad(self.pictures, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=255)
        canvas = tiles.swapaxes(1, 2).reshape(n_kinds * (height + gap), n_columns * (width + gap), channels)
        show(self.ax_, canvas[:-gap, :-gap])
        self.ax_.set_yticks(
            np.arange(n_kinds) * (height + gap) + height / 2, [name.replace("_", " ") for name in self.kinds]
        )
        self.ax_.set_xticks(np.arange(n_columns) * (width + gap) + width / 2, ["clean", *SEVERITIES])
        self.ax_.xaxis.tick_top()
        return self
