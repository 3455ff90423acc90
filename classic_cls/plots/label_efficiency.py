"""Shows accuracy against the number of labels, and where one model overtakes another."""

import numpy as np

from ._common import axes

# Okabe and Ito's colours, which colour-blind people can tell apart, without the yellow that is pale on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", ":", "-.")  # for more models than colours


class LabelEfficiencyDisplay:
    """Accuracy against labels per class: a line of means for each model, in a band from its worst to its best seed.

    A crossing is a ring on the curves, with its number of labels; a bar is its confidence interval, ending in an arrow
    where that goes beyond the sizes.

    Use :meth:`from_result` to make one.

    Parameters
    ----------
    table : pandas.DataFrame
        As :attr:`classic_cls.benchmark.LabelEfficiency.table`.
    crossings : sequence of classic_cls.benchmark.Crossing
        Those to mark; of models that don't cross there is nothing to mark.
    title : str
        What stands above the picture.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : dict of str to matplotlib Line2D
        The line of each model.

    See Also
    --------
    classic_cls.benchmark.label_efficiency : Makes the result.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.dummy import DummyClassifier
    >>> from classic_cls import LabelEfficiencyDisplay
    >>> from classic_cls.benchmark import label_efficiency
    >>> models = {"hog-svm": "hog-svm", "majority": DummyClassifier()}
    >>> result = label_efficiency(models, "faces", labels_per_class=[5, 20], seeds=2)
    >>> display = LabelEfficiencyDisplay.from_result(result).plot()
    >>> [label.get_text() for label in display.ax_.get_xticklabels()]
    ['5', '20']
    """

    def __init__(self, table, crossings, title):
        self.table = table
        self.crossings = crossings
        self.title = title

    @classmethod
    def from_result(cls, result, *, crossings=()):
        """Take the means and the spread over seeds of a result.

        Parameters
        ----------
        result : classic_cls.benchmark.LabelEfficiency
            What :func:`classic_cls.benchmark.label_efficiency` returned.
        crossings : sequence of classic_cls.benchmark.Crossing, default=()
            What :func:`classic_cls.benchmark.crossing` returned, to be marked.

        Returns
        -------
        display : LabelEfficiencyDisplay

        Raises
        ------
        ValueError
            If all fits failed, or a crossing is of a model that the result lacks.
        """
        table = result.table
        if table.empty:
            raise ValueError("The result has no fit that succeeded; there is nothing to draw. See result.failed.")
        for name in (name for found in crossings for name in (found.leader, found.other)):
            if name not in table["model"].to_numpy():
                raise ValueError(f"A crossing is of {name!r}, of which the result has nothing; give crossings of it.")
        about = result.records[0]
        return cls(table, tuple(crossings), f"{about['dataset']}, {about['n_test']:,} test images")

    def plot(self, ax=None):
        """Draw the curves, on a logarithmic axis of labels.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : LabelEfficiencyDisplay
        """
        self.ax_ = axes(ax, (7, 4.5))
        self.figure_ = self.ax_.figure
        models = self.table.groupby("model", sort=False)
        self.lines_ = {name: self._curve(k, name, rows) for k, (name, rows) in enumerate(models)}
        inside = [found for found in self.crossings if found.labels_per_class in found.crossings]
        for k, found in enumerate(sorted(inside, key=lambda found: found.labels_per_class)):
            self._mark(found, above=k % 2 == 0)
        self._finish()
        self._name_lines()
        return self

    def _curve(self, k, name, rows):
        color, style = _COLORS[k % len(_COLORS)], _LINES[k // len(_COLORS) % len(_LINES)]
        labels = rows["labels_per_class"]
        self.ax_.fill_between(labels, rows["lowest"], rows["highest"], color=color, alpha=0.15, linewidth=0)
        (line,) = self.ax_.plot(labels, rows["accuracy"], style, color=color, marker=".", label=name)
        return line

    def _mark(self, found, above):
        """Draw a ring where the curves cross, and the interval as a bar through it; the number above it or below."""
        at, (labels, accuracy) = found.labels_per_class, self.lines_[found.leader].get_data()
        height = np.interp(np.log(at), np.log(labels), accuracy)
        self.ax_.plot(at, height, "o", markersize=8, markerfacecolor="none", markeredgecolor="black", zorder=4)
        text, side = f"{float(f'{at:.2g}'):,.0f}", {"va": "bottom"} if above else {"va": "top"}
        self.ax_.annotate(text, (at, height), (0, 7 if above else -7), textcoords="offset points", ha="center", **side)
        if found.low is not None:
            ends = np.clip([found.low, found.high], found.sizes[0], found.sizes[-1])
            self.ax_.plot(ends, [height, height], color="black", linewidth=1, zorder=3)
            for end, is_open, arrow in zip(ends, (found.low == 0, np.isinf(found.high)), "<>", strict=True):
                self.ax_.plot(end, height, arrow if is_open else "|", color="black", markersize=5, zorder=3)

    def _finish(self):
        from matplotlib.ticker import NullLocator

        sizes = sorted(self.table["labels_per_class"].unique())
        self.ax_.set_xscale("log")
        self.ax_.xaxis.set_minor_locator(NullLocator())
        self.ax_.set_xticks(sizes, [f"{size:,}" for size in sizes])
        self.ax_.set(xlabel="labels per class", ylabel="accuracy", title=self.title)
        self.ax_.spines[["top", "right"]].set_visible(False)
        self.ax_.grid(axis="y", linewidth=0.5, alpha=0.4)

    def _name_lines(self):
        """Write each model's name at the end of its line, moved up where it would lie on the one below."""
        bottom, top = self.ax_.get_ylim()
        distance = 0.04 * (top - bottom)
        lowest = -np.inf
        for name, line in sorted(self.lines_.items(), key=lambda item: item[1].get_ydata()[-1]):
            (x, y), lowest = line.get_xydata()[-1], max(line.get_ydata()[-1], lowest + distance)
            moved = (8, (lowest - y) / (top - bottom) * self.ax_.get_window_extent().height * 72 / self.figure_.dpi)
            self.ax_.annotate(name, (x, y), moved, textcoords="offset points", color=line.get_color(), va="center")
