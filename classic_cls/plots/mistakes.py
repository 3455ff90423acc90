"""Shows the images that a model got wrong, and what it said."""

import numpy as np
import pandas as pd

from .._images import positive_int
from ..benchmark._labels import class_names, read_labels
from ..benchmark.failures import confident_mistakes
from ._gallery import Section, draw_sections, picked, spread


class MistakesDisplay:
    """Test images that a model got wrong, with what it said, how sure it was, and what they are.

    Use :meth:`from_predictions` to make one.

    Parameters
    ----------
    images : list of ndarray of shape (height, width, channels)
        The pictures, uint8 or float in [0, 1].
    mistakes : pandas.DataFrame
        A row for each of them, as in :func:`classic_cls.benchmark.failures.confident_mistakes`; without ``confidence``
        where the model has none.
    n_mistakes : int
        All mistakes of the model.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.

    See Also
    --------
    classic_cls.benchmark.failures.confident_mistakes : The same as a table.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls import MistakesDisplay, load_digits
    >>> digits = load_digits()
    >>> said = Predictions(labels=[0, 1, 7, 3], scores=None, classes=None)
    >>> display = MistakesDisplay.from_predictions(digits.images[:4], digits.target[:4], said).plot()
    >>> display.mistakes
       image  true  predicted
    0      2     2          7
    """

    def __init__(self, images, mistakes, n_mistakes):
        self.images = images
        self.mistakes = mistakes
        self.n_mistakes = n_mistakes

    @classmethod
    def from_predictions(cls, images, target, prediction, *, n=20, target_names=None):
        """Choose the mistakes that the model was surest of.

        Parameters
        ----------
        images : array of shape (n_test, height, width) or (n_test, height, width, 3), or list of images
            The test images, in the order of `target`; uint8, or float in [0, 1].
        target : array of shape (n_test,)
            The true labels.
        prediction : Predictions
            What the model said. Without scores the mistakes are not the surest, but evenly spread over the test.
        n : int, default=20
            Number of images, at most.
        target_names : array of str of shape (n_labels,), default=None
            Names to show for the labels, which are then indices into them.

        Returns
        -------
        display : MistakesDisplay

        Raises
        ------
        ValueError
            If there are not as many images as labels, or as in :func:`.failures.confident_mistakes`.
        """
        choose = _spread_mistakes if prediction.scores is None else confident_mistakes
        mistakes = choose(target, prediction, positive_int(n, "n"), target_names)
        shown = picked(images, mistakes["image"], len(target))
        return cls(shown, mistakes, int(np.sum(np.asarray(target) != np.asarray(prediction.labels))))

    def plot(self, ax=None, *, n_columns=5):
        """Draw the images in rows.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure of the size that the captions need.
        n_columns : int, default=5
            Images in a row.

        Returns
        -------
        self : MistakesDisplay
        """
        captions = [_caption(mistake) for mistake in self.mistakes.itertuples()]
        which = "the surest first" if "confidence" in self.mistakes else "in test order"
        heading = f"{len(self.images)} of {self.n_mistakes:,} mistakes, {which}"
        self.ax_ = draw_sections(ax, [Section(heading, self.images, captions)], positive_int(n_columns, "n_columns"))
        self.figure_ = self.ax_.figure
        return self


def _spread_mistakes(target, prediction, n, target_names):
    target, labels, _ = read_labels(target, {"prediction": prediction})
    labels = labels["prediction"]
    wrong = spread(np.flatnonzero(labels != target), n)
    true, predicted = (class_names(which[wrong], target_names) for which in (target, labels))
    return pd.DataFrame({"image": wrong, "true": true, "predicted": predicted})


def _caption(mistake):
    sure = f" {mistake.confidence:.2f}" if hasattr(mistake, "confidence") else ""
    return f"said {mistake.predicted}{sure},\nis {mistake.true}"
