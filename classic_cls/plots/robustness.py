"""Shows how the accuracy of models falls as images get worse."""

from ._common import axes


class RobustnessDisplay:
    """Accuracy against severity, a small panel for each kind of corruption and a line for each model.

    Use :meth:`from_robustness` to make one.

    Parameters
    ----------
    table : pandas.DataFrame
        With the columns model, kind, severity and accuracy; severity 0 is clean.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One panel for each kind, in one row or two.
    ax_ : matplotlib Axes
        The empty axes behind the panels.
    figure_ : matplotlib Figure
        The figure of `ax_`.

    See Also
    --------
    classic_cls.benchmark.robustness : Scores the models.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.dummy import DummyClassifier
    >>> from classic_cls import RobustnessDisplay, load_faces
    >>> from classic_cls.benchmark import robustness
    >>> faces = load_faces()
    >>> majority = DummyClassifier().fit(faces.images, faces.target)
    >>> result = robustness({"majority": majority}, faces, kinds=["blur", "jpeg"], severities=[1, 5])
    >>> len(RobustnessDisplay.from_robustness(result).plot().axes_)
    2
    """

    def __init__(self, table):
        self.table = table

    @classmethod
    def from_robustness(cls, result):
        """Take over what :func:`classic_cls.benchmark.robustness` found.

        Parameters
        ----------
        result : Robustness
            Its result.

        Returns
        -------
        display : RobustnessDisplay
        """
        return cls(result.table)

    def plot(self, ax=None):
        """Draw the panels.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw, an axes of a grid; None makes a figure.

        Returns
        -------
        self : RobustnessDisplay
        """
        kinds = [kind for kind in self.table["kind"].unique() if kind != "clean"]
        rows = 1 if len(kinds) <= 4 else 2
        columns = -(-len(kinds) // rows)
        self.ax_ = axes(ax, (1 + 2.2 * columns, 0.7 + 2.1 * rows))
        self.ax_.set_axis_off()
        self.figure_ = self.ax_.figure
        grid = self.ax_.get_subplotspec().subgridspec(rows, columns).subplots(sharex=True, sharey=True, squeeze=False)
        self.axes_ = grid.ravel()[: len(kinds)]
        for spare in grid.ravel()[len(kinds) :]:
            spare.set_axis_off()
        for panel, kind in zip(self.axes_, kinds, strict=True):
            self._plot_kind(panel, kind)
        grid[0, 0].set(ylim=(0, 1.02), xticks=sorted(self.table["severity"].unique()))
        for panel in grid[:, 0]:
            panel.set_ylabel("accuracy")
        for panel in grid[-1]:
            panel.set_xlabel("severity (0 is clean)")
        self.axes_[0].legend(fontsize=7, loc="lower left")
        return self

    def _plot_kind(self, panel, kind):
        shown = self.table[self.table["kind"].isin(["clean", kind])]
        for name in self.table["model"].unique():
            line = shown[shown["model"] == name].sort_values("severity")
            panel.plot(line["severity"], line["accuracy"], marker=".", label=name)
        panel.set_title(kind.replace("_", " "), fontsize=9)
        panel.grid(alpha=0.3)
