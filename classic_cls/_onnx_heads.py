"""Classifiers as ONNX operators: linear ones and forests here, the others by skl2onnx.

Each takes a graph, a fitted classifier and the name of rows (n, n_features) float32, and returns the name of its scores
(n, n_classes) float32: probabilities where it has them, else decision values, which are (n, 1) for two classes.
"""

from copy import deepcopy

import numpy as np
import sklearn.svm
from onnx import numpy_helper
from sklearn.calibration import CalibratedClassifierCV

from .svm import LinearSVC


def decision(graph, classifier, rows):
    """Return the decision values of a linear classifier, summed in float64."""
    weights, intercept = (np.asarray(a, np.float64) for a in (classifier.coef_, classifier.intercept_))
    scores = graph.Add(graph.MatMul(graph.cast(rows, np.float64), np.atleast_2d(weights).T), intercept)
    return graph.cast(scores, np.float32)


def ridge(graph, classifier, rows):
    """Return the probabilities of a RidgeLOOClassifier."""
    scores = graph.Mul(decision(graph, classifier, rows), np.float32(classifier.scale_))
    if len(classifier.classes_) == 2:
        scores = graph.Concat(graph.Neg(scores), scores, axis=1)
    return graph.Softmax(scores, axis=1)


def forest(graph, classifier, rows):
    """Return the mean of the trees' probabilities.

    The trees' sums are whole numbers where leaves are pure. So classes with equally many trees stay equal, whatever the
    order in which a runtime adds, and the first of them wins as in scikit-learn.
    """
    trees = [estimator.tree_ for estimator in classifier.estimators_]
    votes = graph.TreeEnsembleRegressor(
        graph.cast(rows, np.float64),
        domain="ai.onnx.ml",
        n_targets=len(classifier.classes_),
        aggregate_function="SUM",
        **_nodes(trees),
        **_leaves(trees),
    )
    return graph.Div(votes, np.float32(len(trees)))


def _nodes(trees):
    is_leaf = np.concatenate([tree.children_left < 0 for tree in trees])
    of_all = {
        "nodes_truenodeids": [np.maximum(tree.children_left, 0) for tree in trees],
        "nodes_falsenodeids": [np.maximum(tree.children_right, 0) for tree in trees],
        "nodes_featureids": [np.maximum(tree.feature, 0) for tree in trees],
        "nodes_nodeids": [np.arange(tree.node_count) for tree in trees],
        "nodes_treeids": [np.full(tree.node_count, i) for i, tree in enumerate(trees)],
    }
    thresholds = np.concatenate([tree.threshold for tree in trees])
    return {name: np.concatenate(numbers).tolist() for name, numbers in of_all.items()} | {
        "nodes_modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_values_as_tensor": numpy_helper.from_array(thresholds, "thresholds"),
    }


def _leaves(trees):
    """Return the probabilities in the leaves that are not 0."""
    shares, places = [], []
    for i, tree in enumerate(trees):
        value = np.where(tree.children_left[:, None] < 0, tree.value[:, 0], 0)
        node, label = np.nonzero(value)
        shares.append(value[node, label])
        places.append(np.stack([np.full(len(node), i), node, label]))
    names = ("target_treeids", "target_nodeids", "target_ids")
    return dict(zip(names, np.concatenate(places, axis=1).tolist(), strict=True)) | {
        "target_weights_as_tensor": numpy_helper.from_array(np.concatenate(shares), "shares")
    }


def as_skl2onnx_knows_it(classifier):
    """Return a calibrated classifier with scikit-learn's LinearSVC in place of ours."""
    if not isinstance(classifier, CalibratedClassifierCV):
        return classifier
    classifier = deepcopy(classifier)
    for calibrated in classifier.calibrated_classifiers_:
        if type(calibrated.estimator) is LinearSVC:
            fitted = {name: value for name, value in vars(calibrated.estimator).items() if name.endswith("_")}
            calibrated.estimator = sklearn.svm.LinearSVC()
            vars(calibrated.estimator).update(fitted)
    return classifier
