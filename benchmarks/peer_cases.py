"""What `peers.py` times: for each case our call, the peer's, and how to tell that they do the same.

All images are crops of the photographs that come with scikit-image. A rival's check raises AssertionError where its
output is not what ours is.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import cv2
import numpy as np
import skimage
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import softmax
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.metrics import pairwise_distances_argmin
from sklearn.mixture import GaussianMixture

from classic_cls import (
    BagOfVisualWords,
    DenseSIFT,
    FisherVector,
    PatchKMeans,
    assign_words,
    color_histogram,
    dense_sift,
    fisher_vector,
    hog,
    llc,
    patch_features,
    resize,
    soft_assign_words,
    vlad,
)

_COLOR = ("astronaut", "coffee", "chelsea", "rocket")
_GRAY = ("camera", "coins", "moon", "brick")
_SIGMA = 1.6  # to which OpenCV's SIFT smooths an image that it takes to have 0.5


class Rival(NamedTuple):
    """What a case is compared with."""

    name: str
    run: Callable[[], np.ndarray]
    check: Callable[[np.ndarray, np.ndarray], None]  # of our output and the rival's


class Case(NamedTuple):
    """One thing to time; `items` images or descriptors a call."""

    items: int
    ours: Callable[[], np.ndarray]
    peer: Rival
    limit: Rival | None = None


def crops(n, height, width, names, seed=0):
    """Return `n` crops of the named photographs in turn, uint8, (n, height, width) or (n, height, width, 3)."""
    rng = np.random.default_rng(seed)
    return np.stack([_crop(_photo(names[i % len(names)]), height, width, rng) for i in range(n)])


@cache
def _photo(name):
    return getattr(skimage.data, name)()


def _crop(photo, height, width, rng):
    y, x = rng.integers(0, photo.shape[0] - height + 1), rng.integers(0, photo.shape[1] - width + 1)
    return photo[y : y + height, x : x + width]


def _within(tolerance):
    return partial(np.testing.assert_allclose, rtol=0, atol=tolerance)


def hog_case(limits, n, size, block, color=False):
    """HOG against scikit-image, which gets the images as floats in [0, 1], made before the clock starts."""
    images = crops(n, size, size, _COLOR if color else _GRAY)
    floats, channel_axis = images / 255, -1 if color else None

    def peer():
        parameters = {"cells_per_block": (block, block), "channel_axis": channel_axis}
        return np.stack([skimage.feature.hog(image, **parameters) for image in floats])

    limit = Rival("limit", partial(limits.hog, images, (block, block)), _within(1e-5)) if limits and not color else None
    ours = partial(hog, images, cells_per_block=(block, block))
    return Case(n, ours, Rival("scikit-image hog", peer, _within(1e-5)), limit)


def sift_case(limits, n, size):
    """Dense SIFT, step 4, bins of 4 pixels, against OpenCV at the same places."""
    images = crops(n, size, size, _GRAY)
    ours = partial(dense_sift, contrast_threshold=0)
    limit = Rival("limit", partial(limits.dense_sift, images), _within(1e-3)) if limits else None
    smoothed = ours(_smoothed(images))

    def check(_, theirs):
        _check_directions(smoothed, theirs)

    peer = Rival("OpenCV SIFT", partial(_opencv_sift, images), check)
    return Case(n, partial(ours, images), peer, limit)


def _opencv_sift(images):
    """Return OpenCV's descriptors on the grid of `DenseSIFT()`, (n, n_descriptors, 128) float32."""
    # OpenCV's bins are 1.5 times a keypoint's size.
    keypoints = [cv2.KeyPoint(float(x), float(y), 4 / 1.5, 0) for y, x in DenseSIFT().positions(images.shape[1:])]
    sift = cv2.SIFT_create()
    return np.stack([sift.compute(image, keypoints)[1] for image in images])


def _smoothed(images):
    """Return images as floats, smoothed as OpenCV's SIFT smooths them."""
    sigma = np.sqrt(_SIGMA**2 - 0.5**2)
    return np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in np.float32(images) / np.float32(255)])


def _check_directions(ours, theirs):
    """Check the mean cosine between descriptors; OpenCV's directions turn the other way."""
    np.testing.assert_equal(theirs.shape, ours.shape)
    turned = theirs.reshape(-1, 16, 8)[..., -np.arange(8)].reshape(theirs.shape)
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(turned, axis=-1)
    cosine = (ours * turned).sum(axis=-1)[lengths > 0] / lengths[lengths > 0]
    np.testing.assert_array_less(0.95, cosine.mean(), "mean cosine of OpenCV's descriptors and ours")


def color_case(limits, n, size, hsv=False):
    """Joint histogram of 8 x 8 x 8 bins against ``cvtColor`` (for HSV) and ``calcHist``, image by image."""
    images = crops(n, size, size, _COLOR)
    ranges = [0, 180 if hsv else 256, 0, 256, 0, 256]

    def count(image):
        levels = cv2.cvtColor(image, cv2.COLOR_RGB2HSV) if hsv else image
        return cv2.calcHist([levels], [0, 1, 2], None, [8, 8, 8], ranges).ravel()

    peer = Rival("OpenCV calcHist", lambda: np.stack([count(image) for image in images]), np.testing.assert_array_equal)
    limit = (
        Rival("limit", partial(limits.color_histogram, images, hsv), np.testing.assert_array_equal) if limits else None
    )
    return Case(n, partial(color_histogram, images, color_space="hsv" if hsv else "rgb"), peer, limit)


def assign_case(limits, n, n_words):
    """Nearest word of dense SIFT descriptors against scikit-learn's ``pairwise_distances_argmin``."""
    descriptors = dense_sift(crops(-(-(n + n_words) // 841), 128, 128, _GRAY)).reshape(-1, 128)
    descriptors = descriptors[np.random.default_rng(0).permutation(len(descriptors))]
    vocabulary, descriptors = descriptors[:n_words].copy(), descriptors[n_words : n_words + n].copy()

    def check(ours, theirs):
        ours, theirs = (np.linalg.norm(descriptors - vocabulary[words], axis=1) for words in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=1e-3)

    peer = Rival("scikit-learn argmin", partial(pairwise_distances_argmin, descriptors, vocabulary), check)
    limit = Rival("limit", partial(limits.assign, descriptors, vocabulary), check) if limits else None
    return Case(n, partial(assign_words, descriptors, vocabulary), peer, limit)


def soft_case(_, n, n_words, n_neighbors=5):
    """Soft weights of the 5 nearest words against NumPy."""
    descriptors, vocabulary = _descriptors_and_words(n, n_words)

    def peer():
        words, distances = _nearest_in_numpy(descriptors, vocabulary, n_neighbors)
        weights = np.exp(-10 * (distances - distances.min(axis=1, keepdims=True)))
        return words, weights / weights.sum(axis=1, keepdims=True)

    return Case(n, partial(soft_assign_words, descriptors, vocabulary), Rival("NumPy", peer, _check_weights))


def llc_case(_, n, n_words, n_neighbors=5):
    """LLC's weights of the 5 nearest words against NumPy."""
    descriptors, vocabulary = _descriptors_and_words(n, n_words)
    identity = np.eye(n_neighbors, dtype=np.float32)

    def peer():
        words, _ = _nearest_in_numpy(descriptors, vocabulary, n_neighbors)
        differences = vocabulary[words] - descriptors[:, None]
        products = differences @ differences.transpose(0, 2, 1)
        products += 1e-4 * np.trace(products, axis1=1, axis2=2)[:, None, None] * identity
        weights = np.linalg.solve(products, np.ones((n, n_neighbors, 1), np.float32))[:, :, 0]
        return words, weights / weights.sum(axis=1, keepdims=True)

    return Case(n, partial(llc, descriptors, vocabulary), Rival("NumPy", peer, _check_weights))


def _descriptors_and_words(n, n_words):
    descriptors = dense_sift(crops(-(-(n + n_words) // 841), 128, 128, _GRAY), contrast_threshold=0).reshape(-1, 128)
    descriptors = descriptors[np.random.default_rng(0).permutation(len(descriptors))]
    return descriptors[n_words : n_words + n].copy(), descriptors[:n_words].copy()


def _nearest_in_numpy(descriptors, vocabulary, n_neighbors):
    lengths = (descriptors**2).sum(axis=1)[:, None] + (vocabulary**2).sum(axis=1)
    distances = lengths - 2 * descriptors @ vocabulary.T
    words = np.argpartition(distances, n_neighbors, axis=1)[:, :n_neighbors]
    return words, np.take_along_axis(distances, words, axis=1)


def _check_weights(ours, theirs):
    """Check that nearly all weights agree; float32 in NumPy decides otherwise between words nearly as far."""
    ours, theirs = (np.take_along_axis(weights, words.argsort(axis=1), axis=1) for words, weights in (ours, theirs))
    np.testing.assert_array_less(0.98, (np.abs(ours - theirs) < 1e-2).mean(), "share of weights that agree")


def vlad_case(_, n, n_words):
    """VLAD of dense SIFT descriptors against NumPy: a product and an argmax, then a mean per word."""
    descriptors, vocabulary = _descriptors_and_words(n, n_words)

    def peer():
        words = (descriptors @ vocabulary.T - (vocabulary**2).sum(axis=1) / 2).argmax(axis=1)
        sums = np.stack([(descriptors[words == k] - word).sum(axis=0) for k, word in enumerate(vocabulary)])
        roots = np.sign(sums) * np.sqrt(np.abs(sums))
        roots /= np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-12)
        return roots.ravel() / np.linalg.norm(roots)

    return Case(n, partial(vlad, descriptors, vocabulary), Rival("NumPy", peer, _within(1e-2)))


def fisher_case(_, n, n_components, rival="NumPy"):
    """Fisher vector of dense SIFT descriptors in 64 dimensions against one of the rivals below."""
    images = crops(-(-n // 841), 128, 128, _GRAY)
    model = FisherVector(DenseSIFT(contrast_threshold=0), n_components, append_position=False, random_state=0)
    model.fit(images)
    descriptors = np.concatenate(dense_sift(images, contrast_threshold=0))[:n]
    descriptors = np.ascontiguousarray((descriptors - model.mean_) @ model.components_.T)
    mixture = model.weights_, model.means_, model.variances_
    rivals = {"NumPy": _numpy_fisher, "tuned NumPy": _tuned_numpy_fisher, "scikit-image": _scikit_image_fisher}
    peer = Rival(rival, rivals[rival](descriptors, *mixture), _within(1e-2))
    return Case(n, partial(fisher_vector, descriptors, *mixture), peer)


def _numpy_fisher(descriptors, weights, means, variances):
    """Return Fisher vectors as their formulas say: posteriors, and sums of the descriptors and of their squares."""

    def run():
        offsets = np.log(weights) - 0.5 * (np.log(variances) + means**2 / variances).sum(axis=1)
        squares = descriptors**2
        densities = offsets + descriptors @ (means / variances).T - 0.5 * squares @ (1 / variances).T
        posteriors = softmax(densities, axis=1)
        first, second = posteriors.T @ descriptors, posteriors.T @ squares
        return _gradients(posteriors.sum(axis=0), first, second, weights, means, variances)

    return run


def _tuned_numpy_fisher(descriptors, weights, means, variances):
    """Return the same by half as many products, and without denormal numbers, which would be slow."""
    factors = np.concatenate([means / variances, -0.5 / variances], axis=1).T.copy()
    offsets = np.log(weights) - 0.5 * (np.log(variances) + means**2 / variances).sum(axis=1)

    def run():
        both = np.concatenate([descriptors, descriptors**2], axis=1)
        posteriors = both @ factors + offsets
        posteriors -= posteriors.max(axis=1, keepdims=True)
        np.exp(np.maximum(posteriors, -80, out=posteriors), out=posteriors)
        posteriors /= posteriors.sum(axis=1, keepdims=True)
        first, second = np.split(posteriors.T @ both, 2, axis=1)
        return _gradients(posteriors.sum(axis=0), first, second, weights, means, variances)

    return run


def _gradients(counts, first, second, weights, means, variances):
    by_mean = (first - counts[:, None] * means) / np.sqrt(variances * weights[:, None])
    by_variance = second + counts[:, None] * (means**2 - variances) - 2 * means * first
    by_variance /= variances * np.sqrt(2 * weights[:, None])
    return _improved(np.concatenate([by_mean.ravel(), by_variance.ravel()]))


def _scikit_image_fisher(descriptors, weights, means, variances):
    mixture = GaussianMixture(len(weights), covariance_type="diag")
    mixture.weights_, mixture.means_, mixture.covariances_ = weights / weights.sum(), means, variances
    mixture.precisions_cholesky_ = 1 / np.sqrt(variances)

    def run():
        by_weight_mean_variance = skimage.feature.fisher_vector(descriptors, mixture)
        by_mean, by_variance = np.split(by_weight_mean_variance[len(weights) :], 2)
        return _improved(np.concatenate([by_mean, -by_variance]))

    return run


def _improved(vector):
    roots = np.sign(vector) * np.sqrt(np.abs(vector))
    return roots / np.linalg.norm(roots)


def patches_case(_, n, n_entries):
    """Triangle features of 6 x 6 patches of RGB images against NumPy; the limit is BLAS at as many multiplications."""
    images = crops(n, 32, 32, _COLOR)
    model = PatchKMeans(n_entries, dictionary="patches", random_state=0).fit(crops(400, 32, 32, _COLOR, seed=1))
    learned = model.mean_, model.whitening_, model.dictionary_
    square = np.ones((1024, 1024), np.float32)
    many = np.ones((n * 27 * 27 * 108 * n_entries // square.size, 1024), np.float32)  # as many multiplications
    product = Rival("sgemm", partial(np.matmul, many, square), lambda ours, theirs: None)
    peer = Rival("NumPy", partial(_numpy_patches, images, *learned), _within(1e-3))
    return Case(n, partial(patch_features, images, *learned), peer, product)


def _numpy_patches(images, mean, whitening, dictionary):
    return np.concatenate([_numpy_patches_of_one(image, mean, whitening, dictionary) for image in images])


def _numpy_patches_of_one(image, mean, whitening, dictionary):
    patches = sliding_window_view(image, (6, 6), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    rows = patches.reshape(-1, dictionary.shape[1]) / np.float32(255)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.sqrt((rows**2).mean(axis=1, keepdims=True) + 10 / 255**2)
    rows = (rows - mean) @ whitening
    squares = (rows**2).sum(axis=1, keepdims=True) - 2 * rows @ dictionary.T + (dictionary**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares, 0))
    responses = np.maximum(distances.mean(axis=1, keepdims=True) - distances, 0).reshape(*patches.shape[:2], -1)
    middle = len(responses) // 2
    halves = slice(None, middle), slice(middle, None)
    return np.concatenate([responses[down, across].mean(axis=(0, 1)) for down in halves for across in halves])[None]


def bag_case(_, n, n_words, kmeans, fit):
    """Bag of visual words of 64 x 64 images, with or without learning the vocabulary, against `_Bag`."""
    images = crops(n, 64, 64, _GRAY)
    model = BagOfVisualWords(DenseSIFT(contrast_threshold=0), n_words, random_state=0)
    bag = _Bag(kmeans.set_params(n_clusters=n_words, random_state=0))
    if fit:
        ours, theirs = model.fit_transform, bag.fit_transform
    else:
        ours, theirs = model.fit(images).transform, bag.fit(images).transform
    peer = Rival(f"OpenCV SIFT, {type(kmeans).__name__}", partial(theirs, images), _check_similarities)
    return Case(n, partial(ours, images), peer)


class _Bag:
    """Bag of visual words as one writes it with OpenCV and scikit-learn, with what `BagOfVisualWords` learns from."""

    def __init__(self, kmeans):
        self.kmeans, self.n_words = kmeans, kmeans.n_clusters

    def fit(self, images):
        return self.learn(_opencv_sift(images))

    def transform(self, images):
        return self.count(_opencv_sift(images))

    def fit_transform(self, images):
        described = _opencv_sift(images)
        return self.learn(described).count(described)

    def learn(self, described):
        descriptors = described.reshape(-1, 128)
        n_samples = min(len(descriptors), 100 * self.n_words)
        sample = descriptors[np.random.default_rng(0).choice(len(descriptors), n_samples, replace=False)]
        self.vocabulary = self.kmeans.fit(sample).cluster_centers_
        return self

    def count(self, described):
        words = pairwise_distances_argmin(described.reshape(-1, 128), self.vocabulary).reshape(len(described), -1)
        counts = np.stack([np.bincount(row, minlength=self.n_words) for row in words])
        return np.sqrt(counts / counts.sum(axis=1, keepdims=True), dtype=np.float32)


def _check_similarities(ours, theirs):
    """Check that the two, whose words differ, find the same images alike."""
    np.testing.assert_equal(theirs.shape, ours.shape)
    pairs = np.triu_indices(len(ours), 1)
    correlation = np.corrcoef((ours @ ours.T)[pairs], (theirs @ theirs.T)[pairs])[0, 1]
    np.testing.assert_array_less(0.8, correlation, "correlation of similarities between images")


def resize_cv2_case(_, n):
    """120 x 160 to 64 x 64 floats against a loop over ``cv2.resize``, which rounds to uint8 in between."""
    images = crops(n, 120, 160, _COLOR)

    def peer():
        shrunk = [cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in images]
        return np.stack(shrunk) / np.float32(255)

    return Case(n, partial(resize, images, 64), Rival("OpenCV resize", peer, _within(0.51 / 255)))


def resize_skimage_case(_, n):
    """120 x 160 to 64 x 64 floats against a loop over scikit-image's, which smooths and then interpolates."""
    images = crops(n, 120, 160, _COLOR)

    def peer():
        return np.stack([skimage.transform.resize(image, (64, 64), anti_aliasing=True) for image in images])

    def check(ours, theirs):
        np.testing.assert_array_less(np.abs(ours - theirs).mean(), 0.02)

    return Case(n, partial(resize, images, 64), Rival("scikit-image resize", peer, check))


# By name: how to make the case, from the limit studies (or None) and a number that divides how many items it has.
CASES = {
    "hog-32": lambda limits, k: hog_case(limits, 1000 // k, 32, 2),
    "hog-128": lambda limits, k: hog_case(limits, 100 // k, 128, 2),
    "hog-128-blocks-3x3": lambda limits, k: hog_case(limits, 100 // k, 128, 3),
    "hog-128-color": lambda limits, k: hog_case(limits, 100 // k, 128, 2, color=True),
    "dense-sift-128": lambda limits, k: sift_case(limits, 40 // k, 128),
    "rgb-histogram-32": lambda limits, k: color_case(limits, 1000 // k, 32),
    "rgb-histogram-128": lambda limits, k: color_case(limits, 200 // k, 128),
    "hsv-histogram-32": lambda limits, k: color_case(limits, 1000 // k, 32, hsv=True),
    "hsv-histogram-128": lambda limits, k: color_case(limits, 200 // k, 128, hsv=True),
    "assign-1000-words": lambda limits, k: assign_case(limits, 20_000 // k, 1000),
    "soft-256-words": lambda limits, k: soft_case(limits, 3000 // k, 256),
    "llc-256-words": lambda limits, k: llc_case(limits, 3000 // k, 256),
    "vlad-64-words": lambda limits, k: vlad_case(limits, 3000 // k, 64),
    "fisher-64": lambda limits, k: fisher_case(limits, 3000 // k, 64),
    "fisher-256": lambda limits, k: fisher_case(limits, 3000 // k, 256),
    "fisher-64-tuned": lambda limits, k: fisher_case(limits, 3000 // k, 64, "tuned NumPy"),
    "fisher-256-tuned": lambda limits, k: fisher_case(limits, 3000 // k, 256, "tuned NumPy"),
    "fisher-64-scikit-image": lambda limits, k: fisher_case(limits, 3000 // k, 64, "scikit-image"),
    "patches-1600": lambda limits, k: patches_case(limits, 60 // k, 1600),
    "bag-fit-transform-minibatch": lambda limits, k: bag_case(limits, 200 // k, 256 // k, MiniBatchKMeans(), fit=True),
    "bag-fit-transform-lloyd": lambda limits, k: bag_case(limits, 200 // k, 256 // k, KMeans(max_iter=30), fit=True),
    "bag-transform": lambda limits, k: bag_case(limits, 200 // k, 256 // k, MiniBatchKMeans(), fit=False),
    "resize-opencv": lambda limits, k: resize_cv2_case(limits, 200 // k),
    "resize-scikit-image": lambda limits, k: resize_skimage_case(limits, 200 // k),
}
