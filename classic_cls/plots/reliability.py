"""Shows whether models are right as often as they say."""

import numpy as np

from ..benchmark.failures import reliability
from ._common import axes


class ReliabilityDisplay:
    """Accuracy against confidence, bin by bin: below the diagonal a model is overconfident, above it underconfident.

    scikit-learn's CalibrationDisplay shows the probability of one of two classes; this one shows that of the label that
    the model says, of however many classes. Use :meth:`from_predictions` to make one.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        For each model what :func:`classic_cls.benchmark.failures.reliability` returns.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    points_ : dict of str to matplotlib PathCollection
        The points of each model.

    See Also
    --------
    classic_cls.benchmark.failures.reliability : The numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls import ReliabilityDisplay
    >>> said = Predictions(labels=[1, 1, 1], scores=[[0.4, 0.6], [0.1, 0.9], [0.2, 0.8]], classes=[0, 1])
    >>> display = ReliabilityDisplay.from_predictions([0, 1, 1], {"svm": said}).plot()
    >>> display.tables["svm"]["count"].tolist()
    [1, 1, 1]
    """

    def __init__(self, tables):
        self.tables = tables

    @classmethod
    def from_predictions(cls, target, predictions, *, n_bins=15):
        """Sort each model's answers into bins of confidence.

        Parameters
        ----------
        target : array of shape (n_test,)
            The true labels.
        predictions : dict of str to Predictions
            What each model said, with scores.
        n_bins : int, default=15
            Number of bins of [0, 1].

        Returns
        -------
        display : ReliabilityDisplay

        Raises
        ------
        ValueError
            As in :func:`.failures.reliability`.
        """
        return cls({name: reliability(target, prediction, n_bins) for name, prediction in predictions.items()})

    def plot(self, ax=None):
        """Draw a line for each model, with a point for each bin, the larger the more images are in it.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : ReliabilityDisplay
        """
        self.ax_ = axes(ax, (4.5, 4.5))
        self.figure_ = self.ax_.figure
        self.ax_.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
        self.points_ = {name: self._draw(name, table) for name, table in self.tables.items()}
        self.ax_.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.ax_.grid(alpha=0.3)
        self.ax_.legend(frameon=False, loc="upper left")
        return self

    def _draw(self, name, table):
        (line,) = self.ax_.plot(table["confidence"], table["accuracy"], linewidth=1, label=name)
        area = 8 + 400 * np.asarray(table["count"]) / table["count"].sum()
        return self.ax_.scatter(table["confidence"], table["accuracy"], area, color=line.get_color(), alpha=0.7)
