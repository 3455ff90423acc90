"""The command ``classic-cls``."""

import argparse
import os
import sys

from . import __version__
from .commands.benchmark import add_benchmark
from .commands.common import UserError
from .commands.evaluate import add_evaluate
from .commands.fit import add_fit
from .commands.info import add_info
from .commands.predict import add_predict

_MAIN = """Classical image classification: strong, fast baselines without deep learning."""

_EXAMPLES = """\
examples:
  classic-cls benchmark                         all pipelines on digits, faces and textures
  classic-cls benchmark digits --pipelines hog-svm,color-forest
  classic-cls benchmark my_pictures --size 64 --json results.json
  classic-cls fit my_pictures -o model.skops    a model in a file
  classic-cls predict model.skops new_pictures  the classes of other pictures
  classic-cls evaluate model.skops more_pictures
  classic-cls pipelines
  classic-cls info
  classic-cls info model.skops                  what a saved model holds
"""


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; None takes those of the process.

    Returns
    -------
    status : int
        0, 1 if a pipeline failed, 2 for a wrong path or option, 3 if pictures were left out, 130 when interrupted,
        141 when nobody reads what is printed.
    """
    arguments = _parser().parse_args(argv)
    try:
        status = arguments.command(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or flushing at exit would complain
        return 141  # as a shell says of SIGPIPE
    except UserError as error:
        print(f"classic-cls: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("classic-cls: interrupted", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"classic-cls: error: {message} (see {self.prog} --help)\n")


def _parser():
    raw = argparse.RawDescriptionHelpFormatter
    parser = _Parser("classic-cls", description=_MAIN, epilog=_EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"classic-cls {__version__}")
    commands = parser.add_subparsers(title="commands", required=True)
    add_benchmark(commands)
    add_fit(commands)
    add_predict(commands)
    add_evaluate(commands)
    commands.add_parser("pipelines", help="list the pipelines").set_defaults(command=_pipelines)
    add_info(commands)
    return parser


def _pipelines(arguments):
    from .pipelines import PIPELINES

    for name, factory in PIPELINES.items():
        print(f"{name:<17}{factory.__doc__.strip().splitlines()[0]}")
    return 0
