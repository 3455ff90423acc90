"""Accuracy of the baselines on a data set's official test images: mean and spread over seeds, time, memory.

    python benchmarks/accuracy.py --data cifar10 [--data-dir DIR] [--preset balanced,...] [--seeds N]
        [--train-size K] [--json FILE]

``--data`` is a folder of pictures, an .npz file or a name that ``classic_cls.load_dataset`` knows, or ``cifar10`` or
``fashion_mnist``: these are looked for in ``--data-dir``, as the official archives (``cifar-10-batches-bin/``,
``train-images-idx3-ubyte.gz`` and the like) or as contact sheets (``<name>/meta.json`` tells how to cut them).

``--train-size K`` keeps the labels of K random training images of a class, another K for each seed. The descriptors
learn from the others, too, as they need no labels.

Every run is a process of its own, which fits, predicts and reports its peak memory. ``--json`` writes each down as it
ends, and runs that are in the file already are not run again. Choose parameters with
``--validation``, which holds out a tenth of the training images and does not touch the test images.
"""

import argparse
import gzip
import json
import multiprocessing
import os
import platform
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import train_test_split

from classic_cls import PIPELINES, load_dataset
from classic_cls._files import replacing


def load(name, data_dir):
    """Return X_train, y_train, X_test, y_test."""
    readers = {"cifar10": _cifar10, "fashion_mnist": _fashion_mnist}
    if (data_dir / name / "meta.json").exists():
        return (*_sheets(data_dir / name, "train"), *_sheets(data_dir / name, "test"))
    if name in readers:
        return readers[name](data_dir)
    data = load_dataset(name)
    X_train, X_test = ([data.images[i] for i in part] for part in (data.train, data.test))
    return X_train, data.target[data.train], X_test, data.target[data.test]


def _sheets(folder, part):
    meta = json.loads((folder / "meta.json").read_text())
    info = meta["parts"][part]
    height, width = info["shape"][:2]
    tiles = []
    Image.MAX_IMAGE_PIXELS = None
    for sheet in info["sheets"]:
        pixels = np.asarray(Image.open(folder / sheet).convert("RGB"))
        cut = pixels.reshape(-1, height, info["columns"], width, 3).swapaxes(1, 2).reshape(-1, height, width, 3)
        tiles.append(cut[: info["per_sheet"]])
    images = np.concatenate(tiles)[: info["n"]]
    return (images[..., 0] if meta["gray"] else images), np.load(folder / f"{part}-labels.npy").astype(int)


def _cifar10(data_dir):
    folder = data_dir / "cifar-10-batches-bin"

    def read(*names):
        rows = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])
        return np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), rows[:, 0].astype(int)

    return (*read(*(f"data_batch_{k}.bin" for k in range(1, 6))), *read("test_batch.bin"))


def _fashion_mnist(data_dir):
    def read(name, header, *shape):
        return np.frombuffer(gzip.decompress((data_dir / name).read_bytes()), np.uint8, offset=header).reshape(
            -1, *shape
        )

    return tuple(
        read(f"{part}-{kind}", *header)
        for part in ("train", "t10k")
        for kind, header in (("images-idx3-ubyte.gz", (16, 28, 28)), ("labels-idx1-ubyte.gz", (8,)))
    )


def run(job):
    """Fit and predict once; return the record."""
    X, y, X_test, y_test = load(job["data"], Path(job["data_dir"]))
    if job["validation"]:
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.1, random_state=0, stratify=y)
    labelled = _labelled(y, job["train_size"], job["seed"])
    model = PIPELINES[job["preset"]](n_jobs=-1, random_state=job["seed"])
    start = time.perf_counter()
    if job["train_size"] is None:
        model.fit(X, y)
    else:
        _fit_with_unlabelled(model, X, y, labelled)
    fitted = time.perf_counter()
    accuracy = float(np.mean(model.predict(X_test) == y_test))
    return {key: job[key] for key in ("data", "preset", "seed", "train_size", "validation")} | {
        "n_labelled": len(labelled),
        "n_test": len(X_test),
        "accuracy": accuracy,
        "fit_seconds": fitted - start,
        "predict_seconds": time.perf_counter() - fitted,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _labelled(y, train_size, seed):
    rng = np.random.default_rng(seed)
    if train_size is None:
        return np.arange(len(y))
    return np.concatenate([rng.permutation(np.flatnonzero(y == label))[:train_size] for label in np.unique(y)])


def _fit_with_unlabelled(model, X, y, labelled):
    """Learn descriptors from all images, whether flips help from the labelled ones, and classify those."""
    few = [X[i] for i in labelled]
    flips = clone(model[0]).fit(few, y[labelled]).flips_
    features = model[0].set_params(flips=bool(flips)).fit(X)
    model[-1].fit(features.transform(few), y[labelled])


def _table(records):
    import pandas as pd

    groups = pd.DataFrame(records).groupby(["data", "preset", "n_labelled", "validation"], sort=False)
    return groups.agg(
        seeds=("seed", "count"),
        accuracy=("accuracy", "mean"),
        spread=("accuracy", "std"),
        fit_seconds=("fit_seconds", "mean"),
        predict_seconds=("predict_seconds", "mean"),
        slowest=("fit_seconds", "max"),
        peak_gib=("peak_gib", "max"),
    ).reset_index()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="NAME|PATH", required=True)
    parser.add_argument("--data-dir", metavar="DIR", type=Path, default=Path("data"))
    parser.add_argument("--preset", metavar="A,B", default="fast,balanced,best", help="or any of PIPELINES")
    parser.add_argument("--seeds", metavar="N", type=int, default=3)
    parser.add_argument("--train-size", metavar="K", type=int, help="labels per class")
    parser.add_argument("--validation", action="store_true", help="hold out training images, leave test images alone")
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = vars(parser.parse_args())
    presets, seeds, output = options.pop("preset").split(","), range(options.pop("seeds")), options.pop("json")
    unknown = [preset for preset in presets if preset not in PIPELINES]
    if unknown:
        parser.error(f"there is no preset {unknown[0]!r}; choose from {', '.join(PIPELINES)}")
    if output and not output.parent.is_dir():
        parser.error(f"--json {output}: there is no folder {str(output.parent)!r}")
    others = set(presets) - {"fast", "balanced", "best"}
    if options["train_size"] is not None and others:
        parser.error(f"--train-size is for the baselines, which learn from unlabelled images; not {min(others)!r}")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    earlier = json.loads(output.read_text()) if output and output.exists() else []
    records = []
    for job in [options | {"preset": preset, "seed": seed} for preset in presets for seed in seeds]:
        records.append(_find(earlier, job) or _run_alone(job))
        print(json.dumps(records[-1]), flush=True)
        if output:
            _write(output, earlier + [record for record in records if record not in earlier])
    print(_table(records).round(4).to_string(index=False))


def _find(records, job):
    """Return the record of a job, None if it has not been run."""
    same = ("data", "preset", "seed", "train_size", "validation")
    return next((record for record in records if all(record[key] == job[key] for key in same)), None)


def _run_alone(job):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, job).result()


def _write(path, records):
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
