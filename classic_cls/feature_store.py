"""Features of more images than fit into memory: computed chunk by chunk into a folder, resumable at any point.

The format is ordinary. A folder holds ``manifest.json`` and the features in ``chunk-000000.npy``,
``chunk-000001.npy``, ... with one row per image, in order; ``y.npy`` with one label per input, if there are any; and
``inputs.npy``, digests that tell which input has changed. The manifest names the chunks that are finished, each with
its rows, its bytes, its SHA-256 and what was skipped in it, as (index, path, reason); of a chunk without rows there is
no file.
"""

import hashlib
import os
import warnings
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
from joblib import parallel_config
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted

import classic_cls

from ._arrays import to_host
from ._fingerprint import fingerprint, input_digests
from ._images import one_of, positive_int
from ._store_files import begin, has_its_length, is_whole, joined, new_manifest, npy, read_manifest, write, write_chunk
from .features.read_images import ReadImages, Skipped, _checked_options, read_pictures

_CHUNK = "chunk-{:06d}.npy"  # a million at most, for the names to be in order


def compute_features(
    transformer,
    X,
    folder,
    y=None,
    *,
    chunk_size=1024,
    errors="raise",
    overwrite=False,
    n_jobs=None,
    progress=None,
    **reading,
):
    """Compute features chunk by chunk into a folder, and go on where an earlier call was interrupted.

    No more than one chunk is in memory, of images and of features. What is finished is kept, whatever happens, a kill
    or a full disk; the next call with the same arguments checks it by its SHA-256, and computes only the rest.

    Parameters
    ----------
    transformer : transformer or Pipeline
        Fitted, from images to rows of numbers: a descriptor, or a model's steps before the classifier, ``model[:-1]``.
    X : array, list of images, or sequence of str or path
        Images as the transformer takes them, an array in a file (``np.load(path, mmap_mode="r")``) among them, or
        paths of pictures, which are read chunk by chunk.
    folder : str or path
        Where to: new, empty, or with what an earlier call has left. One process at a time.
    y : array of shape (n,) or (n, n_labels), default=None
        A label for each of X, to be stored with the features: numbers or strings.
    chunk_size : int, default=1024
        Images in a chunk.
    errors : {"raise", "skip"}, default="raise"
        What a picture does that cannot be read. "skip" leaves it out, warns, and lists it in ``store.skipped``.
    overwrite : bool, default=False
        Delete the features that the folder holds, and start anew.
    n_jobs : int, default=None
        Number of threads, to read pictures and for the steps whose own `n_jobs` is None.
    progress : callable, default=None
        Called as ``progress(n_done, n)`` with the number of inputs done, first with those done before.
    **reading
        `size`, `color`, `draft` and `max_pixels` of :func:`read_pictures`, where X holds paths.

    Returns
    -------
    store : FeatureStore

    Raises
    ------
    ValueError
        If the folder holds the features of another transformer (its class, parameters or what it has learned), of
        other inputs (pixels; or paths, sizes or modification times of files), or cut into other chunks; if a file
        changes while it is read; if features are NaN or infinite; if not one picture can be read.
    FileExistsError
        If the folder holds other things.
    NotFittedError, TypeError
        If the transformer is not fitted, or holds what has no lasting identity, such as a lambda.
    OSError, ValueError
        As :func:`read_pictures`, and where the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> from classic_cls import HOG, LinearSVC, compute_features, load_digits
    >>> digits = load_digits()
    >>> hog = HOG(pixels_per_cell=4, cells_per_block=1).fit(digits.images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = compute_features(hog, digits.images, folder, digits.target, chunk_size=500)
    ...     model = LinearSVC().fit(store[digits.train], store.labels[digits.train])
    >>> store
    FeatureStore(1797 x 36 float32, 4 chunks)
    """
    X, paths = _checked_inputs(X)
    y = None if y is None else _checked_labels(y, len(X))
    reading = _checked_reading(paths, errors, reading)
    settings = {"chunk_size": positive_int(chunk_size, "chunk_size"), "reading": reading}
    folder, inputs = Path(folder), input_digests(X)
    manifest = new_manifest(transformer, _identity(transformer, inputs, settings), len(X))
    manifest = begin(folder, manifest, inputs, overwrite)
    if y is not None:
        write(folder / "y.npy", npy(y))
    with nullcontext() if n_jobs is None else parallel_config(n_jobs=n_jobs):
        _compute_missing(transformer, X, folder, manifest, inputs, progress)
    store = FeatureStore.open(folder)
    if store.skipped:
        _warn(store.skipped, len(X))
    return store


def _checked_inputs(X):
    """Return X as something that can be cut into chunks, and whether it holds paths."""
    if isinstance(X, (str, os.PathLike)):
        raise TypeError(f"X={X!r} is one path; expected several, or a list of one: [path].")
    X = X if isinstance(X, (list, tuple, np.ndarray)) else np.asarray(X)
    if isinstance(X, np.ndarray) and X.ndim == 0:
        raise TypeError(f"X={X!r}; expected images, or paths of pictures.")
    if len(X) == 0:
        raise ValueError("Found no images and no paths: 0 sample(s) while a minimum of 1 is required.")
    paths = [isinstance(x, (str, os.PathLike)) for x in X]
    if any(paths) and not all(paths):
        i = paths.index(not paths[0])
        raise TypeError(f"X holds paths and other things ({type(X[i]).__name__} at index {i}); expected one kind.")
    return X, paths[0]


def _checked_labels(y, n):
    y = np.asarray(y)
    if y.dtype == object and all(isinstance(label, str) for label in y.ravel()):
        y = y.astype(str)
    if y.dtype.hasobject:
        raise TypeError("y holds other things than numbers or strings, or a mixture; convert the labels to one kind.")
    if y.ndim not in (1, 2) or len(y) != n:
        raise ValueError(f"y has shape {y.shape}; expected ({n},) or ({n}, n_labels), a label for each of X.")
    return y


def _checked_reading(paths, errors, reading):
    """Return the options of `read_pictures`, or None where nothing is to be read."""
    options = ReadImages(errors=one_of(errors, "errors", ("raise", "skip")), **reading).get_params()
    if paths:
        del options["n_jobs"]
        return {"errors": errors, **_checked_options(**options)}
    if reading:
        raise ValueError(f"{', '.join(sorted(reading))}: only for paths, and X holds images that are read already.")
    return None


def _identity(transformer, inputs, settings):
    if not hasattr(transformer, "transform"):
        raise TypeError(
            f"{type(transformer).__name__} has no transform; expected a descriptor, or a Pipeline without its "
            "classifier: model[:-1]."
        )
    check_is_fitted(transformer)
    return {
        "transformer": fingerprint(transformer),
        "inputs": hashlib.sha256(inputs).hexdigest(),
        **settings,
        "classic_cls": classic_cls.__version__,
    }


def _compute_missing(transformer, X, folder, manifest, inputs, progress):
    settings = manifest["identity"]
    for number, chunk in enumerate(gen_batches(len(X), settings["chunk_size"])):
        if _CHUNK.format(number) not in manifest["chunks"]:
            images, skipped = _read(X[chunk], chunk.start, inputs[chunk], settings["reading"])
            rows = _features(transformer, images, manifest, chunk) if len(images) else ()
            write_chunk(folder, manifest, _CHUNK.format(number), rows, skipped)
        if progress:
            progress(chunk.stop, len(X))


def _read(X, start, inputs, reading):
    """Return the images of a chunk, and what of it was skipped, as (index, path, reason)."""
    if reading is None:
        return X, []
    indices, images, skipped = read_pictures(X, **reading)
    changed = np.flatnonzero((input_digests(X) != inputs).any(1))
    if len(changed):
        raise ValueError(f"{X[changed[0]]} has changed since compute_features was called; call it again.")
    left = np.delete(np.arange(len(X)), indices).tolist()
    return images, [(start + i, each.path, each.reason) for i, each in zip(left, skipped, strict=True)]


def _features(transformer, images, manifest, chunk):
    rows = np.asarray(to_host(transformer.transform(images)))
    where = f"The features of inputs {chunk.start} to {chunk.stop - 1}"
    if rows.ndim != 2 or len(rows) != len(images) or rows.dtype.kind not in "biuf":
        raise ValueError(
            f"{where} have shape {rows.shape} and dtype {rows.dtype}; expected numbers of shape ({len(images)}, "
            "n_features), no sparse matrix."
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{where} hold NaN or infinity; mend or drop those images, or the transformer.")
    expected = manifest["n_features"] or rows.shape[1], manifest["dtype"] or rows.dtype.str
    if (rows.shape[1], rows.dtype.str) != expected:
        raise ValueError(f"{where} are {rows.shape[1]} numbers of {rows.dtype.str}, those before were {expected}.")
    return rows


def _warn(skipped, n):
    warnings.warn(
        f"{len(skipped)} of {n} pictures are left out; the first, {skipped[0].path}, {skipped[0].reason} "
        "store.skipped lists them all, and store.indices says which inputs the rows are of.",
        stacklevel=3,
    )


class FeatureStore:
    """Features in a folder that :func:`compute_features` has filled.

    Opened with :meth:`open`. ``len(store)`` is the number of rows; ``store[rows]`` reads rows, by an int, a slice,
    indices or a mask, as an array; nothing else is held in memory.

    Attributes
    ----------
    folder : Path
    manifest : dict
        What ``manifest.json`` says: the key, the transformer, versions, the chunks.
    shape : (int, int)
        Rows and features.
    dtype : dtype
    skipped : tuple of Skipped
        ``path`` and ``reason`` of pictures that could not be read.
    indices : ndarray of shape (n_rows,), int64
        Which inputs the rows are of, ascending.
    labels : ndarray of shape (n_rows,) or (n_rows, n_labels), or None
        Labels of the rows.

    Examples
    --------
    A model that learns from batches needs no more memory than a batch takes:

    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn.linear_model import SGDClassifier
    >>> from sklearn.utils import gen_batches
    >>> from classic_cls import HOG, compute_features, load_digits
    >>> digits = load_digits()
    >>> hog = HOG(pixels_per_cell=4, cells_per_block=1).fit(digits.images)
    >>> model = SGDClassifier(random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = compute_features(hog, digits.images, folder, digits.target)
    ...     labels = store.labels
    ...     for rows in gen_batches(len(store), 256):
    ...         _ = model.partial_fit(store[rows], labels[rows], classes=np.arange(10))
    ...     print(model.score(store.array(), labels) > 0.6)
    True
    """

    def __init__(self, folder, manifest):
        self.folder, self.manifest = folder, manifest
        self._chunks = {name: entry for name, entry in sorted(manifest["chunks"].items()) if entry["rows"]}
        self._edges = np.cumsum([0, *(entry["rows"] for entry in self._chunks.values())])
        self.shape = int(self._edges[-1]), manifest["n_features"]
        self.dtype = np.dtype(manifest["dtype"])

    @classmethod
    def open(cls, folder):
        """Open a finished store, and check that every chunk is there and as long as it was.

        Parameters
        ----------
        folder : str or path

        Returns
        -------
        store : FeatureStore

        Raises
        ------
        FileNotFoundError
            If the folder holds no store.
        ValueError
            If the store is not finished, or damaged, or written by a newer version; if it has no rows.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        chunks = sorted(manifest["chunks"].items())
        short = [name for name, entry in chunks if not has_its_length(folder / name, entry)]
        to_do = -(-manifest["n_inputs"] // manifest["identity"]["chunk_size"]) - len(chunks)
        if short or to_do:
            what = f"{short[0]} is missing or cut short" if short else f"{to_do} chunks have not been computed"
            raise ValueError(f"{folder}: {what}. Call compute_features again; it computes what is missing.")
        if manifest["dtype"] is None:
            first = _skipped(manifest)[0]
            raise ValueError(f"No picture could be read; the first, {first.path}, {first.reason}")
        return cls(folder, manifest)

    def __len__(self):
        return self.shape[0]

    def __repr__(self):
        return f"FeatureStore({len(self)} x {self.shape[1]} {self.dtype}, {len(self._chunks)} chunks)"

    def __getitem__(self, rows):
        rows = np.arange(len(self))[rows]
        found = np.empty((*rows.shape, self.shape[1]), self.dtype)
        chunk_of = np.searchsorted(self._edges, rows, side="right") - 1
        for i in np.unique(chunk_of):
            here = chunk_of == i
            found[here] = self._chunk(i)[rows[here] - self._edges[i]]
        return found

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("The features are in files; an array of them is a copy.")
        return self.array().astype(dtype or self.dtype, copy=False)

    def chunks(self):
        """Iterate over the features, a memory-mapped array of shape (n_rows_of_chunk, n_features) at a time.

        Returns
        -------
        chunks : iterator of memmap
        """
        return map(self._chunk, range(len(self._chunks)))

    def array(self):
        """Return all features in memory.

        Returns
        -------
        features : ndarray of shape (n_rows, n_features)
        """
        features = np.empty(self.shape, self.dtype)
        for (start, stop), rows in zip(pairwise(self._edges), self.chunks(), strict=True):
            features[start:stop] = rows
        return features

    def memmap(self):
        """Give all features as one memory-mapped array, for estimators that read it where it is.

        Returns
        -------
        context : context manager
            Of a memmap of shape (n_rows, n_features), in a file beside the chunks that takes as much of the disk as
            they do, and is removed in the end.

        Raises
        ------
        OSError
            If the disk is full.
        """
        return joined(self.folder, self.chunks(), self.dtype, self.shape)

    def verify(self):
        """Read every chunk and compare it with its SHA-256.

        Returns
        -------
        damaged : list of str
            File names of chunks that are not what was written; empty if all is well. Calling :func:`compute_features`
            again computes them anew.
        """
        return [name for name, entry in self._chunks.items() if not is_whole(self.folder / name, entry)]

    @property
    def skipped(self):  # noqa: D102, described above
        return _skipped(self.manifest)

    @property
    def indices(self):  # noqa: D102
        skipped = [i for entry in self.manifest["chunks"].values() for i, _, _ in entry["skipped"]]
        return np.delete(np.arange(self.manifest["n_inputs"]), skipped)

    @property
    def labels(self):  # noqa: D102
        path = self.folder / "y.npy"
        return np.load(path)[self.indices] if path.exists() else None

    def _chunk(self, i):
        name = list(self._chunks)[i]
        rows = np.load(self.folder / name, mmap_mode="r")
        expected = (self._chunks[name]["rows"], self.shape[1])
        if rows.shape != expected or rows.dtype != self.dtype:
            raise ValueError(f"{self.folder / name} holds {rows.shape} {rows.dtype}; expected {expected} {self.dtype}.")
        return rows


def _skipped(manifest):
    entries = (entry for _, entry in sorted(manifest["chunks"].items()))
    return tuple(Skipped(path, reason) for entry in entries for _, path, reason in entry["skipped"])
