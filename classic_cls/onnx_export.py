"""A fitted pipeline in an ONNX file, which other programs and languages run without this package."""

import json
from datetime import UTC, datetime
from importlib import import_module

import numpy as np
from sklearn.base import is_classifier
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

import classic_cls

from ._files import replacing
from ._images import as_pixels, is_table, read_images
from ._onnx import first_line, session

_TOLERANCE = 1e-4
_LIBRARIES = ("cv2", "numpy", "onnx", "onnxruntime", "skl2onnx", "sklearn")
_CAN = (
    "Resize, HOG and ColorHistogram, their FeatureUnion, transformers of scikit-learn that skl2onnx converts "
    "(StandardScaler, Normalizer, PCA, ...), and as classifiers LinearSVC, RidgeLOOClassifier, LogisticRegression, "
    "RidgeClassifier, random forests and what else skl2onnx converts"
)


def export_onnx(model, path, images):
    """Write a fitted pipeline of HOG or colour histograms to an ONNX file, with its labels.

    The file takes ``images``, any number of them, of the shape of those given here; uint8 if these are, else float32 in
    [0, 1]. It gives ``label`` (n,), strings or int64, and ``scores`` (n, n_classes) float32: the probabilities where
    the model has ``predict_proba``, else its decision values, (n, 1) for two classes. Before it is written, onnxruntime
    runs it on the images given: the labels must be the model's, and the scores within 1e-4 of the model's.

    :class:`OnnxClassifier` runs the file. Needs ``pip install "classic_cls[onnx]"``.

    Parameters
    ----------
    model : Pipeline
        Fitted. Its steps may be :class:`Resize`, :class:`HOG`, :class:`ColorHistogram`, a FeatureUnion of these or of
        pipelines of these, transformers of scikit-learn that skl2onnx converts, such as StandardScaler, and in the end
        a classifier: :class:`LinearSVC` or scikit-learn's, :class:`RidgeLOOClassifier`, LogisticRegression,
        RidgeClassifier, RandomForestClassifier, ExtraTreesClassifier, or another that skl2onnx converts.
    path : str or path
        The file, which is replaced as a whole or not at all.
    images : array of shape (n, height, width) or (n, height, width, 3)
        Some images as the model takes them, uint8 or float in [0, 1]; the more unlike, the better the check.

    Raises
    ------
    ImportError
        If onnx, onnxruntime or skl2onnx is not installed.
    NotFittedError
        If the model is not fitted.
    RuntimeError
        If what onnxruntime answers differs from what the model does.
    ValueError
        If a step of the model cannot be exported, or these are no images of one size.

    Notes
    -----
    HOG and the histograms have the numbers of the CPU kernels; colours are exact to the bin, and gradients that lie
    between two bins go to the same one. Resize follows OpenCV on x86, and HOG the kernels for CPUs with fused
    multiply-adds. Elsewhere the model's own rounding differs, so that a few gradients of resized images may be in other
    bins than the file's; the check finds that if it happens on the images given.

    The file's metadata says which versions wrote it, the classes, and what the scores are.

    Examples
    --------
    >>> import tempfile
    >>> from classic_cls import OnnxClassifier, export_onnx, load_faces, make_hog_svm
    >>> faces = load_faces()
    >>> train, test = faces.images[faces.train], faces.images[faces.test]
    >>> model = make_hog_svm().fit(train, faces.target_names[faces.target[faces.train]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(model, f"{folder}/faces.onnx", train)
    ...     labels = OnnxClassifier(f"{folder}/faces.onnx").predict(test)
    >>> bool((labels == model.predict(test)).all())
    True
    """
    _check_installed()
    check_is_fitted(model)
    pixels, classes = _pixels(images), _classes(model)
    labels, scores = model.predict(pixels), _scores(model, pixels)
    if labels.ndim > 1:
        raise ValueError("The model gives several labels per image; expected one.")
    content = _converted(model, pixels, classes, scores.shape[1]).SerializeToString()
    _check_parity(content, pixels, labels, scores)
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)


def _check_installed():
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import skl2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'export_onnx needs onnx, onnxruntime and skl2onnx: pip install "classic_cls[onnx]" ({error}).'
        ) from error


def _pixels(images):
    """Return images as an array (n, height, width) or (n, height, width, 3), uint8 or float32."""
    if is_table(images):
        raise ValueError(
            f"images has shape {np.shape(images)}; expected (n, height, width) gray or (n, height, width, 3) RGB. Of "
            "flat rows make images with X.reshape(-1, height, width), of one image a batch with image[None]."
        )
    batch = read_images(images, ragged=True)
    if isinstance(batch, list):
        raise ValueError(
            "The images have different sizes; the file takes images of one size. Give images of that size."
        )
    pixels = as_pixels(batch)
    return pixels[..., 0] if pixels.shape[3] == 1 else pixels


def _classes(model):
    """Return the labels as strings or int64."""
    classes = getattr(model, "classes_", None)
    if not isinstance(classes, np.ndarray):
        raise ValueError(
            f"{type(model).__name__} has no classes_; expected a classifier, or a Pipeline that ends in one."
        )
    if classes.dtype.kind in "iu":
        return classes.astype(np.int64)
    if not all(isinstance(label, str) for label in classes.tolist()):
        raise ValueError(f"The labels are {classes.tolist()[:5]}; expected strings or whole numbers.")
    return classes.astype(object)


def _scores(model, pixels):
    if hasattr(model, "predict_proba"):
        return model.predict_proba(pixels)
    return model.decision_function(pixels).reshape(len(pixels), -1)


# --- Model to graph ---------------------------------------------------------------------------------------------------


def _converted(model, pixels, classes, n_scores):
    from ._onnx_graph import Graph, Images, value_info

    graph, shape = Graph(), pixels.shape[1:]
    name = "images" if len(shape) == 3 else graph.Unsqueeze("images", np.array([3]))
    value = Images(name, pixels.dtype, (None, *shape, 1)[:4])
    *transformers, (where, classifier) = _flat(getattr(model, "best_estimator_", model))
    for each in transformers:
        value = _transformed(graph, *each, value)
    scores = _scored(graph, where, classifier, value, n_scores)
    outputs = {
        _chosen(graph, scores, classes, n_scores): value_info("label", classes.dtype),
        scores: value_info("scores", np.float32, n_scores),
    }
    return graph.model([value_info("images", pixels.dtype, *shape)], outputs, _metadata(model, classes))


def _flat(model, where=""):
    """Yield the steps of a pipeline, and of pipelines in it, with where each is found, such as 'features/hog'."""
    if not isinstance(model, Pipeline):
        yield where, model
        return
    for name, step in model.steps:
        yield from _flat(step, f"{where}/{name}".lstrip("/"))


def _transformed(graph, where, step, value):
    from . import _onnx_colors, _onnx_features
    from ._onnx_graph import Images

    of_images = {
        classic_cls.Resize: _onnx_features.resize,
        classic_cls.HOG: _onnx_features.hog,
        classic_cls.ColorHistogram: _onnx_colors.color_histogram,
    }
    if step is None or isinstance(step, str):  # "passthrough"
        return value
    if isinstance(step, FeatureUnion):
        return _joined(graph, where, step, value)
    if type(step) in of_images:
        return of_images[type(step)](graph, step, value)
    if isinstance(value, Images):
        raise _refusal(where, step)
    return _by_skl2onnx(graph, where, step, value)[0]


def _joined(graph, where, union, value):
    parts = []
    for name, model in union.transformer_list:
        if isinstance(model, str) and model == "drop":
            continue
        part = value
        for inside, step in _flat(model, f"{where}/{name}"):
            part = _transformed(graph, inside, step, part)
        weight = (union.transformer_weights or {}).get(name, 1)
        parts.append(part if weight == 1 else graph.Mul(part, np.float32(weight)))
    return graph.Concat(*parts, axis=1)


def _scored(graph, where, classifier, rows, n_scores):
    from . import _onnx_heads
    from ._onnx_graph import Images

    if isinstance(rows, Images):
        raise _refusal(where, classifier)
    heads = {
        classic_cls.LinearSVC: _onnx_heads.decision,
        classic_cls.RidgeLOOClassifier: _onnx_heads.ridge,
        ExtraTreesClassifier: _onnx_heads.forest,
        LinearSVC: _onnx_heads.decision,
        RandomForestClassifier: _onnx_heads.forest,
        RidgeClassifier: _onnx_heads.decision,
    }
    if type(classifier) in heads:
        return heads[type(classifier)](graph, classifier, rows)
    scores = _by_skl2onnx(graph, where, classifier, rows)[1]
    return graph.Gather(scores, np.array([-1]), axis=1) if n_scores == 1 else scores  # of the second of two classes


def _chosen(graph, scores, classes, n_scores):
    """Return the labels of highest score, the first of equals; of two classes' one score, by its sign."""
    if n_scores == 1:
        positive = graph.Greater(graph.Squeeze(scores, np.array([1])), np.float32(0))
        return graph.Gather(classes, graph.cast(positive, np.int64))
    return graph.Gather(classes, graph.ArgMax(scores, axis=1, keepdims=0))


def _by_skl2onnx(graph, where, estimator, rows):
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    from ._onnx_graph import OPSETS
    from ._onnx_heads import as_skl2onnx_knows_it

    if type(estimator).__module__.startswith("classic_cls"):
        raise _refusal(where, estimator)
    estimator = as_skl2onnx_knows_it(estimator)
    options = {id(estimator): {"zipmap": False}} if is_classifier(estimator) else None
    rows_type = [("rows", FloatTensorType([None, estimator.n_features_in_]))]
    try:
        part = convert_sklearn(estimator, initial_types=rows_type, target_opset=OPSETS, options=options)
    except Exception as error:  # skl2onnx raises many kinds
        raise _refusal(where, estimator, f" (skl2onnx: {first_line(error)})") from error
    return graph.include(part, rows)


def _refusal(where, estimator, why=""):
    name = f"The step {where!r}, a {type(estimator).__name__}," if where else f"A {type(estimator).__name__}"
    return ValueError(f"{name} cannot be exported to ONNX{why}. What can: {_CAN}.")


def _metadata(model, classes):
    from ._onnx_graph import OPSETS

    return {
        "classes": json.dumps(classes.tolist()),
        "scores": "probabilities" if hasattr(model, "predict_proba") else "decision values",
        "model": model.__repr__(N_CHAR_MAX=10_000),
        "opset": str(OPSETS[""]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    } | {name: import_module(name).__version__ for name in _LIBRARIES}


# --- What the file answers --------------------------------------------------------------------------------------------


def _check_parity(content, pixels, labels, scores):
    """Refuse a model that answers otherwise than the pipeline."""
    found_labels, found_scores = session(content, 1).run(["label", "scores"], {"images": pixels})
    other = np.flatnonzero((found_labels != labels) | ~(np.abs(found_scores - scores) <= _TOLERANCE).all(1))
    if len(other):
        worst = np.abs(found_scores - scores).max()
        raise RuntimeError(
            f"The ONNX model answers otherwise for {len(other)} of {len(pixels)} images, image {other[0]} first; the "
            f"scores differ by up to {worst:.2g}, and {_TOLERANCE:g} is allowed. Nothing was written; please report it."
        )
