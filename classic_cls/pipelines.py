"""Ready pipelines: plain scikit-learn Pipelines from images to classes, with defaults for images of any size."""

from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.svm import LinearSVC

from .features.bag_of_words import BagOfVisualWords
from .features.color_histogram import ColorHistogram
from .features.dense_sift import DenseSIFT
from .features.hog import HOG
from .features.resize import Resize


def make_hog_svm(*, image_shape=None, n_jobs=None, random_state=None):
    """HOG at 64 x 64 pixels, linear SVM.

    Parameters
    ----------
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.
    n_jobs : int, default=None
        Number of threads.
    random_state : int, RandomState or None, default=None
        Seed of whatever in the pipeline draws at random.

    Returns
    -------
    pipeline : sklearn.pipeline.Pipeline
        Unfitted; X may be an array of images or a list of images of different sizes.

    Examples
    --------
    >>> from classic_cls import load_faces, make_hog_svm
    >>> faces = load_faces()
    >>> model = make_hog_svm().fit(faces.images[faces.train], faces.target[faces.train])
    >>> model.score(faces.images[faces.test], faces.target[faces.test]) > 0.9
    True
    """
    return Pipeline([*_hog(image_shape, n_jobs), ("svm", _linear_svm(random_state))])


def make_color_forest(*, image_shape=None, n_jobs=None, random_state=None):
    """HSV histograms over the image and its quarters, random forest.

    Parameters and result are those of :func:`make_hog_svm`.

    Examples
    --------
    >>> from classic_cls import make_color_forest
    >>> list(make_color_forest(random_state=0).named_steps)
    ['color', 'forest']
    """
    forest = RandomForestClassifier(n_estimators=300, n_jobs=n_jobs, random_state=random_state)
    return Pipeline([("color", _color("l1", image_shape, n_jobs)), ("forest", forest)])


def make_bovw_svm(*, image_shape=None, n_jobs=None, random_state=None):
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
    return Pipeline([("resize", resize), ("words", words), ("svm", _linear_svm(random_state, C=10))])


def make_hog_color_svm(*, image_shape=None, n_jobs=None, random_state=None):
    """HOG and HSV histograms side by side, linear SVM.

    Parameters and result are those of :func:`make_hog_svm`.

    Examples
    --------
    >>> from classic_cls import make_hog_color_svm
    >>> [name for name, _ in make_hog_color_svm().named_steps["features"].transformer_list]
    ['hog', 'color']
    """
    parts = [("hog", Pipeline(_hog(image_shape, n_jobs))), ("color", _color("hellinger", image_shape, n_jobs))]
    return Pipeline([("features", FeatureUnion(parts)), ("svm", _linear_svm(random_state))])


def make_kmeans_clusters(n_clusters=8, *, image_shape=None, n_jobs=None, random_state=None):
    """HOG at 64 x 64 pixels, principal components (80 % of the variance), k-means.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    image_shape, n_jobs, random_state
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
    return Pipeline([*_hog(image_shape, n_jobs), ("pca", PCA(0.8)), ("kmeans", kmeans)])


PIPELINES = {
    "bovw-svm": make_bovw_svm,
    "color-forest": make_color_forest,
    "hog-color-svm": make_hog_color_svm,
    "hog-svm": make_hog_svm,
    "kmeans-clusters": make_kmeans_clusters,
}
"""The pipelines by name, each a function that takes `image_shape`, `n_jobs` and `random_state`."""


def _hog(image_shape, n_jobs):
    resize = Resize((64, 64), image_shape=image_shape, n_jobs=n_jobs)
    return [("resize", resize), ("hog", HOG(cells_per_block=(2, 2), n_jobs=n_jobs))]


def _color(norm, image_shape, n_jobs):
    return ColorHistogram(
        bins=(8, 4, 4), color_space="hsv", grid=(2, 2), norm=norm, image_shape=image_shape, n_jobs=n_jobs
    )


def _linear_svm(random_state, C=0.1):
    return LinearSVC(C=C, dual=False, random_state=random_state)
