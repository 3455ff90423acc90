"""Bars on stderr, where that is a terminal."""

from contextlib import ExitStack, contextmanager
from functools import partial

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def counted(description, total=None, shown=True):
    """Show how many pictures are done, how many in a second, and the time left.

    Parameters
    ----------
    description : str
    total : int, default=None
        Number of pictures, if it is known.
    shown : bool, default=True
        False shows nothing, on a terminal neither.

    Returns
    -------
    bar : context manager
        Gives a function that takes the number of pictures that are done since the last call.
    """
    return _shown([BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()], description, total, shown)


def waiting(description):
    """Show that something goes on, and for how long, as `counted` does."""
    return _shown([SpinnerColumn(), TimeElapsedColumn()], description, None, True)


@contextmanager
def steps(description):
    """Show how many steps are done, which one goes on, and for how long.

    Parameters
    ----------
    description : str

    Returns
    -------
    bar : context manager
        Gives a function that takes the numbers of steps that are done and of all steps, and the next one's name.
    """
    with _bars([BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]) as bars:
        task = bars.add_task(description, total=None)

        def move(done, total, name):
            bars.update(task, completed=done, total=total, description=f"{description}: {name or 'done'}")

        yield move


@contextmanager
def stages():
    """Show one stage of a long task after the other.

    Yields
    ------
    show : callable
        Takes the stage's name, how many pictures are done, and how many there are; None where they aren't counted.
    """
    with ExitStack() as bar:
        last = advance = n_shown = None

        def show(stage, n_done, n):
            nonlocal last, advance, n_shown
            if stage != last:
                bar.close()
                advance = bar.enter_context(waiting(stage) if n is None else counted(stage, n))
                last, n_shown = stage, 0
            advance(n_done - n_shown)
            n_shown = n_done

        yield show


@contextmanager
def _shown(columns, description, total, shown):
    with _bars(columns, shown) as bars:
        yield partial(bars.advance, bars.add_task(description, total=total))


def _bars(columns, shown=True):
    console = Console(stderr=True)
    # Rich would otherwise send to stderr what is printed meanwhile, and a file would miss it.
    options = {"transient": True, "redirect_stdout": False, "disable": not (shown and console.is_terminal)}
    return Progress(TextColumn("{task.description}", markup=False), *columns, console=console, **options)


class _Rate(ProgressColumn):
    def render(self, task):
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")
