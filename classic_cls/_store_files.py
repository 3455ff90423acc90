"""The files of a feature store: written whole or not at all, and believed only with the SHA-256 they were written with.

A chunk enters the manifest after its file has got its name. Whenever a program is killed, what the manifest names is
whole; and should the disk have lost it after all, its SHA-256 tells.
"""

import hashlib
import io
import json
import os
import platform
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import sklearn

import classic_cls

_FORMAT = 1
_OURS = re.compile(r"(manifest\.json|inputs\.npy|y\.npy|chunk-\d{6,}\.npy)(\.\d+\.part)?|rows\.\d+\.part")


def begin(folder, manifest, inputs, overwrite):
    """Return the manifest to go on with: the new one, or the one in the folder, of which whole chunks are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    if not overwrite and (folder / "manifest.json").exists():
        found = read_manifest(folder)
        if found["key"] == manifest["key"]:
            return _resumed(folder, found, inputs)
        if found["chunks"]:
            raise ValueError(
                f"{folder} holds other features: {_differences(folder, found, manifest, inputs)}. Give another "
                "folder, or overwrite=True to delete them and start anew."
            )
    _clear(folder)
    write_manifest(folder, manifest)
    write(folder / "inputs.npy", npy(inputs))
    return manifest


def _resumed(folder, manifest, inputs):
    for path in folder.glob("*.part"):
        if _OURS.fullmatch(path.name):
            path.unlink()
    if not (folder / "inputs.npy").exists():  # killed between the manifest and this
        write(folder / "inputs.npy", npy(inputs))
    chunks = manifest["chunks"].items()
    return manifest | {"chunks": {name: entry for name, entry in chunks if is_whole(folder / name, entry)}}


def _clear(folder):
    """Delete the files of a store, the manifest last: without it, nobody knows that they are a store's."""
    ours = sorted((path for path in folder.iterdir() if _OURS.fullmatch(path.name)), key=_is_manifest)
    others = {path.name for path in folder.iterdir()} - {path.name for path in ours if _is_manifest(path)}
    if others and not (folder / "manifest.json").exists():
        raise FileExistsError(f"{folder} holds {min(others)!r} and is no feature store; give a new or empty folder.")
    for path in ours:
        path.unlink()


def _is_manifest(path):
    return path.name.startswith("manifest.json")


def _differences(folder, found, manifest, inputs):
    before, now = found["identity"], manifest["identity"]
    names = [name for name in now if before.get(name) != now[name]]
    return "; ".join(_difference(folder, name, found, manifest, inputs) for name in names)


def _difference(folder, name, found, manifest, inputs):
    if name == "inputs":
        return _changed_inputs(folder, inputs)
    if name == "transformer":
        before, now = found["transformer"], manifest["transformer"]
        return f"of {before}, not {now}" if before != now else f"of {now} fitted to something else"
    return f"{name}={found['identity'].get(name)!r}, not {manifest['identity'][name]!r}"


def _changed_inputs(folder, inputs):
    try:
        before = np.load(folder / "inputs.npy")
    except (OSError, ValueError):
        return "of other inputs"
    if len(before) != len(inputs):
        return f"of {len(before)} inputs, not {len(inputs)}"
    changed = np.flatnonzero((before != inputs).any(1))
    return f"{len(changed)} of {len(inputs)} inputs have changed since, the first at index {changed[0]}"


def new_manifest(transformer, identity, n_inputs):
    """Return the manifest of a store without chunks; its key says what the features are of."""
    words = json.dumps(identity, sort_keys=True)
    return {
        "format": _FORMAT,
        "key": hashlib.sha256(words.encode()).hexdigest(),
        "identity": json.loads(words),
        "transformer": transformer.__repr__(N_CHAR_MAX=10_000),
        "versions": {
            "classic_cls": classic_cls.__version__,
            "scikit-learn": sklearn.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "n_inputs": n_inputs,
        "n_features": None,
        "dtype": None,
        "chunks": {},
    }


def read_manifest(folder):
    """Return the manifest of a store, or say why the folder is none."""
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} holds no manifest.json; expected a folder that compute_features has filled.")
    try:
        manifest = json.loads(path.read_bytes())
        newer = manifest["format"] > _FORMAT
        whole = {*new_manifest(sklearn.base.BaseEstimator(), {}, 0)} <= {*manifest}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged or no manifest of features ({type(error).__name__}: {error}).") from error
    if newer or not whole:
        what = "was written by a newer classic_cls; upgrade it" if newer else "is damaged or no manifest of features"
        raise ValueError(f"{path} {what}.")
    return manifest


def write_manifest(folder, manifest):
    """Put the manifest in the place of an older one."""
    write(folder / "manifest.json", json.dumps(manifest, indent=1).encode())  # ASCII: file names need not be Unicode


def write_chunk(folder, manifest, name, rows, skipped):
    """Write a chunk's rows, then enter it in the manifest; `skipped` are (index, path, reason)."""
    entry = {"rows": len(rows), "bytes": 0, "sha256": None, "skipped": skipped}
    if len(rows):  # else the number of features is unknown
        content = npy(rows)
        write(folder / name, content)
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest.update(n_features=rows.shape[1], dtype=rows.dtype.str)
    manifest["chunks"][name] = entry
    write_manifest(folder, manifest)


def npy(array):
    """Return the bytes of an .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getbuffer()


def write(path, content):
    """Write a file that takes the place of `path` in the end, or leaves no trace."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def joined(folder, chunks, dtype, shape):
    """Give the rows of all chunks as one memory-mapped array, in a file that is removed in the end."""
    path = folder / f"rows.{os.getpid()}.part"
    try:
        with open(path, "wb") as file:
            for rows in chunks:
                file.write(np.ascontiguousarray(rows).data)
        yield np.memmap(path, dtype, "r", shape=shape)
    finally:
        path.unlink(missing_ok=True)


def is_whole(path, entry):
    """Tell whether a chunk's file is what was written."""
    if not has_its_length(path, entry):
        return False
    if not entry["rows"]:
        return True
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]


def has_its_length(path, entry):
    """Tell whether a chunk's file is there, and as long as it was written: all that costs no reading."""
    return not entry["rows"] or (path.is_file() and path.stat().st_size == entry["bytes"])
