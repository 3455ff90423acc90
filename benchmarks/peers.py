"""Our speed beside other libraries', on one core, in one process.

    python benchmarks/peers.py [--quick] [--json FILE] [--limits DIR] [--only NAME,...]

Each case of `peer_cases.py` first checks that we and the peer compute the same thing:

- ``hog``: the numbers of ``skimage.feature.hog`` to 1e-5, in colour for at least 97 % (rounding decides between
  channels equally strong); 9 orientations, cells of 8 x 8 pixels, blocks of 2 x 2 or 3 x 3 cells, L2-Hys.
- ``dense-sift``: step 4, bins of 4 pixels, beside ``cv2.SIFT_create().compute`` with keypoints at the same places and
  of the same bin width. OpenCV smooths the image first and weights pixels otherwise; on images smoothed alike the
  descriptors' mean cosine must exceed 0.95.
- ``rgb-histogram``, ``hsv-histogram``: joint histograms of 8 x 8 x 8 bins, the very counts of ``cv2.calcHist``.
- ``assign``: nearest of 1000 words for 20,000 descriptors, beside ``pairwise_distances_argmin``; equal but for ties.
- ``soft``, ``llc``: the 5 nearest of 256 words with their weights, for 3,000 descriptors, beside NumPy in float32
  (BLAS, argpartition, batched solve). 98 % of the weights must agree to 0.01; the others' words are nearly as far.
- ``vlad``, ``fisher``: one image of 3,000 dense SIFT descriptors (``fisher``: in 64 dimensions), beside NumPy in
  float32 or ``skimage.feature.fisher_vector``; equal to 0.01, where float32 in NumPy ends if a variance is small.
- ``patches``: triangle features of 60 RGB images of 32 x 32 pixels, 6 x 6 patches, 1,600 entries, beside NumPy in
  float32, image by image; equal to 1e-3. Here the limit is what BLAS takes for
  as many multiplications in a product of large matrices.
- ``bag``: bag of 256 visual words, one level, 200 images of 64 x 64 pixels, beside OpenCV's SIFT on the same grid,
  scikit-learn's k-means on as large a sample, argmin and bincount. MiniBatchKMeans is what one would take, KMeans with
  30 iterations learns words as good as ours. The words differ, so the similarities between images are compared: they
  must correlate above 0.8. As in ``dense-sift`` no descriptor is dropped for its low contrast, since OpenCV keeps all.
- ``resize``: 120 x 160 RGB to 64 x 64 floats, beside a loop over ``cv2.resize`` (equal but for its rounding to uint8)
  or ``skimage.transform.resize`` (another filter: a mean difference below 0.02).

Then the two take turns: ours, peer, ours, peer. Reported are the median CPU times per image (or descriptor), and the
median and quartiles of the ratios of neighbouring turns. Where a directory with limit studies is found (hand-written
kernels that show how fast this CPU can go), our speed is given as a fraction of theirs, timed in the same way.

Nothing is asserted about speed. The exit code is 1 if outputs disagree, else 0.
"""

import argparse
import contextlib
import datetime
import importlib
import json
import os
import pathlib
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import skimage
import sklearn
from peer_cases import CASES
from threadpoolctl import threadpool_limits

from classic_cls import _native

_LIMITS = pathlib.Path(__file__).parents[2] / "shared" / "limits"
_HEADINGS = ("case", "ours, µs", "peer", "peer, µs", "ratio (quartiles)", "fraction of limit")


def main():
    args = parse_arguments()
    use_one_core()
    limits = load_limits(args.limits)
    print(describe_machine(), flush=True)
    try:
        rows = [measure(name, limits, args.quick) for name in args.only]
    except AssertionError as error:
        sys.exit(str(error))
    print_table(rows)
    if limits is None:
        print("\nNo limit studies were found, so the last column is empty.")
    if args.json:
        write_json(rows, args.json)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few items, few turns: a check that all runs")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--limits", type=pathlib.Path, default=_LIMITS, metavar="DIR", help="where limits.py lies")
    parser.add_argument("--only", default=",".join(CASES), metavar="NAME,...", help=f"of {', '.join(CASES)}")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(CASES):
        parser.error(f"no case {', '.join(unknown)}; choose from {', '.join(CASES)}")
    return args


def use_one_core():
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    threadpool_limits(1)


def load_limits(directory):
    if not (directory / "limits.py").exists():
        return None
    sys.path.insert(0, str(directory))
    # What is compiled with -ffast-math makes the thread that loads it take denormal numbers for zeros: NumPy would then
    # be faster here than elsewhere, up to tenfold.
    with ThreadPoolExecutor(1) as another:
        return another.submit(importlib.import_module, "limits").result()


def describe_machine():
    """Return a line on the CPU and one on the software."""
    versions = f"OpenCV {cv2.__version__}, scikit-image {skimage.__version__}, scikit-learn {sklearn.__version__}"
    return (
        f"{cpu_model()}, {os.cpu_count()} cores, one used; kernel body {_native.body}; {datetime.date.today()}\n"
        f"Python {platform.python_version()}, NumPy {np.__version__}, {versions}\n"
    )


def cpu_model():
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def measure(name, limits, quick):
    """Time one case and return its row."""
    print(name, end="... ", file=sys.stderr, flush=True)
    case = CASES[name](limits, 5 if quick else 1)
    seconds = 0.2 if quick else 5
    ours, theirs = take_turns(name, case.ours, case.peer, seconds)
    row = {"case": name, "items": case.items, "turns": len(ours), "peer": case.peer.name}
    row |= {"ours_us": per_item(ours, case), "peer_us": per_item(theirs, case)}
    row |= {"ratio": quartiles(theirs / ours), "fraction_of_limit": None}
    if case.limit:
        ours, limit = take_turns(name, case.ours, case.limit, seconds)
        row |= {"fraction_of_limit": quartiles(limit / ours)}
    return row


def take_turns(name, ours, rival, seconds):
    """Check the outputs, then time both in turn, from 3 to 200 times; return two arrays of seconds."""
    try:
        rival.check(ours(), rival.run())
    except AssertionError as error:
        raise AssertionError(f"{name}: our output and that of {rival.name} disagree.\n{error}") from error
    turns = [(stopwatch(ours), stopwatch(rival.run))]
    n_turns = int(np.clip(seconds / sum(turns[0]), 3, 200))
    turns += [(stopwatch(ours), stopwatch(rival.run)) for _ in range(n_turns - 1)]
    return np.transpose(turns)


def stopwatch(function):
    """Return the CPU seconds of a call: all run in one thread, and other programs' turns on the core don't count."""
    start = time.process_time()
    function()
    return time.process_time() - start


def per_item(seconds, case):
    return float(np.median(seconds)) / case.items * 1e6


def quartiles(ratios):
    """Return the lower quartile, the median and the upper quartile."""
    return np.percentile(ratios, [25, 50, 75]).tolist()


def print_table(rows):
    """Print an aligned Markdown table."""
    cells = [_HEADINGS, *map(format_row, rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADINGS))]
    cells.insert(1, ["-" * width for width in widths])
    for line in cells:
        print("|", " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)), "|")


def format_row(row):
    times = digits(row["ours_us"]), row["peer"], digits(row["peer_us"])
    return row["case"], *times, spread(row["ratio"]), spread(row["fraction_of_limit"])


def spread(values):
    if values is None:
        return "-"
    low, median, high = map(digits, values)
    return f"{median} ({low} to {high})"


def digits(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def write_json(rows, path):
    """Write beside `path`, then replace it, so that no half-written file is ever there."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(rows, indent=2) + "\n")
    os.replace(beside, path)


if __name__ == "__main__":
    main()
