"""Shows how accurate models get when their least confident answers are handed to a person."""

import numpy as np

from ..benchmark.failures import reject_curve
from ._common import axes


class RejectCurveDisplay:
    """Accuracy against the share of the images that is kept, where the least confident are handed to a person.

    Use :meth:`from_predictions` to make one.

    Parameters
    ----------
    curves : dict of str to RejectCurve
        One for each model.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : dict of str to matplotlib Line2D
        One for each model.

    See Also
    --------
    classic_cls.benchmark.failures.reject_curve : The numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls import RejectCurveDisplay
    >>> said = Predictions(labels=[1, 1, 1], scores=[[0.4, 0.6], [0.1, 0.9], [0.2, 0.8]], classes=[0, 1])
    >>> display = RejectCurveDisplay.from_predictions([0, 1, 1], {"svm": said}).plot()
    >>> display.curves["svm"].coverage_at(0.9)
    0.6666666666666666
    """

    def __init__(self, curves):
        self.curves = curves

    @classmethod
    def from_predictions(cls, target, predictions):
        """Compute the curves of models.

        Parameters
        ----------
        target : array of shape (n_test,)
            The true labels.
        predictions : dict of str to Predictions
            What each model said, with scores.

        Returns
        -------
        display : RejectCurveDisplay

        Raises
        ------
        ValueError
            As in :func:`.failures.reject_curve`.
        """
        return cls({name: reject_curve(target, prediction) for name, prediction in predictions.items()})

    def plot(self, ax=None):
        """Draw a line for each model; the legend has the area under its error rate (AURC), the smaller the better.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : RejectCurveDisplay
        """
        self.ax_ = axes(ax, (5.5, 4))
        self.figure_ = self.ax_.figure
        self.lines_ = {name: self._draw(name, curve) for name, curve in self.curves.items()}
        self.ax_.set(xlabel="coverage (share of the images kept)", ylabel="accuracy on those kept", xlim=(0, 1))
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.ax_.grid(alpha=0.3)
        self.ax_.legend(frameon=False)
        return self

    def _draw(self, name, curve):
        coverage, accuracy = np.append(0, curve.coverage), np.append(curve.accuracy[0], curve.accuracy)
        label = f"{name} (AURC {curve.area:.3f})"
        return self.ax_.plot(coverage, accuracy, drawstyle="steps-pre", label=label)[0]  # as accuracy_at has it
