"""``classic-cls evaluate``: how often a saved model is right."""

import argparse
import json
from pathlib import Path

from .common import SkippedPictures, UserError, check_output, mendable, new_text
from .predict import add_model

_EVALUATE = """\
Tell how often a model is right on labelled pictures.

DATA is what `classic-cls fit` takes. Its test part counts, or all pictures of a folder without
train/ and test/. Classes have to be those of the model; not all need to occur.

Printed are the accuracy with its 95 % Wilson interval, the mean over the classes of the share
found (balanced accuracy), and that share for each class (recall).
"""

_EXAMPLES = """\
examples:
  classic-cls evaluate model.skops my_pictures
  classic-cls evaluate model.skops new_pictures --json scores.json --errors skip

exit status: 0, or 2 for a wrong path or option, 3 if pictures were left out, 130 when interrupted
"""

_BATCH = 256


def add_evaluate(commands):
    """Add the command to the parser's."""
    parser = commands.add_parser(
        "evaluate",
        help="score a model on labelled pictures",
        description=_EVALUATE,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(parser)
    parser.add_argument("data", metavar="DATA", help="labelled pictures")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the numbers to FILE")
    parser.set_defaults(command=_evaluate)


def _evaluate(arguments):
    from .saved_model import load_saved_model

    check_output("--json", arguments.json)
    with mendable():
        images, labels = _test_part(arguments.data)
        model = load_saved_model(arguments.model, arguments.trust)
        _check_known(labels, model, arguments)
        predict = predict_files if isinstance(images, list) else _predict_images
        kept, predicted, failed = predict(model, images, arguments.errors)
        scores = _scores(labels[kept], predicted, failed, arguments)
        if arguments.json:
            with new_text(arguments.json) as file:
                json.dump(scores, file, indent=2, allow_nan=False)
                file.write("\n")
    _print(scores)
    skipped = SkippedPictures()
    skipped.add(failed)
    return skipped.report(len(labels), f", see {arguments.json}" if arguments.json else "")


def _test_part(data):
    """Return the files, or the array of images, to test on, and an array of their classes."""
    from ..datasets import EMBEDDED, list_image_folder, load_dataset, suffixes
    from .training_data import labelled_files

    if data in EMBEDDED or not Path(data).is_dir():
        dataset = load_dataset(data)
        return dataset.images[dataset.test], dataset.target_names[dataset.target[dataset.test]]
    parts = list_image_folder(data)
    files, labels = labelled_files([parts.get("test", parts.get(""))])
    if not files:
        raise UserError(f"{data} has no pictures ({suffixes()}) in subfolders of classes.")
    return files, labels


def _check_known(labels, model, arguments):
    known = model.classes.tolist()
    unknown = sorted(set(labels.tolist()).difference(known))
    if unknown:
        raise UserError(
            f"{arguments.data} has the classes {', '.join(unknown)}, which {arguments.model} has not learned; it knows "
            f"{', '.join(known)}. Rename them, or take them out."
        )


def predict_files(model, files, errors, description="predicting"):
    """Return which files could be read, the classes of those, and the others; a bar says how far it is."""
    import numpy as np

    from .progress import counted

    model.check_reads()
    kept, predicted, skipped, n_done = [], [], [], 0
    with counted(description, len(files)) as advance:
        for paths, indices, images, failed in model.read(files, errors):
            if len(images):
                kept.append(n_done + indices)
                predicted.append(model.labels(images))
            skipped += failed
            n_done += len(paths)
            advance(len(paths))
    if not kept:
        raise UserError(f"None of the pictures can be read; the first, {skipped[0].path}, {skipped[0].reason}")
    return np.concatenate(kept), np.concatenate(predicted), skipped


def _predict_images(model, images, errors):
    import numpy as np
    from sklearn.utils import gen_batches

    predicted = [model.labels(images[batch]) for batch in gen_batches(len(images), _BATCH)]
    return np.arange(len(images)), np.concatenate(predicted), []


def _scores(labels, predicted, skipped, arguments):
    import numpy as np
    from sklearn.metrics import recall_score

    from ..benchmark.scores import classification_scores

    present, counts = np.unique(labels, return_counts=True)
    recalls = recall_score(labels, predicted, labels=present, average=None, zero_division=0)
    return {
        "model": str(arguments.model),
        "data": arguments.data,
        "n_images": len(labels),
        **classification_scores(labels, predicted),
        "recall": dict(zip(present.tolist(), recalls.tolist(), strict=True)),
        "n_images_per_class": dict(zip(present.tolist(), counts.tolist(), strict=True)),
        "skipped": [{"path": picture.path, "reason": picture.reason} for picture in skipped],
    }


def _print(scores):
    width = max(map(len, ["balanced accuracy", *scores["recall"]])) + 2
    interval = f"95 % interval {scores['accuracy_low']:.3f}-{scores['accuracy_high']:.3f}"
    print(f"{scores['model']} on {scores['data']}: {scores['n_images']:,} images")
    print(f"{'accuracy':<{width}}{scores['accuracy']:.3f}  {interval}")
    print(f"{'balanced accuracy':<{width}}{scores['balanced_accuracy']:.3f}")
    print(f"\n{'class':<{width}}recall  images")
    for name, recall in scores["recall"].items():
        print(f"{name:<{width}}{recall:>6.3f}{scores['n_images_per_class'][name]:>8,}")
