"""Shows images and their copies side by side."""

import numpy as np

from .._images import positive_int, read_any_sizes
from ..features.resize import resize
from ._common import axes, show

_LARGEST_SIDE = 96


class DuplicatesDisplay:
    """Pairs of images that were taken for copies, side by side, with their similarity and labels.

    Use :meth:`from_duplicates` to make one.

    Parameters
    ----------
    pictures : ndarray of shape (n_pairs, 2, side, side, channels)
        The two images of each pair, stretched to one size, in [0, 1].
    captions : list of str
        One for each pair.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.

    See Also
    --------
    classic_cls.benchmark.find_duplicates : Finds them.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from classic_cls import DuplicatesDisplay, load_textures
    >>> from classic_cls.benchmark import find_duplicates
    >>> images = load_textures().images[500:600]
    >>> images[9] = images[40]
    >>> display = DuplicatesDisplay.from_duplicates(find_duplicates(images), images).plot()
    >>> display.captions
    ['9, 40: exact']
    """

    def __init__(self, pictures, captions):
        self.pictures = pictures
        self.captions = captions

    @classmethod
    def from_duplicates(cls, duplicates, images, other=None, *, labels=None, other_labels=None, n_pairs=24):
        """Collect pairs, the most similar first; those of unlike labels with ``duplicates.conflicts(labels)``.

        Parameters
        ----------
        duplicates : Duplicates
            What :func:`classic_cls.benchmark.find_duplicates` found.
        images, other : array or list of images
            As they were given to it.
        labels, other_labels : array, default=None
            Labels to show.
        n_pairs : int, default=24
            At most so many pairs.

        Returns
        -------
        display : DuplicatesDisplay

        Raises
        ------
        ValueError
            If there are no pairs, or the images or labels are not as many as were compared.
        """
        if not len(duplicates):
            raise ValueError("There are no pairs to show: no copies were found.")
        sides = _side(images, labels, duplicates.n_images, "images"), None
        if duplicates.n_others is not None:
            sides = sides[0], _side(other, other_labels, duplicates.n_others, "other")
        (left, left_labels), (right, right_labels) = sides[0], sides[1] or sides[0]
        chosen = slice(positive_int(n_pairs, "n_pairs"))
        pairs = duplicates.pairs[chosen]
        size = min(
            _LARGEST_SIDE, max(max(x[k].shape[:2]) for x, column in ((left, 0), (right, 1)) for k in pairs[:, column])
        )
        pictures = [resize([left[i], right[j]], size) for i, j in pairs]
        captions = [
            f"{i}, {j}: {'exact' if exact else f'{similarity:.3f}'}{_named(left_labels, i, right_labels, j)}"
            for (i, j), similarity, exact in zip(
                pairs.tolist(), duplicates.similarity[chosen], duplicates.exact[chosen], strict=True
            )
        ]
        return cls(np.reshape(pictures, (len(pairs), 2, size, size, -1)), captions)

    def plot(self, ax=None):
        """Draw the pairs in a grid.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : DuplicatesDisplay
        """
        n_pairs, _, side, *_ = self.pictures.shape
        columns = min(6, n_pairs)
        rows = -(-n_pairs // columns)
        self.ax_ = axes(ax, (0.2 + 2 * columns, 0.2 + 1.3 * rows))
        self.figure_ = self.ax_.figure
        gap = max(1, side // 24)
        height, width = side + side // 2, 2 * side + 6 * gap
        canvas = np.zeros((rows * height, columns * width, 4), np.float32)  # transparent where no picture is
        for k, ((left, right), caption) in enumerate(zip(self.pictures, self.captions, strict=True)):
            y, x = k // columns * height, k % columns * width
            for at, picture in ((x, left), (x + side + gap, right)):
                canvas[y : y + side, at : at + side, :3] = picture
                canvas[y : y + side, at : at + side, 3] = 1
            self.ax_.text(x - 0.5, y + side, caption, va="top", fontsize=7)
        show(self.ax_, canvas)
        return self


def _side(images, labels, n, name):
    """Return the images, and the labels or None, if they are `n`."""
    count = 0 if images is None else len(images)
    if count != n:
        raise ValueError(f"{name} holds {count} images; expected the {n} that were compared.")
    if labels is not None and len(labels) != n:
        raise ValueError(f"There are {len(labels)} labels; expected {n}, one for each image of {name}.")
    return read_any_sizes(images), labels


def _named(left_labels, i, right_labels, j):
    named = [str(labels[k]) for labels, k in ((left_labels, i), (right_labels, j)) if labels is not None]
    return f"\n{' | '.join(named)}" if named else ""
