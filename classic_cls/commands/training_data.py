"""Reads what ``classic-cls fit`` learns: images and class names, from a folder, an ``.npz`` file or by name."""

import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.base import clone

from ..datasets import EMBEDDED, check_classes, list_image_folder, load_dataset
from ..features.read_images import ReadImages, iter_pictures
from .common import UserError
from .progress import counted

_HEADERS = 100  # pictures whose sizes are looked up to estimate those of all
_BATCH = 256


@dataclass(frozen=True)
class TrainingData:
    """Images with the names of their classes.

    Attributes
    ----------
    name : str
        What the user called it.
    X_train, X_test : array of shape (n, height, width) or (n, height, width, 3), or list of images
    y_train, y_test : ndarray of str
    reader : ReadImages or None
        The step that has read the pictures; None where the images were arrays.
    skipped : tuple of Skipped
    """

    name: str
    X_train: object
    y_train: np.ndarray
    X_test: object
    y_test: np.ndarray
    reader: ReadImages | None = None
    skipped: tuple = ()

    @property
    def described(self):
        """One line for the user."""
        counts = f"{len(self.y_train):,} images of {len(np.unique(self.y_train))} classes to train"
        return f"{counts}, {len(self.y_test):,} to test" if len(self.y_test) else f"{counts}, no test part"

    @property
    def about(self):
        """What is saved with the model: plain numbers, strings and lists."""
        size, color = self._size_and_color()
        return {
            "data": self.name,
            "n_train": len(self.y_train),
            "n_skipped": len(self.skipped),
            "classes": np.unique(self.y_train).tolist(),
            "size": size,
            "color": color,
            "fingerprint": _fingerprint(self.X_train, self.y_train),
        }

    def _size_and_color(self):
        if self.reader:
            return self.reader.size and [self.reader.size] * 2, self.reader.color
        return list(self.X_train.shape[1:3]), "rgb" if self.X_train.ndim == 4 else "gray"


def _fingerprint(images, labels):
    """Return a SHA-256 of the images (shapes, dtypes, pixels) and labels, in their order."""
    digest = hashlib.sha256("\0".join(labels).encode(errors="surrogateescape"))
    for image in images:
        digest.update(f"{image.shape}{image.dtype.str}".encode())
        digest.update(np.ascontiguousarray(image))
    return digest.hexdigest()


def read_training_data(data, size, errors, n_jobs, draft=False):
    """Read a folder, an ``.npz`` file or one of the sets with a name.

    Parameters
    ----------
    data : str
        As :func:`classic_cls.load_dataset` takes it.
    size : int or None
        Height and width that the pictures of a folder are resized to.
    errors : {"raise", "skip"}
    n_jobs : int
    draft : bool, default=False
        As in :class:`classic_cls.ReadImages`.

    Returns
    -------
    data : TrainingData

    Raises
    ------
    OSError, ValueError, UserError
        If there is no such data, it is none, or does not fit into memory.
    """
    if data not in EMBEDDED and Path(data).is_dir():
        return _read_folder(Path(data), ReadImages(size, errors=errors, draft=draft, n_jobs=n_jobs))
    if size is not None:
        raise UserError(f"--size is for folders of pictures; the images of {data} have a size. Leave it out.")
    dataset = load_dataset(data)
    labels = dataset.target_names[dataset.target]
    train, test = dataset.train, dataset.test
    return TrainingData(str(data), dataset.images[train], labels[train], dataset.images[test], labels[test])


def _read_folder(root, reader):
    parts = list_image_folder(root)
    names = check_classes(root, parts, least=1)
    files, labels = labelled_files(parts.values())
    _check_memory(files, reader.size)
    kept, images, skipped = _read(files, reader)
    n_train = np.count_nonzero(kept < sum(map(len, parts[next(iter(parts))].values())))
    labels = labels[kept]
    check_left(names, labels[:n_train], skipped)
    step = clone(reader).set_params(errors="raise")  # a deployed model says what it can't read
    return TrainingData(
        str(root), images[:n_train], labels[:n_train], images[n_train:], labels[n_train:], step, tuple(skipped)
    )


def labelled_files(folders):
    """Return the files of dicts of class to files, and an array of their classes."""
    pairs = [(file, name) for classes in folders for name, files in classes.items() for file in files]
    return [file for file, _ in pairs], np.array([name for _, name in pairs], str)


def _read(files, reader):
    """Return which files could be read, their images, and the others."""
    size = reader.size
    images = [] if size is None else np.empty((len(files), size, size, 3), np.uint8)
    kept, skipped = [], []
    with counted("reading", len(files)) as advance:
        for indices, batch, failed in iter_pictures(files, batch_size=_BATCH, **reader.get_params()):
            images[len(kept) : len(kept) + len(batch)] = batch
            kept.extend(indices.tolist())
            skipped.extend(failed)
            advance(len(batch) + len(failed))
    return np.array(kept, np.int64), images[: len(kept)], skipped


def check_left(names, labels, skipped):
    """Raise an error if no picture of a class could be read."""
    lost = sorted(set(names).difference(labels))
    if lost:
        raise UserError(
            f"No picture of the class {lost[0]!r} can be read to learn it; the first that cannot, {skipped[0].path}, "
            f"{skipped[0].reason} Mend the pictures, or remove the class."
        )


def _check_memory(files, size):
    """Refuse, before hours of reading, what cannot fit."""
    needed, available = len(files) * bytes_of_one(files, size), available_bytes()
    if needed > available:
        raise UserError(
            f"The {len(files):,} pictures take about {needed / 1e9:,.1f} GB as images, and {available / 1e9:,.1f} GB "
            f"of memory are available; with --size 64 they take {len(files) * 3 * 64**2 / 1e9:,.1f} GB, and with "
            "--store DIR they stay on the disk."
        )


def bytes_of_one(files, size):
    """Return how much memory one of the pictures takes as an image, on average; some of the headers are read."""
    if size is not None:
        return 3 * size**2
    pixels = [_pixels(file) for file in files[:: math.ceil(len(files) / _HEADERS)]]
    return 3 * sum(pixels) / len(pixels)


def _pixels(file):
    """Return how many pixels a picture says it has; what cannot be read has none."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as picture:
            return picture.width * picture.height
    except Exception:  # decoders raise many kinds; reading will tell
        return 0


def available_bytes(meminfo="/proc/meminfo"):
    """Return how much memory programs can still take; infinity where the system does not say.

    Examples
    --------
    >>> from classic_cls.commands.training_data import available_bytes
    >>> available_bytes("no such file")
    inf
    """
    try:
        lines = Path(meminfo).read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)
