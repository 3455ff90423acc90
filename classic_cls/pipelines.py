"""Ready pipelines: plain scikit-learn Pipelines from images to classes, with defaults for images of any size."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC

from . import svm
from ._images import one_of
from .cluster import KMeans
from .features.bag_of_words import BagOfVisualWords
from .features.color_histogram import ColorHistogram
from .features.dense_sift import DenseSIFT
from .features.fisher_vector import FisherVector
from .features.flip_average import FlipAverage
from .features.hog import HOG
from .features.patch_kmeans import PatchKMeans
from .features.resize import Resize
from .kernel_map import RBFNystroem
from .ridge import RidgeLOOClassifier
from .to_device import ToDevice, ToHost, check_device_name


def make_baseline(preset="balanced", *, image_shape=None, n_jobs=None, random_state=None, device=None):
    """Strongest classical classifier that a budget allows: descriptors in a Gaussian kernel, least squares.

    Learned patches, HOG and, but for "fast", Fisher vectors of dense SIFT are computed of an image and of its mirror
    image (where that helps, see :class:`FlipAverage`), compared with those of a sample of the training images by a
    Gaussian kernel (:class:`RBFNystroem`), and classified by :class:`RidgeLOOClassifier`.

    Parameters
    ----------
    preset : {"fast", "balanced", "best"}, default="balanced"
        The budget. For 50,000 images of 32 x 32 pixels on two cores: "fast" takes about two minutes, "balanced" ten to
        fifteen; "best", with twice the patches and landmarks, several times as long. A few hundred images take
        seconds to a minute.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.
    n_jobs : int, default=None
        Number of threads of the descriptors; matrix products use those of NumPy.
    random_state : int, RandomState or None, default=None
        Seed of whatever in the pipeline draws at random.
    device : {"cuda", "cuda:0", "cuda:1", ...}, default=None
        A GPU for all steps, from the images to the scores: :class:`ToDevice` comes first. X stays an array on the host,
        and so do labels; probabilities lie on the GPU, see :func:`make_hog_svm`. None means the CPU.

    Returns
    -------
    pipeline : sklearn.pipeline.Pipeline
        Unfitted; X may be an array of images or a list of images of different sizes.

    Raises
    ------
    ValueError
        If there is no such preset, or `device` is no name of a GPU.

    Examples
    --------
    >>> from classic_cls import load_digits, make_baseline
    >>> digits = load_digits()
    >>> model = make_baseline("fast", random_state=0).fit(digits.images[digits.train], digits.target[digits.train])
    >>> model.score(digits.images[digits.test], digits.target[digits.test]) > 0.98
    True
    """
    n_patches, n_components, n_dims = _PRESETS[one_of(preset, "preset", tuple(_PRESETS))]
    options = {"n_jobs": n_jobs, "random_state": random_state}
    parts = [("patches", _patches(n_patches, 6, ((2, 2), (3, 3)), options)), ("hog", Pipeline(_hog(None, n_jobs)))]
    if preset != "fast":
        parts += [("patches9", _patches(n_patches, 9, (3, 3), options)), ("fisher", _fisher(options))]
    kernel = RBFNystroem(n_components, standardize=True, n_dims=n_dims, random_state=random_state)
    features = Pipeline([("descriptors", FeatureUnion(parts)), ("kernel", kernel)])
    flips = FlipAverage(features, max_images=n_components, random_state=random_state, image_shape=image_shape)
    ridge = RidgeLOOClassifier(random_state=random_state)
    return Pipeline([*_to_device(device), ("features", flips), ("ridge", ridge)])


# Entries of each patch dictionary, landmarks of the kernel, principal components in which it compares.
_PRESETS = {"fast": (160, 2500, 600), "balanced": (400, 8000, 1500), "best": (800, 16000, 2000)}


def _patches(n_clusters, patch_size, pool, options):
    patches = PatchKMeans(n_clusters, patch_size, 1, pool, "soft_threshold", dictionary="spherical", **options)
    root = FunctionTransformer(np.sqrt, feature_names_out="one-to-one")  # evens out rare, strong responses
    resize = Resize((32, 32), n_jobs=options["n_jobs"])
    return Pipeline([("resize", resize), ("patches", patches), ("root", root)])


def _fisher(options):
    sift = DenseSIFT(step=4, bin_size=(4, 6), root=True)
    resize = Resize((96, 96), n_jobs=options["n_jobs"])
    return Pipeline([("resize", resize), ("fisher", FisherVector(sift, **options))])


def make_hog_svm(*, image_shape=None, n_jobs=None, random_state=None, device=None):
    """HOG at 64 x 64 pixels, linear SVM.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.
    n_jobs : int, default=None
        Number of threads.
    random_state : int, RandomState or None, default=None
        Seed of whatever in the pipeline draws at random.
    device : {"cuda", "cuda:0", "cuda:1", ...}, default=None
        A GPU for the steps that can run on one: :class:`ToDevice` comes first, :class:`ToHost` before what runs on
        the CPU alone, and the SVM is :class:`classic_cls.LinearSVC`. X stays an array on the host, and so do labels;
        scores lie on the GPU, and :class:`HostPredictions` around the pipeline brings them back for metrics. None
        means the CPU for all. ``set_params(to_device="passthrough")`` takes a fitted pipeline to a machine without a
        GPU.

    Returns
    -------
    pipeline : sklearn.pipeline.Pipeline
        Unfitted; X may be an array of images or a list of images of different sizes.

    Raises
    ------
    ValueError
        If `device` is no name of a GPU. Whether there is such a GPU turns out in ``fit``.

    Examples
    --------
    >>> from classic_cls import load_faces, make_hog_svm
    >>> faces = load_faces()
    >>> model = make_hog_svm().fit(faces.images[faces.train], faces.target[faces.train])
    >>> model.score(faces.images[faces.test], faces.target[faces.test]) > 0.9
    True
    """
    return Pipeline([*_to_device(device), *_hog(image_shape, n_jobs), ("svm", _linear_svm(random_state, device))])


def make_color_forest(*, image_shape=None, n_jobs=None, random_state=None, device=None):
    """HSV histograms over the image and its quarters, random forest.

    Parameters and result are those of :func:`make_hog_svm`.

    Examples
    --------
    >>> from classic_cls import make_color_forest
    >>> list(make_color_forest(random_state=0).named_steps)
    ['color', 'forest']
    """
    forest = RandomForestClassifier(n_estimators=300, n_jobs=n_jobs, random_state=random_state)
    color = _color("l1", image_shape, n_jobs)
    return Pipeline([*_to_device(device), ("color", color), *_to_host(device), ("forest", forest)])


def make_bovw_svm(*, image_shape=None, n_jobs=None, random_state=None, device=None):
    """Dense RootSIFT at 96 x 96 pixels, 512 visual words in a spatial pyramid, linear SVM.

    Parameters and result are those of :func:`make_hog_svm`.

    Examples
    --------
    >>> from classic_cls import make_bovw_svm
    >>> make_bovw_svm().named_steps["words"].n_words
    512
    """
    words = BagOfVisualWords(
        DenseSIFT(step=4, bin_size=(4, 6), root=True),
        n_words=512,
        pyramid_levels=2,
        random_state=random_state,
        n_jobs=n_jobs,
    )
    resize = Resize((96, 96), image_shape=image_shape, n_jobs=n_jobs)
    classifier = _linear_svm(random_state, device, C=10)
    return Pipeline([*_to_device(device), ("resize", resize), ("words", words), ("svm", classifier)])


def make_hog_color_svm(*, image_shape=None, n_jobs=None, random_state=None, device=None):
    """HOG and HSV histograms side by side, linear SVM.

    Parameters and result are those of :func:`make_hog_svm`.

    Examples
    --------
    >>> from classic_cls import make_hog_color_svm
    >>> [name for name, _ in make_hog_color_svm().named_steps["features"].transformer_list]
    ['hog', 'color']
    """
    parts = [("hog", Pipeline(_hog(image_shape, n_jobs))), ("color", _color("hellinger", image_shape, n_jobs))]
    features = [*_to_device(device), ("features", FeatureUnion(parts))]
    return Pipeline([*features, ("svm", _linear_svm(random_state, device))])


def make_kmeans_clusters(n_clusters=8, *, image_shape=None, n_jobs=None, random_state=None, device=None):
    """HOG at 64 x 64 pixels, principal components (80 % of the variance), k-means.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    image_shape, n_jobs, random_state, device
        As in :func:`make_hog_svm`.

    Returns
    -------
    pipeline : sklearn.pipeline.Pipeline
        Unfitted; ``fit_predict(images)`` gives the clusters, without labels.

    Examples
    --------
    >>> from classic_cls import load_faces, make_kmeans_clusters
    >>> set(make_kmeans_clusters(2, random_state=0).fit_predict(load_faces().images).tolist())
    {0, 1}
    """
    kmeans = KMeans(n_clusters, n_init=10, random_state=random_state)
    hog = [*_to_device(device), *_hog(image_shape, n_jobs), *_to_host(device)]
    return Pipeline([*hog, ("pca", PCA(0.8)), ("kmeans", kmeans)])


def _fast(**options):
    """Learned patches and HOG in a Gaussian kernel, least squares."""
    return make_baseline("fast", **options)


def _balanced(**options):
    """Learned patches, HOG and Fisher vectors in a Gaussian kernel, least squares."""
    return make_baseline("balanced", **options)


def _best(**options):
    """Balanced, with more patches and landmarks."""
    return make_baseline("best", **options)


PIPELINES = {
    "fast": _fast,
    "balanced": _balanced,
    "best": _best,
    "bovw-svm": make_bovw_svm,
    "color-forest": make_color_forest,
    "hog-color-svm": make_hog_color_svm,
    "hog-svm": make_hog_svm,
    "kmeans-clusters": make_kmeans_clusters,
}
"""The pipelines by name, each a function that takes `image_shape`, `n_jobs`, `random_state` and `device`."""

DEFAULT_PIPELINES = [name for name in PIPELINES if name not in ("balanced", "best")]
"""Names of those that run where none are asked for."""


def _hog(image_shape, n_jobs):
    resize = Resize((64, 64), image_shape=image_shape, n_jobs=n_jobs)
    return [("resize", resize), ("hog", HOG(cells_per_block=(2, 2), n_jobs=n_jobs))]


def _color(norm, image_shape, n_jobs):
    return ColorHistogram(
        bins=(8, 4, 4), color_space="hsv", grid=(2, 2), norm=norm, image_shape=image_shape, n_jobs=n_jobs
    )


def _linear_svm(random_state, device, C=0.1):
    return LinearSVC(C=C, dual=False, random_state=random_state) if device is None else svm.LinearSVC(C)


def _to_device(device):
    """Return the step that takes images to a GPU, if one is asked for."""
    if device is None:
        return []
    check_device_name(device)
    return [("to_device", ToDevice(device))]


def _to_host(device):
    """Return the step before those that run on the CPU alone."""
    return [] if device is None else [("to_host", ToHost())]
