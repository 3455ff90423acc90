"""``classic-cls benchmark``: pipelines compared on data sets, and with models from elsewhere."""

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

from .common import UserError, announce, check_output, jobs, mendable, names, positive, seed

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

_EXAMPLES = """\
examples:
  classic-cls benchmark
  classic-cls benchmark textures data/textures --pipelines hog-svm,bovw-svm
  classic-cls benchmark my_pictures --size 64 --json results.json
  classic-cls benchmark digits --against cnn=cnn.npz --report report.html

exit status: 0, or 1 if a pipeline failed, 2 for a wrong path or option, 130 when interrupted
"""


def add_benchmark(commands):
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "benchmark",
        help="compare pipelines on data sets",
        description=_BENCHMARK,
        epilog=_EXAMPLES,
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


def _named_file(text):
    name, _, file = text.partition("=")
    if not name or not file:
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=FILE, such as cnn=cnn.npz")
    return name, file


def _benchmark(arguments):
    from rich.console import Console

    from ..benchmark.terminal import print_tables

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
    from ..benchmark import BenchmarkResult, run
    from .progress import steps

    options = {"random_state": arguments.seed, "n_jobs": arguments.n_jobs, "corrupted": arguments.corrupted}
    options["against"] = dict(arguments.against)
    results = []
    for dataset in datasets:
        say = partial(announce, dataset.name, len(dataset.train))
        with mendable(), steps(dataset.name) as progress:
            results.append(run(names, dataset, progress=progress, announce=say, **options))
    return BenchmarkResult([r for result in results for r in result.records], [e for r in results for e in r.evidence])


def _report(result, path):
    from ..benchmark.statistics import sentence

    for evidence in result.evidence:
        for comparison in evidence.findings:
            print(f"{evidence.name}: {sentence(comparison)}.")
        print(f"{evidence.name}: {evidence.leaks.summary()}")
    command = shlex.join(["classic-cls", *sys.argv[1:]])
    _write("report", partial(result.report, command=command), path)


def _checked_input(arguments):
    """Load everything before anything runs, so that a wrong path costs no one an hour."""
    from ..benchmark.runner import check_names
    from ..datasets import load_dataset

    if arguments.against and len(arguments.data) > 1:
        raise UserError("--against is for one data set, of whose test images the file speaks; name one DATA.")
    with mendable():
        names = check_names(arguments.pipelines)
        return names, [load_dataset(data, size=arguments.size, random_state=arguments.seed) for data in arguments.data]


def _write(option, write, path):
    try:
        write(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--{option} {path} cannot be written: {error}") from error
