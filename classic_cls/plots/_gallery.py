"""Pictures in rows, with captions below and headings above."""

import textwrap
from dataclasses import dataclass

import numpy as np

from ._common import axes, one_image, show

_INCHES = 1.4  # a picture's side, which is the unit of length here
_LINE = 0.1  # of text
_GAP = 0.1
_HEADING = 0.3
_CAPTION_WIDTH = 22  # letters that fit below a picture


@dataclass(frozen=True)
class Section:
    """Pictures below a heading, each (height, width, channels), and a caption for each."""

    heading: str
    images: list
    captions: list


def picked(images, index, n_test):
    """Return the test images at `index`, checked, each (height, width, channels)."""
    if len(images) != n_test:
        raise ValueError(
            f"There are {len(images)} images and {n_test} labels; expected the test images, in the order of the "
            "target, such as dataset.images[dataset.test]."
        )
    return [one_image(images[i]) for i in index]


def spread(index, n):
    """Return `n` of the indices, evenly spread over them, or all if they are fewer."""
    return index if len(index) <= n else index[np.arange(n) * len(index) // n]


def draw_sections(ax, sections, n_columns):
    """Draw the sections one below the other, in `ax` or the axes of a new figure, and return the axes."""
    sections = [Section(s.heading, s.images, [_wrapped(caption) for caption in s.captions]) for s in sections]
    tops = np.cumsum([0, *(_height(section, n_columns) for section in sections)])
    width = min(n_columns, max(3, *(len(section.images) for section in sections))) * (1 + _GAP)
    ax = axes(ax, (_INCHES * width, _INCHES * tops[-1]))
    for section, top in zip(sections, tops[:-1], strict=True):
        _draw(ax, section, top, n_columns)
    ax.set(xlim=(0, width), ylim=(tops[-1], 0), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def _wrapped(caption):
    return "\n".join(textwrap.fill(line, _CAPTION_WIDTH) for line in caption.splitlines())


def _height(section, n_columns):
    return _HEADING + -(-len(section.images) // n_columns) * _row_height(section)


def _row_height(section):
    lines = max((caption.count("\n") + 1 for caption in section.captions), default=0)
    return 1 + _LINE * lines + _GAP


def _draw(ax, section, top, n_columns):
    ax.text(0, top + _HEADING / 2, section.heading, va="center", fontsize=9, fontweight="bold")
    for k, (image, caption) in enumerate(zip(section.images, section.captions, strict=True)):
        row, column = divmod(k, n_columns)
        left, upper = column * (1 + _GAP), top + _HEADING + row * _row_height(section)
        rows, cols = np.array(image.shape[:2]) / max(image.shape[:2])
        show(ax, image, extent=(left + (1 - cols) / 2, left + (1 + cols) / 2, upper + rows, upper))
        ax.text(left + 0.5, upper + rows + 0.02, caption, ha="center", va="top", fontsize=7, linespacing=1.15)
