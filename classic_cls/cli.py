"""The command ``classic-cls``."""

import argparse
import importlib
import os
import platform
import shlex
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from . import __version__
from .commands.common import UserError, check_output, jobs, names, positive, seed
from .commands.evaluate import add_evaluate
from .commands.fit import add_fit
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

_BENCHMARK = """\
Fit pipelines on each data set's training images and score them on its test images.

DATA is a name (digits, faces, textures), a folder of pictures (<class>/<picture>, or
train|test/<class>/<picture>), or an .npz file with X_train, y_train, X_test and y_test.

Two floors always run: "majority" answers with the most frequent class, "pixels-svm" is a
linear SVM on pixels. A pipeline that fails is reported; the others still run.

--against compares with a model from elsewhere, say a deep one: an .npz or .csv file of what
it said of the test images (see classic_cls.benchmark.read_predictions), or an .onnx file.
--report writes a page on what was found: differences and how sure they are, images that
occur twice, costs, and where the models fail.
"""

_BENCHMARK_EXAMPLES = """\
examples:
  classic-cls benchmark
  classic-cls benchmark textures data/textures --pipelines hog-svm,bovw-svm
  classic-cls benchmark my_pictures --size 64 --json results.json
  classic-cls benchmark digits --against cnn=cnn.npz --report report.html

exit status: 0, or 1 if a pipeline failed, 2 for a wrong path or option, 130 when interrupted
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
    _add_benchmark(commands)
    add_fit(commands)
    add_predict(commands)
    add_evaluate(commands)
    commands.add_parser("pipelines", help="list the pipelines").set_defaults(command=_pipelines)
    _add_info(commands)
    return parser


def _add_benchmark(commands):
    parser = commands.add_parser(
        "benchmark",
        help="compare pipelines on data sets",
        description=_BENCHMARK,
        epilog=_BENCHMARK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = ["digits", "faces", "textures"]
    parser.add_argument("data", metavar="DATA", nargs="*", default=default, help=f"default: {' '.join(default)}")
    parser.add_argument("--pipelines", metavar="A,B", type=names, help="only these (see classic-cls pipelines)")
    parser.add_argument(
        "--against", metavar="NAME=FILE", type=_named_file, action="append", default=[], help="a model from elsewhere"
    )
    parser.add_argument("--corrupted", action="store_true", help="also score on noisy, blurred, turned... test images")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write all numbers to FILE")
    parser.add_argument("--report", metavar="FILE", type=Path, help="also write a web page to FILE")
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="random seed (default: 0)")
    parser.add_argument("--n-jobs", metavar="N", type=jobs, default=-1, help="threads (default: one per core)")
    parser.add_argument("--size", metavar="N", type=positive, help="resize the pictures of folders to N x N")
    parser.set_defaults(command=_benchmark)


def _add_info(commands):
    parser = commands.add_parser("info", help="show versions, processor and GPU, or what a saved model holds")
    parser.add_argument("model", metavar="MODEL", nargs="?", type=Path, help="a file that classic_cls.save wrote")
    parser.set_defaults(command=_info)


def _named_file(text):
    name, _, file = text.partition("=")
    if not name or not file:
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=FILE, such as cnn=cnn.npz")
    return name, file


def _benchmark(arguments):
    from rich.console import Console

    from .benchmark.terminal import print_tables

    for option in ("json", "report"):
        check_output(f"--{option}", getattr(arguments, option))
    names, datasets = _checked_input(arguments)
    result = _run_all(names, datasets, arguments)
    if arguments.json:
        _write("json", result.to_json, arguments.json)
    print_tables(result.records, Console(markup=False, emoji=False, highlight=False))
    if arguments.report:
        _report(result, arguments.report)
    if result.failed and any(isinstance(dataset.images, list) for dataset in datasets):
        print("classic-cls: there are pictures of different sizes; --size N makes them equal", file=sys.stderr)
    return 1 if result.failed else 0


def _run_all(names, datasets, arguments):
    from .benchmark import BenchmarkResult, run

    options = {"random_state": arguments.seed, "n_jobs": arguments.n_jobs, "corrupted": arguments.corrupted}
    options["against"] = dict(arguments.against)
    results = []
    with _progress() as progress:
        for dataset in datasets:
            announce = partial(_announce, dataset)
            try:
                results.append(run(names, dataset, progress=progress(dataset.name), announce=announce, **options))
            except (OSError, ValueError, ImportError) as error:
                raise UserError(error) from error
    return BenchmarkResult([r for result in results for r in result.records], [e for r in results for e in r.evidence])


def _report(result, path):
    from .benchmark.statistics import sentence

    for evidence in result.evidence:
        for comparison in evidence.findings:
            print(f"{evidence.name}: {sentence(comparison)}.")
        print(f"{evidence.name}: {evidence.leaks.summary()}")
    command = shlex.join(["classic-cls", *sys.argv[1:]])
    _write("report", partial(result.report, command=command), path)


def _announce(dataset, name, forecast):
    print(f"{dataset.name}: {name} will take {forecast} for {len(dataset.train):,} images", file=sys.stderr)


def _checked_input(arguments):
    """Load everything before anything runs, so that a wrong path costs no one an hour."""
    from .benchmark.runner import check_names
    from .datasets import load_dataset

    if arguments.against and len(arguments.data) > 1:
        raise UserError("--against is for one data set, of whose test images the file speaks; name one DATA.")
    try:
        names = check_names(arguments.pipelines)
        return names, [load_dataset(data, size=arguments.size, random_state=arguments.seed) for data in arguments.data]
    except (OSError, ValueError) as error:
        raise UserError(error) from error


def _write(option, write, path):
    try:
        write(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--{option} {path} cannot be written: {error}") from error


@contextmanager
def _progress():
    """Give a function that makes, for a data set's name, the callback that moves its bar (on a terminal)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def callback(dataset):
            task = bars.add_task(dataset, total=None)

            def move(done, total, name):
                bars.update(task, completed=done, total=total, description=f"{dataset}: {name or 'done'}")

            return move

        yield callback


def _pipelines(arguments):
    from .pipelines import PIPELINES

    for name, factory in PIPELINES.items():
        print(f"{name:<17}{factory.__doc__.strip().splitlines()[0]}")
    return 0


def _info(arguments):
    return _show_machine() if arguments.model is None else _show_model(arguments.model)


def _show_model(path):
    from .persistence import inspect_model

    try:
        print(inspect_model(path))
    except (OSError, ValueError) as error:
        raise UserError(error) from error
    return 0


def _show_machine():
    from joblib import cpu_count

    from . import _native

    lines = {"python": platform.python_version(), "classic_cls": __version__}
    modules = {"scikit-learn": "sklearn", "scikit-image": "skimage", "opencv": "cv2", "pillow": "PIL"}
    for name in ("numpy", "scipy", "scikit-learn", "scikit-image", "opencv", "pillow", "joblib"):
        lines[name] = importlib.import_module(modules.get(name, name)).__version__
    lines["processor"] = f"{platform.machine()}, {os.cpu_count()} CPUs, {cpu_count()} for this process"
    lines["kernels"] = f"{_native.body} (this processor runs {', '.join(_native.bodies())})"
    lines["GPU"] = _gpu()
    for name, value in lines.items():
        print(f"{name:<14}{value}")
    return 0


def _gpu():
    try:
        import cupy
    except ImportError as error:
        broken = f"CuPy cannot be imported ({' '.join(str(error).split())})"
        return f"none: {'CuPy is not installed' if error.name == 'cupy' else broken}"
    if not cupy.is_available():
        return f"none: CuPy {cupy.__version__} finds no CUDA device"
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return f"{name} (CuPy {cupy.__version__})"
