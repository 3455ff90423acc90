"""How long a fit will take, and how much memory, from a short one on the same images."""

from dataclasses import dataclass

import numpy as np
from sklearn.base import clone

from .._images import take
from ..kernel_map import RBFNystroem
from .cost import timed

_IMAGES = 200  # of the short fit
_ALPHAS = 5  # that RidgeLOOClassifier tries, usually
_LEFT_OUT = 4096  # rows it leaves out
_MANY_IMAGES = 2000  # from which on a forecast is worth its time
_LONG = 60  # seconds: a fit to be announced


@dataclass(frozen=True)
class Forecast:
    """What :func:`forecast` expects.

    Attributes
    ----------
    seconds : float
        Of the fit.
    bytes : float
        Peak memory beside the images.
    """

    seconds: float
    bytes: float

    def __str__(self):
        minutes = self.seconds / 60
        time = f"{minutes:.0f} min" if minutes > 1.5 else f"{self.seconds:.0f} s"
        return f"about {time} and {self.bytes / 2**30:.1f} GiB"


def forecast(pipeline, images, y, random_state=0):
    """Return roughly what fitting a pipeline will cost.

    The pipeline is fitted on 200 of the images. What its steps took for each image is multiplied; matrix algebra that
    grows faster is reckoned from its size and a product timed here.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        From images to a classifier; it is cloned, not changed.
    images : array or list of images
        The training images.
    y : array of shape (n,) or (n, n_labels)
        Their labels.
    random_state : int, default=0
        Draws the 200.

    Returns
    -------
    forecast : Forecast
        Within a factor of two or so, on an otherwise idle machine.

    Examples
    --------
    >>> from classic_cls import load_digits, make_hog_svm
    >>> from classic_cls.benchmark.forecast import forecast
    >>> digits = load_digits()
    >>> forecast(make_hog_svm(), digits.images, digits.target).seconds < 60
    True
    """
    chosen = np.random.default_rng(random_state).permutation(len(images))[:_IMAGES]
    few = take(images, chosen)
    model = clone(pipeline)
    fit_seconds, _ = timed(lambda: model.fit(few, np.asarray(y)[chosen]))
    seconds_each, features = timed(lambda: model[:-1].transform(few))
    kernel = next((step for step in _steps(model) if isinstance(step, RBFNystroem)), None)
    n, n_columns = len(images), features.shape[1]
    if kernel is None:
        seconds, numbers = 0, 2 * n * n_columns
    else:
        seconds, numbers = _kernel_cost(kernel, n)
    return Forecast(fit_seconds + seconds_each / len(few) * n + seconds, 4 * numbers)


def long_fit(pipeline, images, y):
    """Return the :func:`forecast` of a fit that is to be announced, for it will take a minute or more; else None."""
    if len(images) < _MANY_IMAGES:
        return None
    try:
        expected = forecast(pipeline, images, y)
    except Exception:  # a few images may lack a class; what else is wrong, the fit itself will tell
        return None
    return expected if expected.seconds >= _LONG else None


def _steps(estimator):
    """Go through the steps of pipelines within pipelines, fitted."""
    if hasattr(estimator, "transformer_"):
        yield from _steps(estimator.transformer_)
    for _, step in getattr(estimator, "steps", []):
        yield step
        yield from _steps(step)


def _kernel_cost(kernel, n):
    """Return the seconds of the algebra behind `n` rows, and the float32 numbers held at a time."""
    m, columns = min(n, kernel.n_components), len(kernel.center_)
    dims = min(kernel.n_dims or columns, columns)
    compare = 2 * n * (2 * m * dims + m**2)  # an image and its mirror image
    solve = 2 * n * m**2 + _ALPHAS * 2 * (m**3 / 3 + min(n, _LEFT_OUT) * m**2)  # double precision takes twice as long
    held = max(3 * m * columns, n * m + 4 * m**2 + 4 * min(n, _LEFT_OUT) * m)
    return (compare + solve) / _operations_per_second(), held


def _operations_per_second(size=1500):
    square = np.ones((size, size), np.float32)
    return 2 * size**3 / min(timed(lambda: square @ square)[0] for _ in range(3))
