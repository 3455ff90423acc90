"""Predictions as named arrays, in ``.npz`` and ``.csv`` files."""

import csv
from pathlib import Path

import numpy as np

_CSV_COLUMNS = {"id": "ids", "y_pred": "y_pred", "label": "y_pred", "fingerprint": "fingerprint"}  # as in .npz


def file_format(path):
    """Return the functions, of a path, that reads a dict of arrays, and, of a path and a dict, that writes it."""
    formats = {".npz": (_read_npz, _write_npz), ".csv": (_read_csv, _write_csv)}
    suffix = Path(path).suffix.lower()
    if suffix not in formats:
        raise ValueError(f"{str(path)!r} ends in {suffix!r}; expected predictions in '.npz' or '.csv'.")
    return formats[suffix]


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds
        raise ValueError(
            f"cannot be read as an .npz file of plain arrays ({error}); write it with np.savez."
        ) from error


def _write_npz(path, content):
    with open(path, "wb") as file:  # savez appends .npz to a name
        np.savez_compressed(file, **content)


def _read_csv(path):
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
    except (ValueError, csv.Error) as error:
        raise ValueError(f"cannot be read as a .csv file with a header ({error}).") from error
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(f"line {line} has {len(row)} fields; expected {len(header)}, as in the header.")
    table = np.array(rows, str).reshape(-1, len(header))
    content = {_CSV_COLUMNS[name]: _typed(table[:, k]) for k, name in enumerate(header) if name in _CSV_COLUMNS}
    if len(content) < sum(name in _CSV_COLUMNS for name in header):
        raise ValueError(f"has the columns {', '.join(header[:9])}; expected y_pred or label, nothing twice.")
    of_class = [k for k, name in enumerate(header) if name not in _CSV_COLUMNS]
    return content | ({"scores": table[:, of_class], "classes": _typed(np.array(header)[of_class])} if of_class else {})


def _typed(text):
    """Return ints where all of the text is ints as Python writes them, else the text."""
    try:
        numbers = text.astype(np.int64)
    except (ValueError, OverflowError):
        return text
    return numbers if np.array_equal(numbers.astype(str), text) else text


def _write_csv(path, content):
    columns = [content["ids"], content["y_pred"], *content.get("scores", np.empty((0, 0))).T]
    columns.append(np.repeat(content["fingerprint"], len(content["ids"])))
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "y_pred", *content.get("classes", ()), "fingerprint"])
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
