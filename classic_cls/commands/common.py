"""What commands share: errors that the user can mend, numbers on the command line, files written whole."""

import argparse
import os
import sys
from contextlib import contextmanager

from .._files import replacing

ALL_WELL, SKIPPED = 0, 3  # exit status
_SHOWN = 5  # skipped pictures that are named


class UserError(Exception):
    """What the user can mend; shown as one line."""


@contextmanager
def mendable():
    """Turn what files, values and missing extras may raise into a UserError."""
    try:
        yield
    except BrokenPipeError:  # nobody reads on, as in `| head`
        raise
    except MemoryError as error:
        raise UserError("The memory is exhausted; a smaller --size, or fewer pictures, take less.") from error
    except (OSError, ValueError, ImportError) as error:
        raise UserError(error) from error


def names(text):
    """Read names that are separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def seed(text):
    """Read a seed of NumPy."""
    return _whole(text, lambda value: 0 <= value < 2**32, "from 0 to 4294967295")


def jobs(text):
    """Read a number of threads, as joblib counts them."""
    return _whole(text, lambda value: value != 0, "1 or more, or -1 for all cores")


def positive(text):
    """Read a number of pixels."""
    return _whole(text, lambda value: value > 0, "1 or more")


def _whole(text, allows, expected):
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not allows(value):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number, {expected}")
    return value


def check_output(option, path):
    """Say what is wrong with a file to write before anything is done for it."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {str(path.parent)!r}.")
    if path.exists() and not path.is_file():
        raise UserError(f"{option} {path} is not a file; expected one to write or replace.")
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"{option} {path}: the folder {str(path.parent)!r} may not be written to.")


@contextmanager
def new_text(path):
    """Give a text file to write that takes the place of `path` in the end, or leaves no trace."""
    # File names need not be Unicode: their bytes are written as they are.
    options = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    with replacing(path) as unfinished, unfinished.open("w", **options) as file:
        yield file


class SkippedPictures:
    """How many pictures could not be read, and the first of them: however many there are, it stays small."""

    def __init__(self):
        self.count, self.first = 0, []

    def add(self, skipped):
        """Count some more."""
        self.count += len(skipped)
        self.first += skipped[: _SHOWN - len(self.first)]

    def report(self, n_pictures, where):
        """Name the first on stderr, say where the others are listed, and return the exit status."""
        if self.count == 0:
            return ALL_WELL
        warn(f"{self.count:,} of {n_pictures:,} pictures are left out{where}:")
        for picture in self.first:
            print(f"  {picture.path} {picture.reason}", file=sys.stderr)
        if self.count > len(self.first):
            print(f"  and {self.count - len(self.first):,} more", file=sys.stderr)
        return SKIPPED


def announce(data, n_images, pipeline, forecast):
    """Say on stderr what a long fit will take."""
    print(f"{data}: {pipeline} will take {forecast} for {n_images:,} images", file=sys.stderr)


def warn(text):
    """Print a line on stderr."""
    print(f"classic-cls: {text}", file=sys.stderr)
