"""Corrupted images, mild to severe, and how well fitted models still do on them."""

import hashlib
import numbers
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import accuracy_score

from .._images import as_bytes, one_of, read_any_sizes, take

_STRENGTHS = {
    "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),  # standard deviation; white is 1
    "blur": (0.01, 0.015, 0.025, 0.04, 0.06),  # standard deviation of the Gaussian, in shorter sides
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added; white is 1
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # factor
    "jpeg": (65, 40, 25, 15, 8),  # quality
    "rotation": (4, 8, 12, 20, 30),  # degrees
    "shift": (0.03, 0.06, 0.1, 0.15, 0.2),  # in shorter sides
    "occlusion": (0.15, 0.25, 0.35, 0.45, 0.55),  # side of the square, in shorter sides
}
CORRUPTIONS = tuple(_STRENGTHS)
SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(images, kind, severity, *, random_state=0):
    """Return images as a worse camera, storage or photographer would have left them.

    After Hendrycks and Dietterich [1]_, with fewer kinds, and lengths that scale with the image:

    ================  =============================================================  ==============================
    kind              what is done                                                   severity 1 to 5
    ================  =============================================================  ==============================
    gaussian_noise    added to each channel; standard deviation, white being 1       0.04, 0.08, 0.12, 0.18, 0.26
    blur              Gaussian; standard deviation in shorter sides of the image     0.01, 0.015, 0.025, 0.04, 0.06
    brightness        added to all channels, white being 1                           0.1, 0.2, 0.3, 0.4, 0.5
    contrast          distance from each channel's mean, times                       0.75, 0.5, 0.4, 0.3, 0.15
    jpeg              compressed; quality                                            65, 40, 25, 15, 8
    rotation          about the centre, to the left or the right; degrees            4, 8, 12, 20, 30
    shift             in any direction; distance in shorter sides                    0.03, 0.06, 0.1, 0.15, 0.2
    occlusion         a gray square anywhere; its side in shorter sides              0.15, 0.25, 0.35, 0.45, 0.55
    ================  =============================================================  ==============================

    What a rotation or a shift brings in from outside is the image's mirror image.

    Parameters
    ----------
    images : array of shape (n, height, width) or (n, height, width, 3), or list of images
        uint8, or float in [0, 1], which is rounded to 8 bits.
    kind : str
        One of ``CORRUPTIONS``.
    severity : int
        1 to 5.
    random_state : int, default=0
        Seed of noise, directions and places. What is drawn for an image depends on the seed and on its pixels alone:
        the batch can be split or shuffled, and nothing changes. All severities use the same draw.

    Returns
    -------
    images : ndarray of uint8 of the same shape, or list of such images

    Raises
    ------
    ValueError
        If `kind`, `severity` or `random_state` is none of these, or the images hold NaN or floats outside [0, 1].

    References
    ----------
    .. [1] D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to common corruptions and
       perturbations", ICLR 2019.

    Examples
    --------
    >>> from classic_cls import load_textures
    >>> from classic_cls.benchmark import corrupt
    >>> images = load_textures().images[:10]
    >>> corrupted = corrupt(images, "jpeg", 5)
    >>> corrupted.shape, corrupted.dtype
    ((10, 32, 32), dtype('uint8'))
    """
    one_of(kind, "kind", CORRUPTIONS)
    strength = _STRENGTHS[kind][_checked_severity(severity) - 1]
    if not isinstance(random_state, numbers.Integral) or random_state < 0:
        raise ValueError(f"random_state={random_state!r}; expected an int, 0 or larger.")
    batch = read_any_sizes(images)
    corrupted = [_corrupted(as_bytes(image), _FUNCTIONS[kind], strength, int(random_state)) for image in batch]
    shaped = [x.reshape(np.shape(image)) for x, image in zip(corrupted, images, strict=True)]
    return shaped if isinstance(images, (list, tuple)) else np.stack(shaped)


def _checked_severity(severity):
    if not isinstance(severity, numbers.Integral) or isinstance(severity, bool) or severity not in SEVERITIES:
        raise ValueError(f"severity={severity!r}; expected an int from 1 (mild) to 5 (severe).")
    return int(severity)


def _corrupted(image, function, strength, seed):
    """Return an image (height, width, channels) corrupted."""
    digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest)])
    return function(image, strength, rng).reshape(image.shape)


def _gaussian_noise(image, deviation, rng):
    return _rounded(image + np.float32(255 * deviation) * rng.standard_normal(image.shape, np.float32))


def _blur(image, deviation, rng):
    import cv2

    return cv2.GaussianBlur(image, (0, 0), deviation * min(image.shape[:2]), borderType=cv2.BORDER_REFLECT)


def _brightness(image, added, rng):
    return _rounded(image + np.float32(255 * added))


def _contrast(image, factor, rng):
    mean = image.mean(axis=(0, 1), dtype=np.float32)
    return _rounded(mean + np.float32(factor) * (image - mean))


def _rounded(pixels):
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def _jpeg(image, quality, rng):
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def _rotation(image, degrees, rng):
    import cv2

    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(degrees * rng.choice([-1, 1])), 1)
    return _warped(image, turn)


def _shift(image, distance, rng):
    angle = rng.uniform(0, 2 * np.pi)
    x, y = distance * min(image.shape[:2]) * np.array([np.cos(angle), np.sin(angle)])
    return _warped(image, np.array([[1, 0, x], [0, 1, y]]))


def _warped(image, matrix):
    import cv2

    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _occlusion(image, share, rng):
    side = max(1, round(share * min(image.shape[:2])))
    top, left = (int(rng.random() * (length - side + 1)) for length in image.shape[:2])
    image = image.copy()
    image[top : top + side, left : left + side] = 128
    return image


_FUNCTIONS = {
    "gaussian_noise": _gaussian_noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "jpeg": _jpeg,
    "rotation": _rotation,
    "shift": _shift,
    "occlusion": _occlusion,
}


@dataclass(frozen=True)
class Robustness:
    """How well models do on corrupted test images.

    Attributes
    ----------
    records : list of dict
        One for each model, kind and severity, with ``model``, ``kind``, ``severity`` and ``accuracy``. The kind "clean"
        of severity 0 are the images as they are.
    """

    records: list

    @property
    def table(self):
        """The records as a :class:`pandas.DataFrame`."""
        import pandas as pd

        return pd.DataFrame(self.records, columns=["model", "kind", "severity", "accuracy"])

    @property
    def by_kind(self):
        """The mean accuracy over the severities, a DataFrame of models by kinds ("clean" the first)."""
        table = self.table
        means = table.pivot_table("accuracy", "model", "kind", aggfunc="mean", sort=False)
        return means[table["kind"].unique()].rename_axis(columns=None)

    @property
    def summary(self):
        """For each model its accuracy ``clean``, the mean over kinds ``corrupted``, and their quotient ``relative``.

        A quotient is NaN where nothing was right in the clean images.
        """
        means = self.by_kind
        summary = means[["clean"]].assign(corrupted=means.drop(columns="clean").mean(axis=1))
        return summary.assign(relative=summary["corrupted"] / summary["clean"].where(summary["clean"] > 0))


def robustness(models, dataset, *, kinds=None, severities=SEVERITIES, random_state=0, progress=None):
    """Score fitted models on corrupted test images.

    Parameters
    ----------
    models : dict of str to estimator
        Fitted, by name; each with ``predict`` for images such as the data set's.
    dataset : Bunch
        What :func:`classic_cls.load_dataset` returns; the images of ``dataset.test`` are used. Where images are float,
        models get the corrupted ones as float32 in [0, 1] too.
    kinds : list of str, default=None
        Of ``CORRUPTIONS``; None means all.
    severities : sequence of int, default=(1, 2, 3, 4, 5)
        Severities to score.
    random_state : int, default=0
        As in :func:`corrupt`.
    progress : callable, default=None
        Called as ``progress(done, total, kind)`` before each kind and severity, and at the end with ``kind=None``.

    Returns
    -------
    result : Robustness
        ``.table`` has one row for each model, kind and severity; ``.by_kind`` and ``.summary`` are means of it. Of
        several labels per image all must be right.

    Raises
    ------
    TypeError
        If `models` is not a dict of estimators that predict.
    ValueError
        If there is no model, no test image, or no such kind or severity.

    Examples
    --------
    >>> from classic_cls import load_faces, make_hog_svm
    >>> from classic_cls.benchmark import robustness
    >>> faces = load_faces()
    >>> model = make_hog_svm().fit(faces.images[faces.train], faces.target[faces.train])
    >>> result = robustness({"hog": model}, faces, kinds=["contrast", "occlusion"])
    >>> result.table.shape
    (11, 4)
    >>> result.by_kind.columns.tolist()
    ['clean', 'contrast', 'occlusion']
    """
    _check_models(models)
    conditions = _conditions(kinds, severities)
    images, target = _test_images(dataset)
    records = []
    for done, (kind, severity) in enumerate(conditions):
        if progress is not None:
            progress(done, len(conditions), kind)
        seen = images if severity == 0 else _like(images, corrupt(images, kind, severity, random_state=random_state))
        for name, model in models.items():
            accuracy = float(accuracy_score(target, model.predict(seen)))
            records.append({"model": name, "kind": kind, "severity": severity, "accuracy": accuracy})
    if progress is not None:
        progress(len(conditions), len(conditions), None)
    return Robustness(records)


def _check_models(models):
    if not isinstance(models, dict):
        raise TypeError(f"models is a {type(models).__name__}; expected a dict of fitted estimators by name.")
    if not models:
        raise ValueError("models is empty; expected at least one fitted estimator.")
    for name, model in models.items():
        if not hasattr(model, "predict"):
            raise TypeError(f"The model {name!r} is a {type(model).__name__}, which has no predict method.")


def _conditions(kinds, severities):
    kinds = CORRUPTIONS if kinds is None else [one_of(kind, "kind", CORRUPTIONS) for kind in kinds]
    severities = [_checked_severity(severity) for severity in severities]
    if not len(kinds) or not severities:
        raise ValueError(f"kinds={kinds!r}, severities={severities!r}; expected at least one of each.")
    return [("clean", 0), *((kind, severity) for kind in kinds for severity in severities)]


def _test_images(dataset):
    if not len(dataset.test):
        raise ValueError("The data set has no test images; expected at least one index in dataset.test.")
    return take(dataset.images, dataset.test), dataset.target[dataset.test]


def _like(images, corrupted):
    """Return corrupted images as float in [0, 1] where the images are."""
    if isinstance(images, list):
        return [_like(image, x) for image, x in zip(images, corrupted, strict=True)]
    return corrupted / np.float32(255) if images.dtype.kind == "f" else corrupted
