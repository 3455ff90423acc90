"""Features that do not tell an image from its mirror image."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import check_consistent_length, check_random_state, gen_batches, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._arrays import empty_beside, on_device, to_host
from .._images import fit_images, one_of, positive_int, take, transform_images
from ..ridge import RidgeLOOClassifier

_IMAGES = 1024  # at a time: their features stay small beside the images
_IMAGES_ON_DEVICE = 4096  # each time what the transformer has learned goes there again
_JUDGED = 1500  # images on which "auto" decides
_NOTICEABLY = 0.999  # where it makes no difference, as with two images, rounding must not decide


class FlipAverage(TransformerMixin, BaseEstimator):
    """The mean of what a transformer gives for an image and for its mirror image (left and right exchanged).

    A photograph's class seldom changes in a mirror, and a classifier need not learn that from examples: with kernel
    features, the mean has the effect of twice the training images at no more rows to fit. Digits, letters and
    traffic signs do change; "auto" finds out.

    Parameters
    ----------
    transformer : transformer
        Takes images, gives rows of features, as a descriptor or a Pipeline that starts with one. It is cloned, not
        changed.
    flips : {"auto", True, False}, default="auto"
        Whether to average. "auto": if a linear classifier has the smaller leave-one-out error with it, on at most
        1,500 training images; without labels not.
    max_images : int, default=10000
        The transformer learns from so many images, drawn at random, where there are more.
    random_state : int, RandomState or None, default=None
        Draws the images. The transformer has its own.
    image_shape : tuple of int, default=None
        ``(height, width)`` or ``(height, width, 3)`` of an image where X holds flat rows.

    Attributes
    ----------
    transformer_ : transformer
        The fitted transformer.
    flips_ : bool
        Whether mirror images are used.
    image_shape_ : tuple
        ``(height, width, channels)`` of the images seen in ``fit``; height and width None where they differed.

    References
    ----------
    B. Haasdonk and H. Burkhardt, "Invariant kernel functions for pattern analysis and machine learning", Machine
    Learning 68, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from classic_cls import HOG, FlipAverage
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    >>> model = FlipAverage(HOG(), flips=True).fit(images)
    >>> bool(np.allclose(model.transform(images), model.transform(images[:, :, ::-1]), atol=1e-6))
    True
    """

    def __init__(self, transformer, flips="auto", *, max_images=10000, random_state=None, image_shape=None):
        self.transformer = transformer
        self.flips = flips
        self.max_images = max_images
        self.random_state = random_state
        self.image_shape = image_shape

    def fit(self, X, y=None):
        """Fit the transformer, and decide whether to average.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images
            Images, uint8 or float in [0, 1]; in a list their sizes may differ if the transformer allows that.
        y : array of shape (n,) or (n, n_labels), default=None
            Labels.

        Returns
        -------
        self : FlipAverage

        Raises
        ------
        ValueError
            If there are not as many labels as images, or a parameter is out of range.
        TypeError
            If `transformer` is none.
        """
        _check_transformer(self.transformer)
        one_of(self.flips, "flips", ("auto", True, False))
        max_images = positive_int(self.max_images, "max_images")
        images = fit_images(self, X, ragged=True, device=True)
        if y is not None:
            check_consistent_length(images, y)
        chosen = check_random_state(self.random_state).permutation(len(images))[:max_images]
        labels = None if y is None else np.asarray(to_host(y))[chosen]
        sample = take(images, chosen)
        self.transformer_ = clone(self.transformer).fit(sample, labels)
        self.flips_ = self._flips_help(sample, labels) if self.flips == "auto" else self.flips
        return self

    def _flips_help(self, images, labels):
        if labels is None:
            return False
        images, labels = images[:_JUDGED], labels[:_JUDGED]
        if labels.ndim == 1 and len(np.unique(labels)) < 2:
            return False
        features = self.transformer_.transform(images)
        averaged = (features + self.transformer_.transform(_mirrored(images))) / 2
        rows = features, averaged
        errors = [RidgeLOOClassifier(random_state=0).fit(each, labels).loo_error_ for each in rows]
        return errors[1] < _NOTICEABLY * errors[0]

    def transform(self, X):
        """Return the transformer's features, averaged if `flips_`.

        Parameters
        ----------
        X : array of shape (n, height, width), (n, height, width, 3) or (n, n_pixels), or list of images

        Returns
        -------
        features : array of shape (n, n_features)
            In the array type that the transformer gives.
        """
        images = transform_images(self, X, ragged=True, device=True)
        out = None
        for batch in gen_batches(len(images), _IMAGES_ON_DEVICE if on_device(images) else _IMAGES):
            features = self._features(images[batch])
            if out is None:
                out = empty_beside(features, (len(images), features.shape[1]), features.dtype)
            out[batch] = features
        return out

    def _features(self, images):
        features = self.transformer_.transform(images)
        return (features + self.transformer_.transform(_mirrored(images))) / 2 if self.flips_ else features

    @available_if(lambda self: hasattr(self.transformer, "get_feature_names_out"))
    def get_feature_names_out(self, input_features=None):
        """Return the transformer's names."""
        check_is_fitted(self)
        return self.transformer_.get_feature_names_out()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = get_tags(self.transformer).transformer_tags.preserves_dtype
        return tags


def _check_transformer(transformer):
    if isinstance(transformer, type) or not (hasattr(transformer, "fit") and hasattr(transformer, "transform")):
        raise TypeError(f"transformer={transformer!r}; expected an estimator with fit and transform, such as HOG().")


def _mirrored(images):
    if isinstance(images, list):
        return [image[:, ::-1] for image in images]
    return images[:, :, ::-1]
