"""Predictions on the host, wherever they were made."""

from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from ._array_api import to_numpy


def _has(method):
    return available_if(lambda self: hasattr(getattr(self, "estimator_", self.estimator), method))


class HostPredictions(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A classifier whose labels, scores and probabilities come back as NumPy arrays, wherever it computes them.

    scikit-learn's classifiers leave the numbers that they predict on a GPU, and all classifiers their scores. Many
    metrics cannot compare those with labels on the host, and a search reports NaN. Around such a classifier, or around
    a whole Pipeline, this makes every metric work: it sees what it would see of a model on the CPU.

    Parameters
    ----------
    estimator : classifier or Pipeline
        It is cloned, not changed.

    Attributes
    ----------
    estimator_ : classifier or Pipeline
        The same, fitted; where its own attributes lie is its own affair.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_features_in_ : int
        Features seen in ``fit``, if the estimator counts them.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, if the estimator knows them.

    See Also
    --------
    ToHost : The same for what a transformer gives.

    Examples
    --------
    Without a GPU nothing changes.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from classic_cls import HOG, HostPredictions, load_digits
    >>> digits = load_digits()
    >>> model = HostPredictions(make_pipeline(HOG(pixels_per_cell=4, cells_per_block=1), LogisticRegression()))
    >>> scores = cross_val_score(model, digits.images[:300], digits.target[:300], scoring="roc_auc_ovr")
    >>> bool(scores.min() > 0.9)
    True
    """

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y, **fit_params):
        """Fit the estimator.

        Parameters
        ----------
        X : array, or list of images
            Whatever the estimator takes.
        y : array of shape (n,) or (n, n_labels)
            Labels; from a GPU they are taken to the host.
        **fit_params
            Go to the estimator's ``fit``.

        Returns
        -------
        self : HostPredictions
        """
        self.estimator_ = clone(self.estimator).fit(X, to_numpy(y), **fit_params)
        self.classes_ = to_numpy(self.estimator_.classes_)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        return self

    def predict(self, X):
        """Return the label of each row, in the dtype of ``classes_``."""
        return self._ask("predict", X)

    @_has("decision_function")
    def decision_function(self, X):
        """Return the estimator's scores."""
        return self._ask("decision_function", X)

    @_has("predict_proba")
    def predict_proba(self, X):
        """Return the estimator's probabilities."""
        return self._ask("predict_proba", X)

    @_has("predict_log_proba")
    def predict_log_proba(self, X):
        """Return the logarithms of the estimator's probabilities."""
        return self._ask("predict_log_proba", X)

    def _ask(self, method, X):
        check_is_fitted(self, "estimator_")
        return to_numpy(getattr(self.estimator_, method)(X))

    def __sklearn_tags__(self):
        tags, own = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.input_tags, tags.target_tags, tags.classifier_tags = own.input_tags, own.target_tags, own.classifier_tags
        return tags
