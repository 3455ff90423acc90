"""The GPU's kernels beside the speed of its memory, and whole models on it beside the CPU's.

    python benchmarks/gpu.py [--data-dir DIR] [--quick] [--json FILE]

- **Kernels**: each descriptor on images that lie on the GPU, in batches that fill it: the median time of a call by CUDA
  events, the bytes that it must move at least (images in, features out, each once), and the speed that follows, as a
  share of what copying one large array to another reaches on this GPU. Beside it our CPU kernels on all cores, and a
  peer on one: scikit-image for HOG, OpenCV for histograms and (with keypoints at the same places) SIFT; where torch and
  kornia are installed, kornia's dense SIFT on the GPU. Before the clock starts the GPU's features are compared with the
  CPU's. Encoders are learned from a few images before.
- **Sending**: how fast images come from ordinary memory, by CuPy alone and by `ToDevice`, and HOG of images that are
  sent first, and of images that are sent part by part while it runs.
- **Models**: HOG and a linear SVM, and a bag of 1,000 visual words (dense SIFT) and a linear SVM, from images in the
  host's memory to labels there: images per second in ``predict`` and in ``fit``, with ``ToDevice`` and without. The
  images are CIFAR-10's, looked for in DIR as `accuracy.py` does, or crops of scikit-image's photographs of that size,
  whose classes are the photographs.

Nothing is asserted about speed. The exit code is 1 if features disagree, else 0; without a GPU it is 0, too, and the
output says why there is none.
"""

import argparse
import datetime
import pathlib
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import accuracy
import cv2
import numpy as np
import peer_cases
import skimage
from peers import cpu_model, write_json
from sklearn.pipeline import make_pipeline

from classic_cls import (
    HOG,
    VLAD,
    BagOfVisualWords,
    DenseSIFT,
    FisherVector,
    LinearSVC,
    ToDevice,
    _arrays,
    color_histogram,
    dense_sift,
    hog,
    patch_features,
)
from classic_cls._sending import Streamed

_CHECKED = 8  # images whose features are compared


def main():
    args = parse_arguments()
    try:
        cupy = _arrays._usable_cupy()
    except (ImportError, RuntimeError) as error:
        print(f"Nothing was measured, for there is no GPU to use. {error}")
        return
    print(describe_machine(cupy), flush=True)
    bandwidth = copy_bandwidth(cupy, args.quick)
    print(f"Copying moves {bandwidth / 1e9:.4g} GB/s.\n", flush=True)
    try:
        kernels = [measure_kernel(cupy, name, make(args.quick), bandwidth, args.quick) for name, make in CASES.items()]
    except AssertionError as error:
        sys.exit(str(error))
    print_table(kernels)
    print("\nFrom ordinary memory of the host:\n", flush=True)
    print_table(sending := measure_sending(cupy, args.quick))
    X_train, y_train, X_test, source = load_images(args.data_dir, args.quick)
    print(f"\nTo labels, from {len(X_train):,} and {len(X_test):,} images on the host, {source}:\n", flush=True)
    models = [measure_model(name, make, X_train, y_train, X_test) for name, make in MODELS.items()]
    print_table(models)
    if args.json:
        report = {"machine": describe_machine(cupy), "copy_bytes_per_second": bandwidth}
        write_json(report | {"images": source, "kernels": kernels, "sending": sending, "models": models}, args.json)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=pathlib.Path, metavar="DIR", help="where CIFAR-10 lies")
    parser.add_argument("--quick", action="store_true", help="a few images: a check that all runs")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the figures there")
    return parser.parse_args()


def describe_machine(cupy):
    """Return a line on the GPU and one on the CPU."""
    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    cuda = cupy.cuda.runtime.runtimeGetVersion()
    return (
        f"{name}, CUDA {cuda // 1000}.{cuda % 1000 // 10}, CuPy {cupy.__version__}; {datetime.date.today()}\n"
        f"{cpu_model()}; OpenCV {cv2.__version__}, scikit-image {skimage.__version__}"
    )


def copy_bandwidth(cupy, quick):
    """Return the bytes per second, read and written, of copying an array to another one."""
    source, target = (cupy.empty(1 << (16 if quick else 30), np.uint8) for _ in range(2))
    source[...] = 0
    return 2 * source.nbytes / event_seconds(cupy, partial(cupy.copyto, target, source))


def event_seconds(cupy, call, n_times=20):
    """Return the median time of a call on the GPU, after one that isn't counted.

    The calls are given one after the other, as in a long run: while the GPU works, the host prepares the next.
    """
    call()
    events = [cupy.cuda.Event() for _ in range(n_times + 1)]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    events[-1].synchronize()
    return float(np.median([cupy.cuda.get_elapsed_time(*pair) for pair in pairwise(events)])) / 1000


# --- Kernels ----------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A descriptor to time."""

    describe: Callable  # of NumPy's or CuPy's images
    images: np.ndarray
    peer: str = "-"
    peer_run: Callable | None = None  # of NumPy's images
    agreeing: float = 1  # share of the features that must be the CPU's
    gpu_peer: Callable | None = None  # of NumPy's images: the images per second, None where it is not installed


def hog_case(quick, colour=False, dtype=np.uint8, side=32):
    def peer(images):
        axis = -1 if colour else None
        return [skimage.feature.hog(image, cells_per_block=(2, 2), channel_axis=axis) for image in images]

    n = (600_000 if dtype == np.uint8 else 200_000) * 32**2 // side**2
    images = many(n, quick, peer_cases._COLOR if colour else peer_cases._GRAY, side)
    images = images if dtype == np.uint8 else images.astype(dtype) / dtype(255)
    return Case(partial(hog, cells_per_block=(2, 2)), images, "scikit-image hog", peer)


def color_case(quick, **parameters):
    def peer(images):
        channels = [[0, 1, 2]] if parameters.get("joint", True) else [[0], [1], [2]]
        return [[cv2.calcHist([image], c, None, [8] * len(c), [0, 256] * len(c)) for c in channels] for image in images]

    images = many(400_000, quick, peer_cases._COLOR)
    rgb = "color_space" not in parameters
    return Case(partial(color_histogram, **parameters), images, *(("OpenCV calcHist", peer) if rgb else ()))


def sift_case(quick, side=32):
    images = many(200_000 * 32**2 // (2 * side**2 - 32**2), quick, peer_cases._GRAY, side)
    return Case(
        partial(dense_sift, contrast_threshold=0), images, "OpenCV SIFT", peer_cases._opencv_sift, gpu_peer=kornia_sift
    )


def kornia_sift(images, device="cuda"):
    """Return the images per second of kornia's dense SIFT with the same bins and steps, on the GPU of torch."""
    try:
        import kornia
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available() and device == "cuda":
        return None
    sift = kornia.feature.DenseSIFTDescriptor(spatial_bin_size=4, rootsift=False, stride=4, padding=0).to(device)
    there = torch.from_numpy(images).to(device)[:, None].float() / 255

    def describe():
        with torch.inference_mode():
            sift(there)[0].cpu()  # waits

    return len(images) / clock(describe)


def patches_case(quick, n_entries=1600):
    images, rng = many(10_000, quick, peer_cases._COLOR), np.random.default_rng(0)
    parts = np.zeros(108), np.eye(108), rng.normal(size=(16 if quick else n_entries, 108))
    return Case(lambda images, **how: patch_features(images, *parts, **how), images)


def encoder_case(quick, make):
    """Describe images with an encoder of dense SIFT that was learned from a hundred others."""
    images = many(20_000, quick, peer_cases._GRAY)
    model = make(DenseSIFT(contrast_threshold=0), 8 if quick else 64, random_state=0).fit(
        many(100, True, peer_cases._GRAY)
    )

    def encode(images, n_jobs=None):
        return model.set_params(n_jobs=n_jobs).transform(images)

    return Case(encode, images, agreeing=0.95)  # some descriptor may be equally near to two words


CASES = {
    "hog": hog_case,
    "hog-128": partial(hog_case, side=128),
    "hog-colour": partial(hog_case, colour=True),
    "hog-float32": partial(hog_case, dtype=np.float32),
    "color-joint": color_case,
    "color-per-channel": partial(color_case, joint=False),
    "color-hsv": partial(color_case, color_space="hsv"),
    "dense-sift": sift_case,
    "dense-sift-128": partial(sift_case, side=128),
    "patches": patches_case,
    "bag": partial(encoder_case, make=BagOfVisualWords),
    "vlad": partial(encoder_case, make=VLAD),
    "fisher": partial(encoder_case, make=FisherVector),
}


def many(n, quick, names, side=32):
    """Return `n` square images, fewer on a GPU of little memory: a hundred crops, again and again."""
    crops = peer_cases.crops(_CHECKED if quick else 100, side, side, names)
    share = min(1, _arrays.free_bytes() / (16 << 30))
    return crops if quick else np.tile(crops, (max(1, int(share * n / len(crops))), *[1] * (crops.ndim - 1)))


def measure_kernel(cupy, name, case, bandwidth, quick):
    """Time one descriptor and return its row."""
    images = cupy.asarray(case.images)
    features = case.describe(images)
    check(name, features[:_CHECKED].get(), case.describe(case.images[:_CHECKED]), case.agreeing)
    n_bytes = images.nbytes + features.nbytes
    del features  # memory for the next call
    seconds = event_seconds(cupy, partial(case.describe, images), 3 if quick else 20)
    n_peer = _CHECKED if quick else 200
    peer = n_peer / clock(partial(case.peer_run, case.images[:n_peer])) if case.peer_run else None
    some = case.images[: max(_CHECKED, len(images) // 20)]
    cpu = len(some) / clock(partial(case.describe, some, n_jobs=-1))
    return {
        "kernel": name,
        "images": len(images),
        "ms": 1000 * seconds,
        "GB/s": n_bytes / seconds / 1e9,
        "share of copying": n_bytes / seconds / bandwidth,
        "images/s": len(images) / seconds,
        "CPU, images/s": cpu,
        "peer": case.peer,
        "peer, images/s": peer,
        "kornia on the GPU, images/s": case.gpu_peer(some) if case.gpu_peer else None,
    }


def check(name, ours, expected, agreeing):
    alike = np.isclose(ours, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert alike.mean() >= agreeing, f"{name}: GPU and CPU disagree in {(~alike).sum()} of {alike.size} features."


def clock(call, n_times=3, warm=True):
    """Return the median time of a call that ends on the host, after one that isn't counted if that is to `warm` up."""
    seconds = []
    for _ in range(n_times + warm):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[warm:]))


# --- Sending ----------------------------------------------------------------------------------------------------------


def measure_sending(cupy, quick):
    """Return rows of how long images of 32 x 32 RGB pixels take from the host to the GPU, and on to features there."""
    images = many(50_000, quick, peer_cases._COLOR)
    part_by_part = Streamed(images, cupy.cuda.Device().id)
    ways = {
        "cupy.asarray": lambda: cupy.asarray(images),
        "ToDevice()": lambda: ToDevice().transform(images),
        "ToDevice(), then hog": lambda: hog(ToDevice().transform(images)),
        "hog, images sent part by part": lambda: hog(part_by_part),
    }

    def measure(way):
        seconds = clock(lambda: (way(), cupy.cuda.get_current_stream().synchronize()))
        return {"images": len(images), "ms": 1000 * seconds, "GB/s": images.nbytes / seconds / 1e9}

    return [{"way": name} | measure(way) for name, way in ways.items()]


# --- Models -----------------------------------------------------------------------------------------------------------


def hog_svm(there):
    return make_pipeline(*there, HOG(pixels_per_cell=4, cells_per_block=2, n_jobs=-1), LinearSVC(0.1))


def bag_of_words(there):
    words = BagOfVisualWords(DenseSIFT(step=4, bin_size=4, root=True), 1000, random_state=0, n_jobs=-1)
    return make_pipeline(*there, words, LinearSVC(1))


MODELS = {"HOG, linear SVM": hog_svm, "1,000 visual words, linear SVM": bag_of_words}


def load_images(data_dir, quick):
    """Return training images and labels, test images, and what they are."""
    if data_dir:
        X_train, y_train, X_test, _ = accuracy.load("cifar10", data_dir)
        return X_train, y_train, X_test, "CIFAR-10"
    n_train, n_test = (60, 16) if quick else (50_000, 10_000)
    images = peer_cases.crops(n_train + n_test, 32, 32, peer_cases._COLOR)
    labels = np.arange(n_train) % len(peer_cases._COLOR)
    return images[:n_train], labels, images[n_train:], "crops of four photographs"


def measure_model(name, make, X_train, y_train, X_test):
    """Fit and predict on the GPU and on the CPU, and return the row."""
    gpu, cpu = make([ToDevice()]), make([])
    gpu.fit(X_train, y_train)  # compiles the kernels
    gpu_fit, cpu_fit = (clock(partial(model.fit, X_train, y_train), 1, warm=False) for model in (gpu, cpu))
    gpu_predict, cpu_predict = (clock(partial(model.predict, X_test)) for model in (gpu, cpu))
    return {
        "model": name,
        "predict, images/s": len(X_test) / gpu_predict,
        "CPU": len(X_test) / cpu_predict,
        "times": cpu_predict / gpu_predict,
        "fit, images/s": len(X_train) / gpu_fit,
        "CPU, fit": len(X_train) / cpu_fit,
        "times, fit": cpu_fit / gpu_fit,
        "times, both": (cpu_fit + cpu_predict) / (gpu_fit + gpu_predict),
        "same labels": float(np.mean(gpu.predict(X_test) == cpu.predict(X_test))),
    }


# --- Output -----------------------------------------------------------------------------------------------------------


def print_table(rows):
    """Print a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    for line in lines:
        print("|", " | ".join(line), "|", flush=True)


def cell(value):
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else value


if __name__ == "__main__":
    main()
