"""``classic-cls fit``: from labelled pictures to a model in a file."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from .common import SkippedPictures, UserError, announce, check_output, jobs, mendable, positive, seed

_FIT = """\
Train a pipeline on labelled pictures, and save it to a file that `predict` and `evaluate` take.

DATA is a folder of pictures (<class>/<picture>, or train|test/<class>/<picture>), an .npz file
with X_train, y_train, X_test and y_test, or a name (digits, faces, textures).

The train part is learned; if there is a test part, the accuracy on it is printed and saved with
the model. A folder without train/ and test/ is learned whole.

--store DIR is for more pictures than fit into memory. Their features go to DIR, chunk by chunk; a
later call with the same arguments goes on where this one was interrupted. The steps before the
classifier learn from --max-images pictures, drawn at random: for balanced and best, which compare
with 8,000 and 16,000 images, the default is few. DIR can be deleted afterwards. Of pipelines whose
classifier alone learns (hog-svm, hog-color-svm, color-forest), a folder of more than 5,000 pictures
goes that way by itself, through a folder beside MODEL that is gone when the command ends.

In Python, classic_cls.load("model.skops").predict(paths) goes from file names to class names
(from images to class names where DATA was no folder).
"""

_EXAMPLES = """\
examples:
  classic-cls fit my_pictures -o model.skops
  classic-cls fit my_pictures -o model.skops --pipeline hog-svm --size 64
  classic-cls fit my_pictures -o model.skops --pipeline hog-svm --size 64 --store features
  classic-cls fit my_pictures -o model.skops --errors skip    what is left out: model.skipped.csv

exit status: 0, or 2 for a wrong path or option, 3 if pictures were left out (the model is
saved), 130 when interrupted
"""


def add_fit(commands):
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "fit",
        help="train a pipeline and save the model",
        description=_FIT,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", metavar="DATA", help="labelled pictures to learn")
    parser.add_argument("-o", "--output", metavar="MODEL", type=Path, required=True, help="file for the model")
    parser.add_argument(
        "--pipeline", metavar="NAME", default="fast", help="see classic-cls pipelines (default: %(default)s)"
    )
    parser.add_argument(
        "--size", metavar="N", type=positive, help="resize the pictures of a folder to N x N as they are read"
    )
    parser.add_argument(
        "--errors",
        choices=("raise", "skip"),
        default="raise",
        help="what a picture does that cannot be read: stop, or be left out and listed (default: %(default)s)",
    )
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="random seed (default: %(default)s)")
    parser.add_argument(
        "--n-jobs", metavar="N", type=jobs, default=-1, help="threads, of the saved model too (default: one per core)"
    )
    parser.add_argument(
        "--draft", action="store_true", help="with --size, let JPEG decoders shrink: faster, with other pixels"
    )
    parser.add_argument("--store", metavar="DIR", type=Path, help="folder for features, of pictures beyond memory")
    parser.add_argument(
        "--max-images",
        metavar="N",
        type=positive,
        default=5000,
        help="with --store, learn all but the classifier from so many (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="with --store, delete other features in DIR")
    parser.set_defaults(command=_fit)


def _fit(arguments):
    check_output("-o", arguments.output)
    if arguments.draft and arguments.size is None:
        raise UserError("--draft shrinks pictures to no less than --size N; give one.")
    pipeline = _pipeline(arguments.pipeline, arguments.n_jobs, arguments.seed)
    with mendable():
        model, data, seconds, scores = _fitted(pipeline, arguments)
        _save(model, data, scores, arguments)
    _report(arguments, seconds, scores)
    return _report_skipped(data, arguments)


def _pipeline(name, n_jobs, random_state):
    from sklearn.base import is_classifier

    from ..pipelines import PIPELINES

    if name not in PIPELINES:
        raise UserError(f"There is no pipeline {name!r}; choose from {', '.join(PIPELINES)}.")
    pipeline = PIPELINES[name](image_shape=None, n_jobs=n_jobs, random_state=random_state)
    if not is_classifier(pipeline):
        raise UserError(f"--pipeline {name} gives no classes, but clusters; expected a classifier, such as fast.")
    return pipeline


def _fitted(pipeline, arguments):
    """Return the model, what it has learned, the seconds that took, and the scores of the test part."""
    from .fit_files import fit_files, needs_store

    if arguments.store is not None:
        return fit_files(pipeline, arguments, arguments.store)
    if not needs_store(pipeline, arguments.data, arguments.size):
        return _fit_images(pipeline, arguments)
    with TemporaryDirectory(prefix=f".{arguments.output.stem}-features-", dir=arguments.output.parent) as folder:
        return fit_files(pipeline, arguments, Path(folder))


def _fit_images(pipeline, arguments):
    from .training_data import read_training_data

    data = read_training_data(arguments.data, arguments.size, arguments.errors, arguments.n_jobs, arguments.draft)
    print(f"{data.name}: {data.described}", flush=True)
    _announce(arguments.pipeline, pipeline, data)
    seconds = _fit_timed(arguments.pipeline, pipeline, data)
    scores = _scores(pipeline, data)
    return _with_reader(pipeline, data.reader), data, seconds, scores


def _announce(name, pipeline, data):
    from ..benchmark.forecast import long_fit

    expected = long_fit(pipeline, data.X_train, data.y_train)
    if expected:
        announce(data.name, len(data.y_train), name, expected)


def _fit_timed(name, pipeline, data):
    from .progress import waiting

    start = perf_counter()
    with waiting(f"fitting {name}"):
        pipeline.fit(data.X_train, data.y_train)
    return perf_counter() - start


def _scores(pipeline, data):
    """Score the test part, if there is one."""
    from ..benchmark.scores import classification_scores
    from .progress import waiting

    if not len(data.y_test):
        return {}
    with waiting("testing"):
        predicted = pipeline.predict(data.X_test)
    return {"n_test": len(data.y_test)} | classification_scores(data.y_test, predicted)


def _with_reader(pipeline, reader):
    from sklearn.pipeline import Pipeline

    return Pipeline([("read", reader), *pipeline.steps]) if reader else pipeline


def _save(model, data, scores, arguments):
    from ..features.read_images import write_skipped
    from ..persistence import save

    about = {"pipeline": arguments.pipeline, "seed": arguments.seed} | data.about | scores
    save(model, arguments.output, metadata=about)
    if arguments.errors == "skip":  # without any, too: what an earlier fit has left there is no longer true
        write_skipped(_skipped_path(arguments.output), data.skipped)


def _skipped_path(model_path):
    return model_path.with_name(f"{model_path.stem}.skipped.csv")


def _report(arguments, seconds, scores):
    from ..persistence import inspect_model

    print(f"{arguments.pipeline}: fitted in {seconds:.1f} s")
    if scores:
        interval = f"95 % interval {scores['accuracy_low']:.3f}-{scores['accuracy_high']:.3f}"
        print(f"accuracy {scores['accuracy']:.3f} ({interval}) on {scores['n_test']:,} test images")
    info = inspect_model(arguments.output)
    trust = f"; to use it takes --trust {','.join(info.untrusted)}" if info.untrusted else ""
    print(f"saved to {info.path} ({info.size / 1e6:,.1f} MB){trust}")


def _report_skipped(data, arguments):
    skipped = SkippedPictures()
    skipped.add(data.skipped)
    n_pictures = len(data.y_train) + len(data.y_test) + len(data.skipped)
    return skipped.report(n_pictures, f", see {_skipped_path(arguments.output)}")
