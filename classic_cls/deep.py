"""Small networks trained from nothing, as classifiers of images: the deep models to compare with."""

from contextlib import contextmanager
from numbers import Real

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.pipeline import make_pipeline
from sklearn.utils import check_consistent_length, check_random_state, gen_batches
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ._images import as_pixels, fit_images, one_of, positive_int, positive_number, transform_images
from .features.flip_average import FlipAverage
from .features.hog import HOG
from .features.resize import Resize

_SMALLEST = 8  # pixels
_IMAGES = 256  # to predict at a time


class NetClassifier(ClassifierMixin, BaseEstimator):
    """Small convolutional network, trained from nothing on the CPU in minutes.

    "resnet" is a ResNet of three residual blocks, "cnn" a plain network of four convolutions with max pooling; both
    normalise batches and average over the last layer's positions, so that images may have any size from 8 x 8 pixels
    up. Stochastic gradient descent with Nesterov momentum, weight decay, label smoothing and a learning rate that
    rises and falls once; training images are moved a little and, where that helps, mirrored. skorch runs the training,
    torch computes: ``pip install "classic_cls[deep]"``.

    Parameters
    ----------
    architecture : {"resnet", "cnn"}, default="resnet"
        The layers.
    epochs : int or "auto", default="auto"
        How often each training image is seen. "auto": 15 times where there are 10,000, 70 times where there are 1,000,
        323 times where there are 100: steps grow with the cube root of the number of images.
    batch_size : int, default=32
        Images per step, 2 or more.
    learning_rate : float, default=0.05
        The largest.
    weight_decay : float, default=1e-3
        The pull of the weights towards zero.
    label_smoothing : float, default=0.1
        The part of a label that is spread over all classes, from 0 up to, but without, 1.
    dropout : float, default=0
        The part of the last layer's inputs that is left out in a training step, likewise.
    shift : float, default=0.125
        The part of its sides by which a training image is moved at most, from 0 up to, but without, 1.
    flips : {"auto", True, False}, default="auto"
        Whether mirror images are trained on, and probabilities averaged over an image and its mirror image. "auto": if
        they help a linear classifier of HOG features, see :class:`FlipAverage`.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.
    n_jobs : int, default=None
        Number of threads, -1 for all processors; None leaves it to torch.
    random_state : int, RandomState or None, default=None
        Seed of the first weights and of the order and variation of the images. The same seed and number of threads
        give the same weights.
    verbose : int, default=0
        1 prints the loss and the time of each epoch.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    module_ : torch.nn.Module
        The trained network: from images (n, channels, height, width), uint8 or float32 in [0, 1], to logits.
    flips_ : bool
        Whether mirror images are used.
    loss_curve_ : list of float
        The training loss of each epoch.
    image_shape_ : tuple
        ``(height, width, channels)`` of the images seen in ``fit``.

    See Also
    --------
    OnnxClassifier : A network that was trained elsewhere.
    make_baseline : The classical classifier to compare with.

    References
    ----------
    K. He, X. Zhang, S. Ren and J. Sun, "Deep residual learning for image recognition", CVPR 2016.
    L. Smith and N. Topin, "Super-convergence: very fast training of neural networks using large learning rates", 2018.

    Examples
    --------
    >>> from classic_cls import NetClassifier, load_digits
    >>> digits = load_digits()
    >>> model = NetClassifier("cnn", epochs=10, flips=False, n_jobs=1, random_state=0)
    >>> model.fit(digits.images[:100], digits.target[:100]).score(digits.images[100:200], digits.target[100:200]) > 0.5
    True
    """

    def __init__(
        self,
        architecture="resnet",
        *,
        epochs="auto",
        batch_size=32,
        learning_rate=0.05,
        weight_decay=1e-3,
        label_smoothing=0.1,
        dropout=0.0,
        shift=0.125,
        flips="auto",
        image_shape=None,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.architecture = architecture
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.dropout = dropout
        self.shift = shift
        self.flips = flips
        self.image_shape = image_shape
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y):
        """Train the network.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels)
            Images of one size, 8 x 8 pixels or more, uint8 or float in [0, 1].
        y : array of shape (n,)
            Labels, numbers or strings.

        Returns
        -------
        self : NetClassifier

        Raises
        ------
        ImportError
            If torch or skorch is not installed.
        ValueError
            If the images are smaller or differ in size, y has one class only, a parameter is out of range, or the
            training diverged.
        """
        _import_torch()
        self._check_parameters()
        images = _large_enough(fit_images(self, X))
        codes = self._codes(images, y)
        rng = check_random_state(self.random_state)
        self.flips_ = self._flips_help(images, codes, rng) if self.flips == "auto" else bool(self.flips)
        with _threads(self.n_jobs), _seeded(rng):
            net = self._net(pixels := _channels_first(as_pixels(images, unit_range=True)))
            net.fit(pixels, codes)
        self._check_weights(net.module_)
        self.module_ = net.module_.eval()
        self.loss_curve_ = [float(loss) for loss in net.history[:, "train_loss"]]
        return self

    def _check_parameters(self):
        one_of(self.architecture, "architecture", ("resnet", "cnn"))
        one_of(self.flips, "flips", ("auto", True, False))
        if self.epochs != "auto":
            positive_int(self.epochs, "epochs")
        if positive_int(self.batch_size, "batch_size") < 2:
            raise ValueError("batch_size=1; expected 2 or more: a single image cannot be normalised.")
        positive_number(self.learning_rate, "learning_rate")
        if self.weight_decay != 0:
            positive_number(self.weight_decay, "weight_decay")
        for name in ("label_smoothing", "dropout", "shift"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value < 1:
                raise ValueError(f"{name}={value!r}; expected 0 or more, and less than 1.")

    def _codes(self, images, y):
        """Return the labels as numbers from 0, and remember the classes."""
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
        check_consistent_length(images, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class only, {self.classes_.tolist()}; expected two or more.")
        return codes.astype(np.int64)

    def _flips_help(self, images, codes, rng):
        features = make_pipeline(Resize(32, n_jobs=self.n_jobs), HOG(cells_per_block=2, n_jobs=self.n_jobs))
        return bool(FlipAverage(features, max_images=1500, random_state=rng).fit(images, codes).flips_)

    def _net(self, pixels):
        """Return the untrained network with its schedule, as skorch has it."""
        from skorch import NeuralNetClassifier
        from skorch.callbacks import LRScheduler
        from torch import nn, optim

        batch_size = min(self.batch_size, len(pixels))
        epochs = _epochs(len(pixels)) if self.epochs == "auto" else int(self.epochs)
        once = LRScheduler(
            optim.lr_scheduler.OneCycleLR,
            step_every="batch",
            max_lr=self.learning_rate,
            total_steps=epochs * (len(pixels) // batch_size),
        )
        return NeuralNetClassifier(
            self._module(pixels),
            criterion=nn.CrossEntropyLoss(label_smoothing=self.label_smoothing),
            optimizer=optim.SGD,
            optimizer__momentum=0.9,
            optimizer__nesterov=True,
            optimizer__weight_decay=self.weight_decay,
            max_epochs=epochs,
            batch_size=batch_size,
            iterator_train__shuffle=True,
            iterator_train__drop_last=True,  # the last may be a single image
            train_split=None,
            callbacks=[("schedule", once)],
            verbose=self.verbose,
        )

    def _module(self, pixels):
        from ._nets import ARCHITECTURES, Net

        make = ARCHITECTURES[self.architecture]
        layers = make(pixels.shape[1], len(self.classes_), *pixels.shape[2:], self.dropout)
        return Net(layers, *_mean_and_std(pixels), shift=self.shift, flips=self.flips_)

    def _check_weights(self, module):
        if not all(weights.isfinite().all() for weights in module.state_dict().values()):
            raise ValueError(
                f"The training diverged: weights became infinite or NaN. Lower learning_rate={self.learning_rate!r}."
            )

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels)
            Images of the size seen in ``fit``.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes), float32
        """
        images = transform_images(self, X)
        torch = _import_torch()
        probabilities = np.empty((len(images), len(self.classes_)), np.float32)
        with _threads(self.n_jobs), torch.inference_mode():
            for batch in gen_batches(len(images), _IMAGES):
                pixels = _channels_first(as_pixels(images[batch], unit_range=True))
                probabilities[batch] = self.module_(torch.from_numpy(pixels)).softmax(1).numpy()
        return probabilities

    def predict(self, X):
        """Return the most probable class of each image."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def make_small_cnn(*, image_shape=None, n_jobs=None, random_state=None):
    """Four convolutions with max pooling, trained from nothing: :class:`NetClassifier` with "cnn".

    Parameters
    ----------
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.
    n_jobs : int, default=None
        Number of threads.
    random_state : int, RandomState or None, default=None
        Seed of the first weights and of the order and variation of the images.

    Returns
    -------
    classifier : NetClassifier
        Unfitted; X must be an array of images of one size, 8 x 8 pixels or more.

    Examples
    --------
    >>> from classic_cls import make_small_cnn
    >>> make_small_cnn(random_state=0)
    NetClassifier(architecture='cnn', random_state=0)
    """
    return NetClassifier("cnn", image_shape=image_shape, n_jobs=n_jobs, random_state=random_state)


def make_small_resnet(*, image_shape=None, n_jobs=None, random_state=None):
    """Three residual blocks, trained from nothing: :class:`NetClassifier` with "resnet".

    Parameters and result are those of :func:`make_small_cnn`.

    Examples
    --------
    >>> from classic_cls import make_small_resnet
    >>> make_small_resnet().architecture
    'resnet'
    """
    return NetClassifier("resnet", image_shape=image_shape, n_jobs=n_jobs, random_state=random_state)


def _import_torch():
    try:
        import skorch  # noqa: F401
        import torch
    except ImportError as error:
        raise ImportError(
            f'NetClassifier needs torch and skorch: pip install "classic_cls[deep]" ({error}).'
        ) from error
    return torch


def _large_enough(images):
    height, width = images.shape[1:3]
    if min(height, width) < _SMALLEST:
        raise ValueError(
            f"The images have {height} x {width} pixels; expected {_SMALLEST} x {_SMALLEST} or more. "
            "Put Resize(32) before the network."
        )
    return images


@contextmanager
def _threads(n_jobs):
    """Let torch have `n_jobs` threads, and afterwards as many as it had."""
    import torch

    before = torch.get_num_threads()
    try:
        if n_jobs is not None:
            torch.set_num_threads(effective_n_jobs(n_jobs))
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _seeded(rng):
    """Let torch draw from `rng`, and afterwards go on where it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng.randint(2**31 - 1))
        yield


def _channels_first(pixels):
    return pixels.transpose(0, 3, 1, 2).copy()  # torch warns of arrays that are read-only


def _epochs(n):
    """Return how often to go through `n` images, so that steps grow with the cube root of n."""
    return max(5, round(15 * (10000 / n) ** (2 / 3)))


def _mean_and_std(pixels):
    """Return each channel's mean and standard deviation, of pixels in [0, 1]; 1 for a channel without any."""
    scale = 255 if pixels.dtype == np.uint8 else 1
    mean, std = (getattr(pixels, name)((0, 2, 3), dtype=np.float64) / scale for name in ("mean", "std"))
    return mean, np.where(std > 1e-6, std, 1)
