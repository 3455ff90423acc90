"""The scores of one pipeline: numbers in [0, 1] (adjusted Rand may fall below 0)."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from sklearn.metrics import adjusted_rand_score, average_precision_score, normalized_mutual_info_score, recall_score


def classification_scores(target, predicted):
    """Score a classifier's predictions.

    Parameters
    ----------
    target, predicted : array of shape (n,)
        The true and the predicted classes.

    Returns
    -------
    scores : dict of str to float
        ``accuracy`` with its 95 % Wilson interval, ``accuracy_low`` and ``accuracy_high``, and
        ``balanced_accuracy``, the mean over the classes in `target` of the share found.

    Examples
    --------
    >>> from classic_cls.benchmark.scores import classification_scores
    >>> scores = classification_scores([0, 0, 0, 1], [0, 0, 0, 0])
    >>> scores["accuracy"], scores["balanced_accuracy"]
    (0.75, 0.5)
    """
    target, predicted = np.asarray(target), np.asarray(predicted)
    hits, n = int(np.sum(target == predicted)), len(target)
    low, high = wilson_interval(hits, n)
    balanced = recall_score(target, predicted, labels=np.unique(target), average="macro", zero_division=0)
    return {
        "accuracy": hits / n,
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": float(balanced),
    }


def wilson_interval(hits, n, confidence=0.95):
    """Return the ends of the Wilson interval of a share, of `hits` in `n`.

    Examples
    --------
    >>> from classic_cls.benchmark.scores import wilson_interval
    >>> low, high = wilson_interval(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    interval = binomtest(int(hits), int(n)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def multilabel_scores(target, predicted, scores):
    """Score a classifier that gives an image several labels, or none.

    Parameters
    ----------
    target, predicted : array of shape (n, n_labels)
        1 where an image has a label, else 0.
    scores : array of shape (n, n_labels)
        The larger, the more likely the label.

    Returns
    -------
    scores : dict of str to float
        ``mean_average_precision`` over the labels that occur in `target`; ``accuracy``, the share of images all of
        whose labels are right, with its 95 % Wilson interval, ``accuracy_low`` and ``accuracy_high``; and
        ``balanced_accuracy``, the mean over the labels that occur of their own balanced accuracy.

    Examples
    --------
    >>> from classic_cls.benchmark.scores import multilabel_scores
    >>> found = multilabel_scores([[1, 0], [0, 1]], [[1, 0], [0, 0]], [[0.9, 0.1], [0.2, 0.4]])
    >>> found["mean_average_precision"], found["accuracy"], found["balanced_accuracy"]
    (1.0, 0.5, 0.75)
    """
    target, predicted, scores = (np.asarray(a) for a in (target, predicted, scores))
    occur = target.any(0)
    if not occur.any():
        raise ValueError("No test image has a label; there is nothing to score.")
    whole = classification_scores(np.ones(len(target), int), (target == predicted).all(1).astype(int))
    each = [classification_scores(target[:, k], predicted[:, k])["balanced_accuracy"] for k in np.flatnonzero(occur)]
    return whole | {
        "mean_average_precision": float(average_precision_score(target[:, occur], scores[:, occur], average="macro")),
        "balanced_accuracy": float(np.mean(each)),
    }


def clustering_scores(target, clusters, train_target, train_clusters):
    """Score a clusterer on the test set.

    Parameters
    ----------
    target, clusters : array of shape (n_test,)
        The true classes and the clusters of the test images.
    train_target, train_clusters : array of shape (n_train,)
        The same of the training images. Which cluster stands for which class is learned on these (one to one,
        by the Hungarian method), so that the matching has not seen the test.

    Returns
    -------
    scores : dict of str to float
        ``adjusted_rand``, ``normalized_mutual_info`` and ``matched_accuracy``. Images in a cluster that
        stands for no class, as when there are more clusters than classes, count as wrong.

    Examples
    --------
    >>> from classic_cls.benchmark.scores import clustering_scores
    >>> clustering_scores([0, 0, 1, 1], [1, 1, 0, 1], [0, 1], [1, 0])["matched_accuracy"]
    0.75
    """
    match = _match(np.asarray(train_target), np.asarray(train_clusters))
    found = np.array([match.get(cluster) for cluster in np.asarray(clusters).tolist()], dtype=object)
    return {
        "adjusted_rand": float(adjusted_rand_score(target, clusters)),
        "normalized_mutual_info": float(normalized_mutual_info_score(target, clusters)),
        "matched_accuracy": float(np.mean(found == np.asarray(target))),
    }


def _match(target, clusters):
    """Return {cluster: class} such that as many images as possible agree."""
    cluster_names, class_names = np.unique(clusters), np.unique(target)
    agree = [[np.sum((clusters == k) & (target == c)) for c in class_names] for k in cluster_names]
    rows, cols = linear_sum_assignment(agree, maximize=True)
    return dict(zip(cluster_names[rows].tolist(), class_names[cols].tolist(), strict=True))
