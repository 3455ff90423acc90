"""A network that was trained elsewhere, read from an ONNX file, as a classifier of images."""

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, gen_batches
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ._images import as_pixels, fit_images, one_of, positive_number, read_images
from ._onnx import Network, model_bytes

_IMAGES = 64  # at a time, where the model leaves it open


class OnnxClassifier(ClassifierMixin, BaseEstimator):
    """Trained network from an ONNX file, run by onnxruntime on the CPU.

    It predicts at once; ``fit`` trains nothing and only matches the labels with the model's outputs, so that the model
    can stand beside others in cross-validation or :func:`classic_cls.benchmark.run`. A pickle holds the model itself
    and needs the file no more; a clone reads it again. Needs ``pip install "classic_cls[onnx]"``.

    Parameters
    ----------
    model : str, path or bytes
        An .onnx file, or the bytes of one. It takes one batch of images, as ``(n, channels, height, width)``,
        ``(n, height, width, channels)``, ``(n, height, width)`` or rows of pixels, float or uint8; n may be fixed.
    classes : sequence of length n_classes, default=None
        The labels of the outputs, in their order. None: 0, 1, ...; or, after a ``fit`` on other labels, those in
        sorted order.
    scale : float, default=1
        What a float model is given for white, 255 for pixels from 0 to 255. Of a uint8 model's pixels nothing is
        changed.
    mean, std : float or sequence of length n_channels, default=None
        What is subtracted from the scaled pixels, and what they are then divided by.
    layout : {"auto", "NCHW", "NHWC"}, default="auto"
        Where the channels are; "auto": at the only place where the model has 1 or 3.
    output : {"auto", "logits", "probabilities"}, default="auto"
        What the model gives; softmax makes probabilities of logits. "auto": what :func:`export_onnx` says of its files;
        of others, probabilities if no number is negative and each row sums to one.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.
    n_jobs : int, default=None
        Number of threads, -1 for all processors; None leaves it to onnxruntime.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.

    See Also
    --------
    NetClassifier : A small network, trained here.
    export_onnx : Writes a fitted pipeline to an ONNX file.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import TensorProto, helper
    >>> from classic_cls import OnnxClassifier
    >>> images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 8, 8])
    >>> scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 64])
    >>> flatten = helper.make_node("Flatten", ["images"], ["scores"])
    >>> graph = helper.make_graph([flatten], "brightest", [images], [scores])
    >>> model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    >>> OnnxClassifier(model.SerializeToString()).predict(np.eye(64).reshape(64, 8, 8)[[5, 40]])
    array([ 5, 40])
    """

    def __init__(
        self,
        model,
        classes=None,
        *,
        scale=1.0,
        mean=None,
        std=None,
        layout="auto",
        output="auto",
        image_shape=None,
        n_jobs=None,
    ):
        self.model = model
        self.classes = classes
        self.scale = scale
        self.mean = mean
        self.std = std
        self.layout = layout
        self.output = output
        self.image_shape = image_shape
        self.n_jobs = n_jobs

    def fit(self, X, y):
        """Match labels with the model's outputs, and check that it takes these images; nothing is trained.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels)
            Images of the model's size, uint8 or float in [0, 1].
        y : array of shape (n,)
            Labels, all among `classes` where these are given.

        Returns
        -------
        self : OnnxClassifier

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ImportError
            If onnx or onnxruntime is not installed.
        ValueError
            If the model cannot be read or run, takes other images, or tells other classes apart than those of y.
        """
        images = fit_images(self, X)
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        check_consistent_length(images, y)
        self._fitted = None
        outputs = self._labels(self._probabilities(images[:1]).shape[1])
        self._fitted = _matched(np.unique(y), outputs, self.classes is None)
        return self

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels)
            Images of the model's size, uint8 or float in [0, 1].

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes), float
        """
        probabilities = self._probabilities(read_images(X, self.image_shape))
        self._labels(probabilities.shape[1])  # checks that there are as many
        return probabilities

    def predict(self, X):
        """Return the most probable class of each image."""
        probabilities = self.predict_proba(X)
        return self._labels(probabilities.shape[1])[probabilities.argmax(1)]

    @property
    def classes_(self):
        """Labels, in the order of `predict_proba`'s columns."""
        labels = self._labels()
        if labels is None:
            raise AttributeError("The model does not say how many classes it has; give classes=, or call fit.")
        return labels

    def _labels(self, n_classes=None):
        """Return the labels of the outputs, which must be `n_classes` if that is known; None where nothing is."""
        labels = getattr(self, "_fitted", None)
        if labels is None:
            labels = self._loaded().labels if self.classes is None else _checked_classes(self.classes)
        if n_classes is None:
            return labels
        labels = np.arange(n_classes) if labels is None else labels
        if len(labels) != n_classes:
            raise ValueError(f"The model has {n_classes} outputs, and there are {len(labels)} labels; mend classes=.")
        return labels

    def _loaded(self):
        """Return the model, read when it is first needed."""
        key = (self.model, self.n_jobs)
        if getattr(self, "_network", None) is None or self._network_key != key:
            self._network, self._network_key = Network(model_bytes(self.model), self.n_jobs), key
        return self._network

    def __getstate__(self):
        self._loaded()  # a pickle holds the model, not only where it lies
        return super().__getstate__()

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.requires_fit = False
        return tags

    def _probabilities(self, images):
        output = one_of(self.output, "output", ("auto", "logits", "probabilities"))
        network = self._loaded()
        layout = one_of(self.layout, "layout", ("auto", "NCHW", "NHWC"))
        scores = []
        for batch in gen_batches(len(images), network.batch_size or _IMAGES):
            pixels = self._scaled(images[batch], network.dtype)
            scores.append(network.run(network.arranged(pixels, layout)))
        scores = np.concatenate(scores)
        if not np.isfinite(scores).all():
            raise ValueError("The model's output contains NaN or infinity for these images.")
        known = network.scores_kind if output == "auto" else None
        return _as_probabilities(scores, known or output)

    def _scaled(self, images, dtype):
        """Return images as the numbers that the model wants."""
        plain = self.scale == 1 and self.mean is None and self.std is None
        pixels = as_pixels(images, unit_range=True)
        if dtype == np.uint8:
            if not plain:
                raise ValueError("The model takes uint8 pixels; leave scale=1, mean=None and std=None.")
            return pixels if pixels.dtype == np.uint8 else np.rint(pixels * 255).astype(np.uint8)
        pixels = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
        if not plain:
            mean, std = (_per_channel(self, name, pixels.shape[3]) for name in ("mean", "std"))
            pixels = (pixels * positive_number(self.scale, "scale") - mean) / std
        return pixels.astype(dtype, copy=False)


def _per_channel(estimator, name, n_channels):
    value = getattr(estimator, name)
    if value is None:
        return 0 if name == "mean" else 1
    values = np.asarray(value)
    right = values.dtype.kind in "iuf" and values.shape in ((), (n_channels,)) and np.isfinite(values).all()
    if not right or (name == "std" and values.min() <= 0):
        raise ValueError(
            f"{name}={value!r}; expected a {'positive ' * (name == 'std')}number, or one for each of the "
            f"{n_channels} channels."
        )
    return values.astype(np.float32)


def _checked_classes(classes):
    labels = np.asarray(classes)
    if labels.ndim != 1 or len(np.unique(labels)) < len(labels):
        raise ValueError(f"classes={classes!r}; expected the labels of the outputs, each once, in their order.")
    return labels


def _matched(seen, expected, may_rename):
    """Return the labels of the outputs; refuse labels that the outputs do not have."""
    unknown = [label for label in seen.tolist() if label not in expected.tolist()]
    if not unknown:
        return expected
    if not may_rename:
        raise ValueError(f"y has labels that are not among classes: {', '.join(map(repr, unknown[:5]))}.")
    if len(seen) != len(expected):
        raise ValueError(
            f"The model tells {len(expected)} classes apart, and y has {len(seen)} labels, from {seen.tolist()[0]!r} "
            f"to {seen.tolist()[-1]!r}. Give the labels of the outputs, in their order: classes=."
        )
    return seen


def _as_probabilities(scores, output):
    """Return rows that sum to one; a single column is that of the second of two classes."""
    single = scores.shape[1] == 1
    if output == "auto":
        sums_right = (scores <= 1).all() if single else np.allclose(scores.sum(1), 1, atol=1e-3)
        output = "probabilities" if (scores >= 0).all() and sums_right else "logits"
    if single:
        scores = np.hstack([1 - scores if output == "probabilities" else np.zeros_like(scores), scores])
    return scores if output == "probabilities" else softmax(scores, axis=1)
