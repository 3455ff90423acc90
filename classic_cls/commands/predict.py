"""``classic-cls predict``: the classes of pictures, as lines, CSV or JSON."""

import argparse
import csv
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from .common import SkippedPictures, UserError, check_output, mendable, names, new_text

_PREDICT = """\
Tell the classes of pictures.

MODEL is a file of `classic-cls fit` (or a saved pipeline that starts with ReadImages). PATHS are
pictures, folders that are searched for pictures with all folders in them, or - for paths on
stdin, one on a line. Two batches of pictures are in memory at a time, and the lines of one appear
as soon as they are known.

A line is <path> TAB <class>, with --proba TAB <its probability>. Paths with tabs or line feeds
need --csv or --json:

  --csv    the columns path, label; with --proba one for each class, proba_<class>;
           with --errors skip at last error, why there is no label
  --json   one object on each line: {"path": ..., "label": ...}; with --proba
           "proba": {<class>: ...}; {"path": ..., "error": ...} for a picture that was left out

With --proba the class is the most probable one.
"""

_EXAMPLES = """\
examples:
  classic-cls predict model.skops a.jpg b.jpg
  classic-cls predict model.skops holidays --csv --proba -o holidays.csv
  find . -name '*.jpg' | classic-cls predict model.skops - --errors skip

exit status: 0, or 2 for a wrong path or option, 3 if pictures were left out, 130 when interrupted
"""


def add_predict(commands):
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "predict",
        help="tell the classes of pictures",
        description=_PREDICT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(parser)
    parser.add_argument("paths", metavar="PATHS", nargs="+", help="pictures, folders, or -")
    formats = parser.add_mutually_exclusive_group()
    formats.add_argument("--csv", dest="form", action="store_const", const=_Csv, help="as a table")
    formats.add_argument("--json", dest="form", action="store_const", const=_Json, help="as JSON lines")
    parser.add_argument("--proba", action="store_true", help="the probabilities of the classes too")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="write to FILE, not to stdout")
    parser.set_defaults(command=_predict, form=_Lines)


def add_model(parser):
    """Add what `predict` and `evaluate` want to know of a model and of what cannot be read."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a file of classic-cls fit")
    parser.add_argument(
        "--errors",
        choices=("raise", "skip"),
        default="raise",
        help="what a picture does that cannot be read: stop, or be left out and named (default: %(default)s)",
    )
    parser.add_argument(
        "--trust",
        metavar="A,B",
        type=names,
        default=[],
        help="types that the model may hold though a forged file could do harm with them, such as a forest's; "
        "what is needed is said",
    )


def _predict(arguments):
    from .saved_model import load_saved_model

    check_output("-o", arguments.output)
    with mendable():
        _check_paths(arguments.paths, arguments.errors)
        model = load_saved_model(arguments.model, arguments.trust)
        model.check_reads()
        if arguments.proba:
            model.check_probabilities()
        n_pictures, skipped = _write_all(model, arguments)
    if n_pictures == 0:
        raise UserError("There are no paths on stdin; expected one on each line.")
    return skipped.report(n_pictures, "")


def _check_paths(paths, errors):
    """Say what is wrong with paths before a model is loaded."""
    from ..datasets import suffixes

    for path in paths:
        if path == "-":
            continue
        if errors == "raise" and not os.path.exists(path):
            raise UserError(f"There is no picture or folder {path!r}.")
        if os.path.isdir(path) and next(_pictures_below(path), None) is None:
            raise UserError(f"The folder {path!r} has no pictures ({suffixes()}).")


def _write_all(model, arguments):
    from .progress import counted

    n_pictures, skipped = 0, SkippedPictures()
    on_terminal = arguments.output is None and sys.stdout.isatty()  # the lines themselves show how far it is
    total = None if "-" in arguments.paths or on_terminal else sum(1 for _ in _pictures(arguments.paths))
    with _output(arguments.output) as file, counted("predicting", total, shown=not on_terminal) as advance:
        table = arguments.form(file, model.classes, arguments)
        ahead = "-" not in arguments.paths  # who types paths, or finds them one by one, waits for each answer
        for paths, kept, images, failed in model.read(_pictures(arguments.paths), arguments.errors, ahead):
            answers = dict(zip(kept.tolist(), _answers(model, images, arguments.proba), strict=True))
            table.write(_records(paths, answers, failed))
            file.flush()
            n_pictures += len(paths)
            skipped.add(failed)
            advance(len(paths))
    return n_pictures, skipped


def _pictures(paths):
    """Yield the pictures that paths, and those on stdin, stand for."""
    for path in paths:
        lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer) if path == "-" else [path]
        for line in filter(None, lines):
            yield from _pictures_below(line) if os.path.isdir(line) else [line]


def _pictures_below(folder):
    from ..datasets import is_picture

    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and is_picture(Path(root, name)):
                yield os.path.join(root, name)


def _output(path):
    return nullcontext(sys.stdout) if path is None else new_text(path)


def _answers(model, images, proba):
    """Return a dict with "label", and "proba" where asked for, for each image."""
    if len(images) == 0:
        return []
    if not proba:
        return [{"label": str(label)} for label in model.labels(images)]
    classes = model.classes.tolist()
    rows = model.classifier.predict_proba(images)
    found = [dict(zip(classes, map(float, row), strict=True)) for row in rows]
    return [{"label": max(row, key=row.get), "proba": row} for row in found]


def _records(paths, answers, skipped):
    """Yield the answers with their paths, and the reasons where there is none."""
    reasons = iter(skipped)
    for i, path in enumerate(paths):
        yield {"path": path} | (answers[i] if i in answers else {"error": next(reasons).reason})


class _Lines:
    def __init__(self, file, classes, arguments):
        self.file = file

    def write(self, records):
        for record in records:
            if "label" in record:
                proba = [f"{max(record['proba'].values()):.4f}"] if "proba" in record else []
                print(record["path"], record["label"], *proba, sep="\t", file=self.file)


class _Csv:
    def __init__(self, file, classes, arguments):
        probabilities = [f"proba_{name}" for name in classes] if arguments.proba else []
        columns = ["path", "label", *probabilities, *(["error"] if arguments.errors == "skip" else [])]
        self.table = csv.DictWriter(file, columns, lineterminator="\n")
        self.table.writeheader()

    def write(self, records):
        for record in records:
            proba = {f"proba_{name}": f"{value:.6g}" for name, value in record.pop("proba", {}).items()}
            self.table.writerow(record | proba)


class _Json:
    def __init__(self, file, classes, arguments):
        self.file = file

    def write(self, records):
        for record in records:
            print(json.dumps(record), file=self.file)
