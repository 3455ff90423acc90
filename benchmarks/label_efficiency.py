"""How many labels a net needs to pull ahead of the classical baselines: accuracy against labels per class.

    python benchmarks/label_efficiency.py --data cifar10 [--data-dir DIR] [--models fast,hog-svm,small-cnn,small-resnet]
        [--labels 10,20,50,100,200,500,1000] [--seeds N] [--json FILE] [--figure FILE.png]

``--data`` and ``--data-dir`` are those of ``benchmarks/accuracy.py``. ``--models`` are names of
``classic_cls.PIPELINES``, or the nets ``small-cnn`` and ``small-resnet``, which need the extra ``deep``.

The models are fitted one after another, with all cores, to the labelled images alone, and scored on all test images.
``--json`` is written after every fit; started again with the same file, the script goes on where it was stopped. At the
end come the table, a sentence for each net and each classical model (each two models, where there is only one kind)
and the figure.
"""

import argparse
import itertools
import os
from functools import partial
from pathlib import Path

import numpy as np
from accuracy import load
from sklearn.utils import Bunch

import classic_cls
from classic_cls import PIPELINES
from classic_cls.benchmark import LabelEfficiency, crossing, label_efficiency
from classic_cls.benchmark.efficiency import SIZES

NETS = {"small-cnn": "make_small_cnn", "small-resnet": "make_small_resnet"}


def main(argv=None):
    """Run the script; return 0, or 1 if a fit failed."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        _check_files(options)
        models = {name: _model(name) for name in options.models}
        done = LabelEfficiency.from_json(options.json) if options.json and options.json.exists() else None
        result = label_efficiency(
            models,
            _dataset(options.data, options.data_dir),
            labels_per_class=options.labels,
            seeds=options.seeds,
            n_jobs=-1,
            progress=partial(_progress, options.json),
            done=done,
        )
    except (FileNotFoundError, ImportError, ValueError) as error:
        parser.error(str(error))
    _report(result, options)
    return 1 if result.failed else 0


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="NAME|PATH", required=True)
    parser.add_argument("--data-dir", metavar="DIR", type=Path, default=Path("data"))
    names = ["fast", "hog-svm", *NETS]
    parser.add_argument("--models", metavar="A,B", type=lambda text: text.split(","), default=names)
    parser.add_argument("--labels", metavar="K,K", type=_numbers, default=SIZES, help="labels per class")
    parser.add_argument("--seeds", metavar="N", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument("--figure", metavar="FILE", type=Path)
    return parser


def _numbers(text):
    return [int(number) for number in text.split(",")]


def _check_files(options):
    for file in filter(None, (options.json, options.figure)):
        if not file.parent.is_dir():
            raise FileNotFoundError(f"there is no folder {str(file.parent)!r} for {file.name}")
    if options.figure and options.figure.suffix not in (".pdf", ".png", ".svg"):
        raise ValueError(f"--figure {options.figure}; expected a name that ends in .pdf, .png or .svg")


def _model(name):
    if name in NETS:
        return getattr(classic_cls, NETS[name])()
    if name not in PIPELINES:
        raise ValueError(f"there is no model {name!r}; choose from {', '.join([*PIPELINES, *NETS])}")
    return name


def _dataset(name, data_dir):
    X, y, X_test, y_test = load(name, data_dir)
    images = [*X, *X_test]
    same_size = len({image.shape for image in images}) == 1
    return Bunch(
        name=name,
        images=np.stack(images) if same_size else images,
        target=np.concatenate([y, y_test]),
        target_names=np.unique(y).astype(str),
        train=np.arange(len(X)),
        test=np.arange(len(X), len(images)),
    )


def _progress(file, result, total, name):
    """Save what there is, and say what came and what comes."""
    if file:
        result.to_json(file)
    if result.records:
        last = result.records[-1]
        print(
            last["error"] or f"    accuracy {last['accuracy']:.4f}, fitted in {last['fit_seconds']:.1f} s", flush=True
        )
    if name:
        print(f"{len(result.records) + 1} of {total}: {name}", flush=True)


def _report(result, options):
    print(result.table.round(4).to_string(index=False))
    for record in result.failed:
        print(f"{record['model']}, {record['labels_per_class']} labels, seed {record['seed']}: {record['error']}")
    crossings = [crossing(result, a, b) for a, b in _pairs(result)]
    for found in crossings:
        print(found.sentence)
    if options.figure:
        _draw(result, crossings, options.figure)


def _pairs(result):
    names = result.table["model"].unique()
    nets, others = ([name for name in names if (name in NETS) == is_net] for is_net in (True, False))
    return itertools.product(others, nets) if nets and others else itertools.combinations(names, 2)


def _draw(result, crossings, file):
    import matplotlib

    matplotlib.use("Agg")
    display = classic_cls.LabelEfficiencyDisplay.from_result(result, crossings=crossings).plot()
    unfinished = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        display.figure_.savefig(unfinished, format=file.suffix[1:], dpi=150)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


if __name__ == "__main__":
    raise SystemExit(main())
