import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import sklearn.svm
from conftest import crops, photographs
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import Normalizer, StandardScaler

import classic_cls
from classic_cls import (
    HOG,
    BagOfVisualWords,
    ColorHistogram,
    DenseSIFT,
    LinearSVC,
    OnnxClassifier,
    PatchKMeans,
    RBFNystroem,
    Resize,
    RidgeLOOClassifier,
    export_onnx,
    load_dataset,
    make_color_forest,
    make_hog_color_svm,
    make_hog_svm,
    onnx_export,
)
from classic_cls._onnx_graph import Graph, Images, value_info


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options)


def run(path, X):
    """Return the labels and scores that onnxruntime gives for X."""
    return session(path).run(["label", "scores"], {"images": X})


def scores(model, X):
    """Return the scores that the file should give."""
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.decision_function(X).reshape(len(X), -1)


def assert_parity(model, path, X):
    label, found = run(path, X)
    np.testing.assert_array_equal(label, model.predict(X))
    np.testing.assert_allclose(found, scores(model, X), atol=1e-4)
    assert found.dtype == np.float32


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.fixture(scope="module")
def pictures():
    """Sixty crops of odd size and their classes: dark, medium or bright."""
    X = crops(60, 27, 31)
    return X, np.digitize(X.mean((1, 2, 3)), np.quantile(X.mean((1, 2, 3)), [0.33, 0.66]))


@pytest.mark.parametrize("name", ["digits", "faces", "textures"])
@pytest.mark.parametrize("make", [make_hog_svm, make_color_forest, make_hog_color_svm])
def test_pipelines_on_test_images(path, make, name):
    data = load_dataset(name)
    model = make(random_state=0)
    if make is make_color_forest:
        model.set_params(forest__n_estimators=30)
    model.fit(data.images[data.train], data.target_names[data.target[data.train]])
    export_onnx(model, path, data.images[data.train[:20]])
    test = data.images[data.test[::4]]
    assert_parity(model, path, test)
    np.testing.assert_array_equal(OnnxClassifier(path).predict(test), model.predict(test))


# --- Features ---------------------------------------------------------------------------------------------------------


def transformed(convert, step, X):
    """Return what onnxruntime gives for a transformer alone."""
    graph = Graph()
    name = "images" if X.ndim == 4 else graph.Unsqueeze("images", np.array([3]))
    out = convert(graph, step, Images(name, X.dtype, (None, *X.shape[1:], 1)[:4]))
    shape = [None] * 3 if isinstance(out, Images) else [None]
    outputs = {out.name if isinstance(out, Images) else out: value_info("out", np.float32, *shape)}
    model = graph.model([value_info("images", X.dtype, *X.shape[1:])], outputs, {})
    onnx.checker.check_model(model, full_check=True)
    return session(model.SerializeToString()).run(None, {"images": X})[0]


def on_edges(height, width, color):
    """Return uint8 images in which many gradients lie on the edge of a bin, or several channels are equally strong."""
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2) ** 2 + (x - width / 2) ** 2 < height * width / 9
    few_levels, noise = np.random.default_rng(0).integers(0, [[[4]], [[256]]], (2, height, width))
    gray = np.array([7 * (x + y), 3 * (y - x), 5 * x, 255 * disc, 0 * x + 77, 60 * few_levels, noise]) % 256
    gray = gray.astype(np.uint8)
    return np.stack([gray, np.roll(gray, 1, 0), np.roll(gray, 1, 2)], -1) if color else gray


@pytest.mark.parametrize("orientations", [1, 6, 8, 9])
@pytest.mark.parametrize("block_norm", ["L1", "L1-sqrt", "L2", "L2-Hys"])
@pytest.mark.parametrize("transform_sqrt", [False, True])
@pytest.mark.parametrize("color", [False, True])
def test_hog(orientations, block_norm, transform_sqrt, color):
    from classic_cls._onnx_features import hog

    X = on_edges(25, 31, color)
    step = HOG(orientations, (5, 6), (2, 3), block_norm, transform_sqrt)
    floats = np.concatenate([X / 255, np.random.default_rng(1).random((1, *X.shape[1:]))]).astype(np.float32)
    for images in (X, floats):
        expected = step.fit(images).transform(images)
        np.testing.assert_allclose(transformed(hog, step, images), expected, atol=1e-5)


@pytest.mark.parametrize("cell", [(8, 8), (3, 7)])
@pytest.mark.parametrize("block", [(1, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("orientations", [4, 9, 12])
def test_hog_of_photographs(cell, block, orientations):
    from classic_cls._onnx_features import hog

    X = photographs()[:, 3:44, 5:58]
    step = HOG(orientations, cell, block).fit(X)
    np.testing.assert_allclose(transformed(hog, step, X), step.transform(X), atol=1e-5)


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (16, 16), (8, 10), (41, 20), (17, 60), (60, 13), (41, 53)])
def test_resize_rounds_as_opencv(size, color):
    from classic_cls._onnx_features import resize

    X = crops(3, 41, 53) if size != (16, 16) else crops(3, 32, 32)
    X = X if color else X[..., 0]
    for images in (X, (X / 250).astype(np.float32)):
        expected = Resize(size).fit(images).transform(images)
        np.testing.assert_array_equal(transformed(resize, Resize(size), images).reshape(expected.shape), expected)


def test_resize_by_whole_numbers():
    from classic_cls._onnx_features import resize

    for rows, cols in ((2, 2), (2, 3), (1, 2), (5, 1), (4, 4)):
        X = crops(3, 10 * rows, 6 * cols)
        for images in (X, X[..., 0]):
            expected = Resize((10, 6)).fit_transform(images)
            found = transformed(resize, Resize((10, 6)), images)
            np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("color_space", ["rgb", "hsv", "lab", "opponent", "gray"])
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("norm", [None, "l1", "l2", "hellinger"])
def test_colors_are_exact(color_space, joint, norm):
    from classic_cls._onnx_colors import color_histogram

    rng = np.random.default_rng(0)
    for shape, grid in (((3, 31, 43, 3), (2, 3)), ((3, 7, 9), (1, 1))):
        X = rng.integers(0, 256, shape, dtype=np.uint8)
        bins = 7 if color_space == "gray" else (7, 12, 5)
        step = ColorHistogram(bins, color_space, joint, grid, norm)
        for images in (X, rng.random(shape, dtype=np.float32)):
            expected = step.fit(images).transform(images)
            np.testing.assert_array_equal(transformed(color_histogram, step, images), expected)


@pytest.mark.parametrize("color_space", ["hsv", "lab"])
def test_every_sixty_fourth_color(color_space):
    from classic_cls._onnx_colors import color_histogram

    levels = np.arange(3, 256, 4, dtype=np.uint8)
    X = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(1, 512, 512, 3)
    step = ColorHistogram(256, color_space, joint=False, grid=(16, 16)).fit(X)
    np.testing.assert_array_equal(transformed(color_histogram, step, X), step.transform(X))


# --- Classifiers ------------------------------------------------------------------------------------------------------

CLASSIFIERS = [
    LinearSVC(),
    sklearn.svm.LinearSVC(),
    sklearn.svm.LinearSVC(fit_intercept=False),
    LogisticRegression(),
    RidgeClassifier(),
    RidgeLOOClassifier(random_state=0),
    RandomForestClassifier(20, random_state=0),
    RandomForestClassifier(20, max_depth=2, class_weight="balanced", random_state=0),
    ExtraTreesClassifier(20, random_state=0),
    CalibratedClassifierCV(LinearSVC(), cv=3),
    CalibratedClassifierCV(sklearn.svm.LinearSVC(), cv=3, ensemble=False),
    SGDClassifier(random_state=0),
]


@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=str)
@pytest.mark.parametrize("labels", [[7, 3], ["ant", "bee", "Käfer"]], ids=["int", "str"])
def test_classifiers_and_labels(path, pictures, classifier, labels):
    X, y = pictures
    y = np.array(labels)[np.minimum(y, len(labels) - 1)]
    model = make_pipeline(ColorHistogram(4, norm="hellinger"), classifier).fit(X, y)
    export_onnx(model, path, X[:20])
    assert_parity(model, path, X)
    np.testing.assert_array_equal(run(path, X[:1])[0], model.predict(X[:1]))
    reader = OnnxClassifier(path)
    np.testing.assert_array_equal(reader.predict(X), model.predict(X))
    assert reader.classes_.tolist() == model.classes_.tolist()
    if hasattr(model, "predict_proba"):
        np.testing.assert_allclose(reader.predict_proba(X), model.predict_proba(X), atol=1e-4)


def test_decision_values_are_no_probabilities(path, pictures):
    X, y = pictures
    model = make_pipeline(ColorHistogram(4, norm="l1"), LinearSVC()).fit(X, np.where(y > 1, 1, 0))
    model[-1].coef_ *= 0.01
    model[-1].intercept_[:] = 0.3  # the scores could be probabilities
    export_onnx(model, path, X)
    np.testing.assert_array_equal(OnnxClassifier(path).predict(X), 1)


def test_equally_many_trees(path, pictures):
    X, y = pictures[0], np.random.default_rng(0).integers(0, 3, 60)
    model = make_pipeline(ColorHistogram(2), RandomForestClassifier(6, random_state=0)).fit(X[:40], y[:40])
    export_onnx(model, path, X[:40])
    best = np.sort(np.rint(6 * model.predict_proba(X)), axis=1)
    assert (best[:, 1] == best[:, 2]).sum() >= 2
    assert_parity(model, path, X)
    np.testing.assert_array_equal(OnnxClassifier(path).predict(X), model.predict(X))


@pytest.mark.parametrize(
    "features",
    [
        make_pipeline(HOG(pixels_per_cell=6), StandardScaler()),
        make_pipeline(Resize((20, 33)), HOG(8, cells_per_block=1), Normalizer(), PCA(10, random_state=0)),
        make_pipeline(Resize(16), ColorHistogram(5, "opponent")),
        make_union(HOG(pixels_per_cell=5), ColorHistogram((6, 3, 3), "hsv", norm="l1")),
        FeatureUnion(
            [
                ("hog", make_pipeline(Resize(24), HOG(), StandardScaler())),
                ("no", "drop"),
                ("lab", ColorHistogram(3, "lab")),
            ],
            transformer_weights={"hog": 0.5},
        ),
    ],
    ids=lambda features: " ".join(type(step).__name__ for _, step in getattr(features, "steps", [(0, features)])),
)
@pytest.mark.parametrize("kind", ["RGB", "gray", "float64"])
def test_features(path, pictures, features, kind):
    X, y = pictures
    X = {"RGB": X, "gray": X[..., 1], "float64": X / 255}[kind]
    model = make_pipeline(features, "passthrough", make_pipeline(LogisticRegression(max_iter=2000))).fit(X, y)
    export_onnx(model, path, X[::3])
    assert_parity(model, path, X.astype(np.float32) if kind == "float64" else X)


def test_search_and_image_shape(path, pictures):
    X, y = pictures
    model = GridSearchCV(make_pipeline(ColorHistogram(), LinearSVC()), {"linearsvc__C": [0.1, 1]}, cv=2).fit(X, y)
    export_onnx(model, path, X)
    assert_parity(model, path, X)
    rows = make_hog_svm(image_shape=X.shape[1:]).fit(X.reshape(60, -1), y)
    export_onnx(rows, path, X)
    assert_parity(rows, path, X)
    with pytest.raises(ValueError, match=r"images has shape \(60, 2511\); expected \(n, height, width\)"):
        export_onnx(rows, path, X.reshape(60, -1))


# --- The file ---------------------------------------------------------------------------------------------------------


def test_any_number_of_images(path, pictures):
    X, y = pictures
    model = make_hog_color_svm(random_state=0).fit(X, y)
    export_onnx(model, path, X[:1])
    whole = run(path, X)
    for n in (0, 1, 7):
        label, found = run(path, X[:n])
        np.testing.assert_array_equal(label, whole[0][:n])
        np.testing.assert_allclose(found, whole[1][:n], atol=1e-6)


def test_what_the_file_says(path, pictures):
    X, y = pictures
    words = np.array(["dark", "medium", "bright"])[y]
    export_onnx(make_pipeline(HOG(), RidgeLOOClassifier()).fit(X, words), path, list(X))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    reader = session(path)
    assert [(i.name, i.type, i.shape) for i in reader.get_inputs()] == [("images", "tensor(uint8)", ["n", 27, 31, 3])]
    assert [(o.name, o.type, o.shape) for o in reader.get_outputs()] == [
        ("label", "tensor(string)", ["n"]),
        ("scores", "tensor(float)", ["n", 3]),
    ]
    about = {each.key: each.value for each in model.metadata_props}
    assert json.loads(about["classes"]) == ["bright", "dark", "medium"]
    assert about["scores"] == "probabilities"
    assert about["sklearn"] == sklearn.__version__
    assert "RidgeLOOClassifier" in about["model"]
    assert (model.producer_name, model.producer_version) == ("classic_cls", classic_cls.__version__)


def test_refuses_what_answers_otherwise(path, pictures, monkeypatch):
    from classic_cls import _onnx_features

    X, y = pictures
    model = make_pipeline(HOG(), LinearSVC()).fit(X, y)
    export_onnx(model, path, X)
    before = path.read_bytes()
    thresholds = _onnx_features._thresholds
    monkeypatch.setattr(_onnx_features, "_thresholds", lambda n: thresholds(n) + 0.01)
    with pytest.raises(
        RuntimeError, match=r"answers otherwise for \d+ of 60 images.*differ by up to .*Nothing was written"
    ):
        export_onnx(model, path, X)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_other_labels_are_noticed(path, pictures, monkeypatch):
    X, y = pictures
    model = make_pipeline(ColorHistogram(), LinearSVC()).fit(X, y)
    monkeypatch.setattr(onnx_export, "_classes", lambda model: model.classes_[::-1])
    with pytest.raises(RuntimeError, match="answers otherwise"):
        export_onnx(model, path, X)
    assert not any(path.parent.iterdir())


def test_no_trace_of_a_write_that_failed(pictures, tmp_path):
    X, y = pictures
    model = make_pipeline(ColorHistogram(), LinearSVC()).fit(X, y)
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "none" / "model.onnx", tmp_path / "folder"):
        with pytest.raises(OSError, match=r"none|folder"):
            export_onnx(model, target, X)
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Pipeline([("words", BagOfVisualWords(DenseSIFT(), 5)), ("svm", LinearSVC())]),
            r"The step 'words', a BagOfVisualWords, cannot be exported to ONNX\. What can: Resize, HOG",
        ),
        (
            Pipeline(
                [("both", FeatureUnion([("a", HOG()), ("b", PatchKMeans(5, random_state=0))])), ("svm", LinearSVC())]
            ),
            "The step 'both/b', a PatchKMeans, cannot",
        ),
        (
            Pipeline([("color", ColorHistogram()), ("kernel", RBFNystroem(9)), ("svm", LinearSVC())]),
            "The step 'kernel', a RBFNystroem, cannot",
        ),
        (CalibratedClassifierCV(make_hog_svm(), cv=2), "A CalibratedClassifierCV cannot"),
        (
            make_pipeline(ColorHistogram(2), NearestCentroid()),
            r"The step 'nearestcentroid', a NearestCentroid, cannot be exported to ONNX \(skl2onnx: .*\)\. What",
        ),
    ],
)
def test_what_cannot_be_exported(path, pictures, model, message):
    X, y = pictures
    with pytest.raises(ValueError, match=message):
        export_onnx(model.fit(X, y), path, X)
    assert not path.exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X: [X[0], X[1, 1:]], "The images have different sizes; the file takes images of one size"),
        (lambda X: X[0, 0], r"images has shape \(31, 3\); expected \(n, height, width\)"),
        (lambda X: np.where(X > 9, X / 255, np.nan), "NaN"),
        (lambda X: X[:0], r"0 sample\(s\)"),
        (lambda X: X[..., 0], r"fitted on images of shape \(27, 31, 3\)"),
    ],
)
def test_wrong_images(path, pictures, spoil, message):
    X, y = pictures
    model = make_pipeline(HOG(), LinearSVC()).fit(X, y)
    with pytest.raises(ValueError, match=message):
        export_onnx(model, path, spoil(X))
    assert not path.exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda y: y > 1, r"The labels are \[False, True\]; expected strings or whole numbers"),
        (lambda y: np.eye(3, dtype=int)[y], "several labels per image"),
    ],
)
def test_wrong_labels(path, pictures, labels, message):
    X, y = pictures
    model = make_pipeline(ColorHistogram(3), RidgeLOOClassifier()).fit(X, labels(y))
    with pytest.raises(ValueError, match=message):
        export_onnx(model, path, X)
    assert not path.exists()


def test_not_fitted_or_no_classifier(path, pictures):
    X, y = pictures
    with pytest.raises(NotFittedError):
        export_onnx(make_hog_svm(), path, X)
    with pytest.raises(ValueError, match="Pipeline has no classes_; expected a classifier"):
        export_onnx(make_pipeline(HOG(), PCA(2)).fit(X, y), path, X)


def test_missing_library(path, pictures, monkeypatch):
    X, y = pictures
    model = make_pipeline(ColorHistogram(), LinearSVC()).fit(X, y)
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(ImportError, match=r'pip install "classic_cls\[onnx\]"'):
        export_onnx(model, path, X)


def test_importing_the_package_imports_no_onnx():
    heavy = {"onnx", "onnxruntime", "skl2onnx"}
    code = f"import sys; from classic_cls import export_onnx; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
