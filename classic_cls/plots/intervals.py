"""Scores of several models with their intervals."""

from ._common import axes


class IntervalsDisplay:
    """A point and a bar for each model: a score and its interval, the best on top.

    Use :meth:`from_table` to make one.

    Parameters
    ----------
    models : list of str
        The best first.
    values, low, high : array of shape (n_models,)
        The scores and the ends of their intervals.
    metric : str
        What the scores are.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    Examples
    --------
    >>> from classic_cls import IntervalsDisplay
    >>> from classic_cls.benchmark.predictions import Predictions
    >>> from classic_cls.benchmark.statistics import intervals
    >>> table = intervals([0, 1] * 20, {"guess": Predictions([0] * 40), "svm": Predictions([0, 1] * 20)})
    >>> IntervalsDisplay.from_table(table).models
    ['svm', 'guess']
    """

    def __init__(self, models, values, low, high, metric):
        self.models = models
        self.values = values
        self.low = low
        self.high = high
        self.metric = metric

    @classmethod
    def from_table(cls, table, metric="accuracy"):
        """Take one metric of a table.

        Parameters
        ----------
        table : pandas.DataFrame
            Of :func:`classic_cls.benchmark.intervals`.
        metric : str, default="accuracy"
            One of the table's; a model for which it is NaN is left out.

        Returns
        -------
        display : IntervalsDisplay

        Raises
        ------
        ValueError
            If the table has no such metric, or no number for it.
        """
        rows = table[table["metric"] == metric].dropna(subset="value").sort_values("value", ascending=False)
        if rows.empty:
            known = ", ".join(dict.fromkeys(table.dropna(subset="value")["metric"]))
            raise ValueError(f"metric={metric!r}; the table has numbers for {known}.")
        return cls(rows["model"].tolist(), *(rows[key].to_numpy() for key in ("value", "low", "high")), metric)

    def plot(self, ax=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            None makes a new figure.

        Returns
        -------
        display : IntervalsDisplay
        """
        self.ax_ = axes(ax, (6.4, 0.9 + 0.32 * len(self.models)))
        self.figure_ = self.ax_.figure
        places = range(len(self.models))
        bars = [self.values - self.low, self.high - self.values]
        self.ax_.errorbar(self.values, places, xerr=bars, fmt="o", capsize=3, markersize=5)
        self.ax_.set_yticks(places, self.models)
        self.ax_.set_ylim(len(self.models) - 0.5, -0.5)  # the best on top
        self.ax_.set_xlabel(self.metric.replace("_", " "))
        self.ax_.grid(axis="x", alpha=0.25)
        self.ax_.spines[["top", "right", "left"]].set_visible(False)
        self.ax_.tick_params(axis="y", length=0)
        return self
