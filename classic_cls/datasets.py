"""Data sets, all in one form: three that need no download, a folder of pictures, and an ``.npz`` file.

Every loader returns a :class:`sklearn.utils.Bunch` with

- ``images`` : ndarray of shape (n, height, width) or (n, height, width, 3), uint8 or float32 in [0, 1]; a
  list of uint8 arrays (height, width, 3) where a folder's pictures differ in size,
- ``target`` : ndarray of shape (n,), int64, indices into ``target_names``,
- ``target_names`` : ndarray of str,
- ``train``, ``test`` : ndarrays of int64, indices into ``images`` that together name every image once,
- ``name`` and ``DESCR`` : str; for a folder also ``filenames``, an ndarray of str.
"""

from pathlib import Path

import numpy as np
from sklearn.utils import Bunch, check_random_state

from ._images import as_pixels
from .features.read_images import read_pictures

EMBEDDED = ("digits", "faces", "textures")
_EXTENSIONS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
_KEYS = ("X_train", "y_train", "X_test", "y_test")
_SPLIT_SEED = 0


def load_dataset(name_or_path, *, size=None, random_state=0):
    """Load a data set by name, from a folder of pictures or from an ``.npz`` file.

    Parameters
    ----------
    name_or_path : {"digits", "faces", "textures"} or path
        A folder goes to :func:`load_image_folder`, a file to :func:`load_npz`. A name wins over a folder of
        that name; write ``./digits`` for the folder.
    size, random_state
        As in :func:`load_image_folder`; used for folders only.

    Returns
    -------
    dataset : Bunch
        See :mod:`classic_cls.datasets`.

    Raises
    ------
    FileNotFoundError
        If `name_or_path` is neither a name nor a path that exists.
    ValueError
        If the folder or the file does not hold a data set.

    Examples
    --------
    >>> from classic_cls import load_dataset
    >>> load_dataset("textures").images.shape
    (768, 32, 32)
    """
    if name_or_path in EMBEDDED:
        return {"digits": load_digits, "faces": load_faces, "textures": load_textures}[name_or_path]()
    path = Path(name_or_path)
    if path.is_dir():
        return load_image_folder(path, size=size, random_state=random_state)
    if path.exists():
        return load_npz(path)
    raise FileNotFoundError(
        f"{str(name_or_path)!r} is neither a data set ({', '.join(EMBEDDED)}) nor an existing folder or .npz file."
    )


def load_digits():
    """Load scikit-learn's 1797 handwritten digits of 8 x 8 pixels, as float32 in [0, 1].

    Returns
    -------
    dataset : Bunch
        10 classes; the split is stratified, 75 to 25, and always the same.

    Examples
    --------
    >>> from classic_cls import load_digits
    >>> digits = load_digits()
    >>> digits.images.shape, len(digits.train), len(digits.test)
    ((1797, 8, 8), 1347, 450)
    """
    from sklearn.datasets import load_digits as load

    source = load()
    images = (source.images / 16).astype(np.float32)
    about = "Handwritten digits (UCI Optical Recognition of Handwritten Digits), 8 x 8 pixels, from scikit-learn."
    return _bunch("digits", images, source.target, source.target_names.astype(str), about)


def load_faces():
    """Load scikit-image's 100 faces and 100 pieces of background, 25 x 25 pixels, as float32 in [0, 1].

    Returns
    -------
    dataset : Bunch
        Classes "face" and "not-face"; the split is stratified, 75 to 25, and always the same.

    Examples
    --------
    >>> from classic_cls import load_faces
    >>> load_faces().target_names.tolist()
    ['face', 'not-face']
    """
    from skimage.data import lfw_subset

    images = lfw_subset().astype(np.float32)
    about = "Faces and background (Labeled Faces in the Wild), 25 x 25 pixels, from scikit-image (lfw_subset)."
    return _bunch("faces", images, np.repeat([0, 1], 100), ["face", "not-face"], about)


def load_textures():
    """Load 32 x 32 patches of scikit-image's photographs of brick, grass and gravel, as uint8.

    The patches of a photograph do not overlap; its upper three quarters are for training and the rest for
    testing, so that no pixel is in both.

    Returns
    -------
    dataset : Bunch
        256 patches in each of 3 classes: 576 train, 192 test.

    Examples
    --------
    >>> from classic_cls import load_textures
    >>> textures = load_textures()
    >>> len(textures.train), len(textures.test)
    (576, 192)
    """
    from skimage import data

    names = ["brick", "grass", "gravel"]
    images = np.concatenate([_patches(getattr(data, name)(), 32) for name in names])
    is_train = np.tile(np.arange(256) < 192, len(names))
    about = "32 x 32 patches of photographs of brick, grass and gravel, from scikit-image (CC0)."
    return _bunch("textures", images, np.repeat(np.arange(len(names)), 256), names, about, is_train)


def _patches(photograph, size):
    rows, cols = (k // size for k in photograph.shape)
    return photograph.reshape(rows, size, cols, size).swapaxes(1, 2).reshape(-1, size, size)


def load_image_folder(path, size=None, *, random_state=0):
    """Load a folder of pictures, ``<class>/<picture>`` or ``train|test/<class>/<picture>``, as RGB uint8.

    Pictures are what ends in .bmp, .gif, .jpg, .jpeg, .pgm, .png, .pnm, .ppm, .tif, .tiff or .webp, in either
    case; other files, hidden files and folders inside a class are left out. They are read as
    :class:`~classic_cls.ReadImages` reads them.

    Parameters
    ----------
    path : str or path
        The folder. With both ``train`` and ``test`` in it these are the split, and other folders beside them
        are left out.
    size : int or (int, int), default=None
        Height and width to resize every picture to, as :class:`~classic_cls.ReadImages` does. None leaves them as
        they are.
    random_state : int, RandomState or None, default=0
        Seed of the stratified 75 to 25 split of a folder without ``train`` and ``test``; each class has at
        least one picture on either side.

    Returns
    -------
    dataset : Bunch
        ``images`` is one array (n, height, width, 3) where all sizes are equal, else a list of arrays
        (height, width, 3). ``filenames`` are relative to `path`.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    OSError
        If a picture cannot be opened.
    ValueError
        If there are fewer than two classes, a class has no pictures (or only one to split), a test class is
        unknown in ``train``, or a picture cannot be read whole.
    """
    root, parts = Path(path), list_image_folder(path)
    split = len(parts) == 2
    names = check_classes(root, parts, least=1 if split else 2)
    folders = list(parts.values())
    files = [(file, names.index(name)) for classes in folders for name, found in classes.items() for file in found]
    _, images, _ = read_pictures([file for file, _ in files], size)
    is_train = np.arange(len(files)) < sum(map(len, folders[0].values())) if split else None
    about = f"Pictures of the folder {path}."
    target = np.array([label for _, label in files])
    dataset = _bunch(str(path), _stacked(images), target, names, about, is_train, random_state)
    dataset.filenames = np.array([file.relative_to(root).as_posix() for file, _ in files])
    return dataset


def list_image_folder(path):
    """List the pictures of a folder, as :func:`load_image_folder` finds them; none is opened.

    Parameters
    ----------
    path : str or path
        The folder.

    Returns
    -------
    parts : dict of str to dict of str to list of Path
        The sorted pictures of each class, for "train" and for "test"; for "" where the folder has not both.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path)!r}; expected one with a subfolder per class.")
    split = all((root / part).is_dir() for part in ("train", "test"))
    return {part: _class_files(root / part) for part in (("train", "test") if split else ("",))}


def _class_files(folder):
    """Return {class name: sorted picture files} of the folder's subfolders."""
    subfolders = sorted(entry for entry in _visible(folder) if entry.is_dir())
    return {sub.name: sorted(file for file in _visible(sub) if is_picture(file)) for sub in subfolders}


def _visible(folder):
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def is_picture(file):
    """Tell whether a path is a file whose name ends as a picture's does."""
    return file.suffix.lower() in _EXTENSIONS and file.is_file()


def check_classes(root, parts, *, least):
    """Return the class names, or say what is wrong with a folder to train on.

    Parameters
    ----------
    root : Path
        The folder.
    parts : dict
        Of :func:`list_image_folder`.
    least : int
        Number of pictures that each class needs.

    Returns
    -------
    names : list of str
    """
    part, test = root / next(iter(parts)), root / list(parts)[-1]
    folders = list(parts.values())
    names = list(folders[0])
    if len(names) < 2:
        found = f"only one ({names[0]!r})" if names else "none"
        raise ValueError(f"{part} needs a subfolder of pictures for each of two or more classes; it has {found}.")
    unknown = sorted(set(folders[-1]) - set(names))
    if unknown:
        raise ValueError(
            f"{test} has the class {unknown[0]!r}, which {part} has not ({', '.join(names)}). "
            "Give it training pictures, or take it out of the test."
        )
    for name, files in folders[0].items():
        if len(files) < least:
            raise ValueError(
                f"{part / name} has {len(files)} pictures; expected at least {least} ({suffixes()}). "
                "Add some, or remove the folder."
            )
    if not any(folders[-1].values()):
        raise ValueError(f"{test} has no pictures ({suffixes()}) in class subfolders; put some there.")
    return names


def suffixes():
    """Return how the names of pictures end."""
    return " ".join(sorted(_EXTENSIONS))


def _stacked(images):
    return np.stack(images) if len({image.shape for image in images}) == 1 else images


def load_npz(path):
    """Load an ``.npz`` file with the arrays ``X_train``, ``y_train``, ``X_test`` and ``y_test``.

    Parameters
    ----------
    path : str or path
        Written with ``np.savez(path, X_train=..., y_train=..., X_test=..., y_test=...)``. Images are
        (n, height, width) or (n, height, width, 3), integers in 0..255 or floats in [0, 1]; labels are ints
        or strings.

    Returns
    -------
    dataset : Bunch
        ``images`` is uint8 or float32, the training images first.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If an array is missing or does not fit the others, or holds Python objects, which could run code.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}; expected .npz with {', '.join(_KEYS)}.")
    arrays = _read_arrays(path)
    images = _joined_images(path, arrays)
    labels = _joined_labels(path, arrays)
    n_train = len(arrays["X_train"])
    names, target = np.unique(labels, return_inverse=True)
    unknown = sorted(set(target[n_train:]) - set(target[:n_train]))
    if unknown:
        raise ValueError(f"y_test of {path} has the label {str(names[unknown[0]])!r}, which y_train has not.")
    if len(names) < 2:
        raise ValueError(f"{path} has only the label {str(names[0])!r}; expected two or more classes.")
    about = f"The arrays of {path}."
    return _bunch(str(path), images, target, names.astype(str), about, np.arange(len(target)) < n_train)


def _read_arrays(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            found = list(file)
            arrays = {key: file[key] for key in _KEYS if key in found}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds
        raise ValueError(
            f"{path} cannot be read as an .npz file of plain arrays ({error}); write it with np.savez."
        ) from error
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}; expected {', '.join(_KEYS)}, found {', '.join(found) or 'nothing'}."
        )
    return arrays


def _joined_images(path, arrays):
    train, test = arrays["X_train"], arrays["X_test"]
    for key, X in (("X_train", train), ("X_test", test)):
        if X.ndim not in (3, 4) or (X.ndim == 4 and X.shape[3] != 3) or 0 in X.shape:
            raise ValueError(
                f"{key} of {path} has shape {X.shape}; expected (n, height, width) or (n, height, width, 3)."
            )
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise ValueError(
            f"{path}: X_train holds {train.dtype} images of shape {train.shape[1:]} and X_test {test.dtype} "
            f"of {test.shape[1:]}; expected the same."
        )
    try:
        return as_pixels(np.concatenate([train, test]), unit_range=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"X_train and X_test of {path}: {error}") from error


def _joined_labels(path, arrays):
    for part in ("train", "test"):
        X, y = arrays[f"X_{part}"], arrays[f"y_{part}"]
        if y.shape != (len(X),) or y.dtype.kind not in "iuU":
            raise ValueError(
                f"y_{part} of {path} has shape {y.shape} and dtype {y.dtype}; expected {len(X)} ints or "
                f"strings, one for each image of X_{part}."
            )
    if (arrays["y_train"].dtype.kind == "U") != (arrays["y_test"].dtype.kind == "U"):
        raise ValueError(f"{path}: y_train and y_test hold strings and ints; expected the same of both.")
    return np.concatenate([arrays["y_train"], arrays["y_test"]])


def _bunch(name, images, target, target_names, about, is_train=None, random_state=_SPLIT_SEED):
    if is_train is None:
        is_train = _stratified(np.asarray(target), random_state)
    return Bunch(
        name=name,
        images=images,
        target=np.asarray(target, np.int64),
        target_names=np.asarray(target_names, str),
        train=np.flatnonzero(is_train),
        test=np.flatnonzero(~is_train),
        DESCR=f"{about} {len(images)} images, {len(target_names)} classes.",
    )


def _stratified(target, random_state):
    """Draw a quarter of each class, and at least one, for testing; return the mask of the others.

    scikit-learn's splitter refuses small folders, such as two classes of two pictures.
    """
    rng = check_random_state(random_state)
    is_train = np.ones(len(target), bool)
    for label in np.unique(target):
        members = rng.permutation(np.flatnonzero(target == label))
        is_train[members[: max(1, round(len(members) / 4))]] = False
    return is_train
