"""Shows the images on which two models disagree, and what each said."""

from .._images import positive_int
from ..benchmark._labels import class_names
from ..benchmark.failures import disagreements
from ._gallery import Section, draw_sections, picked, spread


class DisagreementsDisplay:
    """Test images on which two models disagree: those that only one gets right, and those that both get wrong.

    Use :meth:`from_predictions` to make one.

    Parameters
    ----------
    sections : list of (str, list of ndarray, list of str)
        Heading, pictures (height, width, channels) and captions, for each kind of disagreement.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of `ax_`.

    See Also
    --------
    classic_cls.benchmark.failures.disagreements : The indices of the images.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from types import SimpleNamespace as Predictions
    >>> from classic_cls import DisagreementsDisplay, load_digits
    >>> digits = load_digits()
    >>> one, other = Predictions(labels=[0, 1, 7], classes=None), Predictions(labels=[6, 1, 2], classes=None)
    >>> said = {"one": one, "other": other}
    >>> display = DisagreementsDisplay.from_predictions(digits.images[:3], digits.target[:3], said).plot()
    >>> [heading for heading, images, captions in display.sections]
    ['only one is right: 1 of 3', 'only other is right: 1 of 3', 'both are wrong, and differ: 0 of 3']
    """

    def __init__(self, sections):
        self.sections = sections

    @classmethod
    def from_predictions(cls, images, target, predictions, *, n=8, target_names=None):
        """Choose images on which two models disagree.

        Parameters
        ----------
        images : array of shape (n_test, height, width) or (n_test, height, width, 3), or list of images
            The test images, in the order of `target`; uint8, or float in [0, 1].
        target : array of shape (n_test,)
            The true labels.
        predictions : dict of str to Predictions
            What each of the two models said.
        n : int, default=8
            Number of images of each kind, at most; they are evenly spread over the test.
        target_names : array of str of shape (n_labels,), default=None
            Names to show for the labels, which are then indices into them.

        Returns
        -------
        display : DisagreementsDisplay

        Raises
        ------
        ValueError
            If there are not two models, or not as many images as labels, or as in :func:`.failures.disagreements`.
        """
        n = positive_int(n, "n")
        if len(predictions) != 2:
            raise ValueError(f"predictions has {len(predictions)} models ({', '.join(predictions)}); expected two.")
        a, b = predictions
        found = disagreements(target, *predictions.values())
        kinds = {f"only {a} is right": found.only_a, f"only {b} is right": found.only_b}
        kinds["both are wrong, and differ"] = found.both_wrong
        labels = {"is": target} | {f"{name}:": prediction.labels for name, prediction in predictions.items()}
        names = {who: class_names(label, target_names) for who, label in labels.items()}
        return cls([_section(kind, index, n, images, names) for kind, index in kinds.items()])

    def plot(self, ax=None, *, n_columns=8):
        """Draw each kind of disagreement as rows of images.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure of the size that the captions need.
        n_columns : int, default=8
            Images in a row.

        Returns
        -------
        self : DisagreementsDisplay
        """
        sections = [Section(*section) for section in self.sections]
        self.ax_ = draw_sections(ax, sections, positive_int(n_columns, "n_columns"))
        self.figure_ = self.ax_.figure
        return self


def _section(kind, index, n, images, names):
    shown = spread(index, n)
    n_test = len(names["is"])
    captions = ["\n".join(f"{who} {name[i]}" for who, name in names.items()) for i in shown]
    return f"{kind}: {len(index):,} of {n_test:,}", picked(images, shown, n_test), captions
