"""Matplotlib figures as pictures inside a web page, which take on the page's colours."""

import io
import re
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple

_INK, _PAPER = "#010203", "#fdfcfb"  # stand for the colours of the page, and occur nowhere else
_STYLE = {
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.facecolor": _PAPER,
    "legend.edgecolor": "none",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
    "svg.fonttype": "none",  # text stays text
}
_numbers = count()


class Picture(NamedTuple):
    """An inline SVG element and what stands below it."""

    svg: str
    caption: str


@contextmanager
def page_style():
    """Draw what is drawn inside, and no other figure, in colours that :func:`picture` can exchange."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def picture(display, caption):
    """Draw a Display as a picture of the page.

    Parameters
    ----------
    display : Display
        Not plotted yet, or plotted within :func:`page_style`.
    caption : str
        What it shows; also for those who don't see it.

    Returns
    -------
    picture : Picture
    """
    import matplotlib.pyplot as plt
    from markupsafe import Markup, escape

    figure = (display if hasattr(display, "figure_") else display.plot()).figure_
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    element = text.getvalue()[text.getvalue().index("<svg") :].strip()
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = _own_names(element, f"f{next(_numbers)}-").replace(_INK, "currentColor").replace(_PAPER, "var(--card)")
    return Picture(Markup(element.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)), caption)


def _own_names(element, prefix):
    """Make an element's ids differ from those of the other figures on the page."""
    element = re.sub(r'(\bid=")', rf"\1{prefix}", element)
    return re.sub(r'(url\(#|href="#)', rf"\1{prefix}", element)
