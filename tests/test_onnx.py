import pickle
import subprocess
import sys

import numpy as np
import onnx
import pytest
from conftest import crops
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from classic_cls import OnnxClassifier, Resize, benchmark, load_digits

SIZE = (12, 10)


def saved(path, nodes, shape, outputs, dtype=TensorProto.FLOAT, opset=17, **weights):
    """Save a graph from "images" of `shape` and return its path."""
    images = [helper.make_tensor_value_info("images", dtype, shape)]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", images, outputs, constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def scores(name="scores", shape=("n", 5)):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.fixture
def conv(tmp_path):
    """Return a function that saves a small convolutional network."""

    def save(layout="NCHW", n=None, channels=3, size=SIZE, dtype=TensorProto.FLOAT, end="Flatten", opset=17):
        rng = np.random.default_rng(0)
        nodes = [helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)]
        order = {"NCHW": [0, 1, 2, 3], "NHWC": [0, 3, 1, 2]}[layout]
        nodes += [helper.make_node("Transpose", ["pixels"], ["turned"], perm=order)]
        nodes += [helper.make_node("Conv", ["turned", "weights"], ["maps"], pads=[1, 1, 1, 1])]
        nodes += [
            helper.make_node("Relu", ["maps"], ["active"]),
            helper.make_node("GlobalAveragePool", ["active"], ["means"]),
        ]
        nodes += [helper.make_node("Flatten", ["means"], ["rows"]), helper.make_node(end, ["rows"], ["scores"])]
        shape = (n, channels, *size) if layout == "NCHW" else (n, *size, channels)
        weights = (rng.normal(size=(5, channels, 3, 3)) / (255 if dtype == TensorProto.UINT8 else 1)).astype(np.float32)
        return saved(tmp_path / "net.onnx", nodes, shape, [scores()], dtype, opset, weights=weights)

    return save


def expected(path, X):
    """Softmax of what the reference evaluator of onnx makes of X."""
    return softmax(ReferenceEvaluator(str(path)).run(None, {"images": X})[0], axis=1)


def images(n=9, size=SIZE):
    return crops(n, *size)


@pytest.mark.parametrize("n", [None, 1, 4])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("layout_given", [True, False])
def test_probabilities_are_those_of_onnx(conv, n, layout, layout_given):
    path, X = conv(layout, n), images()
    pixels = (X / 255).astype(np.float32)
    reference = expected(conv(layout), pixels if layout == "NHWC" else pixels.transpose(0, 3, 1, 2))
    model = OnnxClassifier(conv(layout, n), layout=layout if layout_given else "auto", n_jobs=1)
    for given in (X, X / 255, list(X)):
        np.testing.assert_allclose(model.predict_proba(given), reference, atol=1e-6)
    np.testing.assert_array_equal(model.predict(X), reference.argmax(1))
    np.testing.assert_array_equal(model.classes_, range(5))
    rows = OnnxClassifier(path, image_shape=(*SIZE, 3)).predict_proba(X.reshape(9, -1))
    np.testing.assert_allclose(rows, reference, atol=1e-6)


def test_many_batches(conv):
    X = images(150)
    reference = expected(conv(), (X / 255).astype(np.float32).transpose(0, 3, 1, 2))
    np.testing.assert_allclose(OnnxClassifier(conv()).predict_proba(X), reference, atol=1e-6)


@pytest.mark.parametrize("per_channel", [True, False])
def test_scale_mean_and_std(conv, per_channel):
    path, X = conv(), images()
    mean, std = ([110, 120, 130], [50, 60, 70]) if per_channel else (120, 60)
    reference = expected(path, ((X.astype(np.float32) - mean) / std).astype(np.float32).transpose(0, 3, 1, 2))
    given = OnnxClassifier(path, scale=255, mean=mean, std=std).predict_proba(X)
    np.testing.assert_allclose(given, reference, atol=1e-5)
    assert np.abs(given - OnnxClassifier(path).predict_proba(X)).max() > 0.01


def test_uint8_model(conv):
    path, X = conv("NHWC", dtype=TensorProto.UINT8), images()
    reference = expected(path, X)
    for given in (X, X / 255, np.maximum(X / 255 - 0.001, 0)):  # rounded to the nearest level
        np.testing.assert_allclose(OnnxClassifier(path).predict_proba(given), reference, atol=1e-5)
    with pytest.raises(ValueError, match="takes uint8 pixels"):
        OnnxClassifier(path, mean=0.5).predict(X)


@pytest.mark.parametrize("end", ["Softmax", "Flatten"])
def test_softmax_once(conv, end):
    X = images()
    reference = expected(conv(), (X / 255).astype(np.float32).transpose(0, 3, 1, 2))
    path = conv(end=end)
    np.testing.assert_allclose(OnnxClassifier(path).predict_proba(X), reference, atol=1e-6)
    as_logits = OnnxClassifier(path, output="logits").predict_proba(X)
    twice = softmax(reference, axis=1) if end == "Softmax" else reference
    np.testing.assert_allclose(as_logits, twice, atol=1e-6)


@pytest.mark.parametrize("end", ["Sigmoid", "Identity"])
def test_one_output_is_the_second_of_two_classes(tmp_path, end):
    X, weights = load_digits().images[:20], np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    nodes = [helper.make_node("Flatten", ["images"], ["rows"]), helper.make_node("MatMul", ["rows", "weights"], ["z"])]
    nodes += [helper.make_node(end, ["z"], ["scores"])]
    path = saved(tmp_path / "net.onnx", nodes, (None, 1, 8, 8), [scores(shape=("n", 1))], weights=weights)
    model = OnnxClassifier(path, ["no", "yes"])
    probability = expit(X.reshape(20, 64) @ weights[:, 0])
    np.testing.assert_allclose(model.predict_proba(X), np.column_stack([1 - probability, probability]), atol=1e-6)
    np.testing.assert_array_equal(model.predict(X), np.where(probability > 0.5, "yes", "no"))


def linear(path, as_map=True):
    """Save a linear classifier of rows as scikit-learn's converter does: labels, and a map of probabilities."""
    rng = np.random.default_rng(1)
    labels = ["ant", "bee", "cat"]
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["images"],
            ["label", "p"],
            domain="ai.onnx.ml",
            classlabels_strings=labels,
            coefficients=rng.normal(size=64 * 3).tolist(),
            intercepts=[0.0] * 3,
            post_transform="SOFTMAX",
        ),
        helper.make_node("ZipMap", ["p"], ["map"], domain="ai.onnx.ml", classlabels_strings=labels),
    ]
    number = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.STRING, number))
    label = helper.make_tensor_value_info("label", TensorProto.STRING, [None])
    last = helper.make_value_info("map", maps) if as_map else scores("p", (None, 3))
    return saved(path, nodes[: 1 + as_map], (None, 64), [label, last])


def test_what_scikit_learns_converter_writes(tmp_path):
    digits = load_digits().images[:30]
    with_map = OnnxClassifier(linear(tmp_path / "map.onnx"))
    plain = OnnxClassifier(linear(tmp_path / "plain.onnx", as_map=False))
    assert with_map.classes_.tolist() == ["ant", "bee", "cat"]
    np.testing.assert_allclose(with_map.predict_proba(digits), plain.predict_proba(digits), atol=1e-6)
    session = ReferenceEvaluator(str(tmp_path / "plain.onnx"))
    rows = digits.reshape(30, -1)
    np.testing.assert_allclose(plain.predict_proba(digits), session.run(["p"], {"images": rows})[0], atol=1e-5)
    np.testing.assert_array_equal(with_map.predict(digits), session.run(["label"], {"images": rows})[0])


def test_fit_matches_labels_and_trains_nothing(conv):
    path, X = conv(), images(10)
    before = OnnxClassifier(path).predict_proba(X)
    words = np.array(["e", "d", "c", "b", "a"] * 2)
    for y, classes in ((np.arange(10) % 5, range(5)), (np.arange(10) % 3, range(5)), (words, list("abcde"))):
        model = OnnxClassifier(path).fit(X, y)
        assert model.classes_.tolist() == list(classes)
        np.testing.assert_array_equal(model.predict_proba(X), before)
    assert OnnxClassifier(path).fit(X, words).fit(X, np.arange(10) % 3).classes_.tolist() == list(range(5))
    given = OnnxClassifier(path, list("edcba")).fit(X, words)
    np.testing.assert_array_equal(given.predict(X), np.array(list("edcba"))[before.argmax(1)])


@pytest.mark.parametrize(
    ("classes", "y", "message"),
    [
        (None, ["a", "b"] * 5, r"tells 5 classes apart, and y has 2 labels.*classes="),
        (None, np.arange(10), "tells 5 classes apart, and y has 10 labels"),
        (list("abc"), ["a", "b"] * 5, "The model has 5 outputs, and there are 3 labels"),
        ("abcde", ["a", "b"] * 5, "classes='abcde'; expected the labels of the outputs"),
        (list("abcda"), ["a", "b"] * 5, "each once, in their order"),
        (list("abcde"), ["a", "x"] * 5, "not among classes: 'x'"),
        (None, np.linspace(0, 1, 10), "continuous"),
        (None, np.arange(9) % 5, "inconsistent numbers of samples"),
    ],
)
def test_wrong_labels(conv, classes, y, message):
    with pytest.raises(ValueError, match=message):
        OnnxClassifier(conv("NCHW"), classes).fit(images(10), y)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda X: X[:, 1:], r"11 x 10 pixels; the model takes 12 x 10. Put Resize\(\(12, 10\)\) before it"),
        (lambda X: [x[: 12 - i] for i, x in enumerate(X)], "Resize"),
        (lambda X: X[..., 0], r"channels: 1; the model takes 3. np.stack\(\[X\]"),
        (lambda X: X / 127, r"must lie in \[0, 1\]"),
        (lambda X: np.where(X > 0, X / 255, np.nan), "NaN"),
        (lambda X: X.transpose(0, 3, 1, 2), "Channels come last"),
    ],
)
def test_wrong_images(conv, spoil, message):
    with pytest.raises(ValueError, match=message):
        OnnxClassifier(conv()).predict(spoil(images()))


def test_rgb_for_a_gray_model_and_rows_of_another_length(conv, tmp_path):
    with pytest.raises(ValueError, match=r"channels: 3; the model takes 1\. skimage\.color\.rgb2gray"):
        OnnxClassifier(conv(channels=1)).predict(images())
    with pytest.raises(ValueError, match="12 x 10 x 3 numbers; the model takes rows of 64"):
        OnnxClassifier(linear(tmp_path / "rows.onnx")).predict(images())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scale": 0}, "scale=0; expected a positive number"),
        ({"mean": [1, 2]}, r"mean=\[1, 2\]; expected a number, or one for each of the 3 channels"),
        ({"mean": "x"}, "mean='x'; expected a number"),
        ({"std": [1, 0, 1]}, r"std=\[1, 0, 1\]; expected a positive number"),
        ({"layout": "CHW"}, "layout='CHW'; expected one of 'auto', 'NCHW', 'NHWC'"),
        ({"output": "p"}, "output='p'; expected one of"),
    ],
)
def test_wrong_parameters(conv, parameters, message):
    with pytest.raises(ValueError, match=message):
        OnnxClassifier(conv(), **parameters).predict(images())


def test_layout_that_cannot_be_told(conv):
    path, X = conv(size=(3, 3)), images(size=(3, 3))
    with pytest.raises(ValueError, match=r"shape \(3, 3, 3\).*layout='NCHW' or 'NHWC'"):
        OnnxClassifier(path).predict(X)
    reference = expected(path, (X / 255).astype(np.float32).transpose(0, 3, 1, 2))
    np.testing.assert_allclose(OnnxClassifier(path, layout="NCHW").predict_proba(X), reference, atol=1e-6)


def test_any_size_where_the_model_leaves_it_open(conv):
    path = conv(size=("h", "w"))
    for size in (SIZE, (7, 9)):
        reference = expected(path, (images(size=size) / 255).astype(np.float32).transpose(0, 3, 1, 2))
        np.testing.assert_allclose(OnnxClassifier(path).predict_proba(images(size=size)), reference, atol=1e-6)


def test_wrong_files(conv, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file '.*none\.onnx'"):
        OnnxClassifier(tmp_path / "none.onnx").predict(images())
    for content in (b"", b"no model", conv().read_bytes()[:-50]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot be read as an ONNX model|cannot load the model"):
            OnnxClassifier(tmp_path / "bad.onnx").predict(images())
    with pytest.raises(ValueError, match=r"cannot load the model.*opset"):
        OnnxClassifier(conv(opset=99)).predict(images())
    with pytest.raises(TypeError, match="model is of type int"):
        OnnxClassifier(3).predict(images())


def test_models_that_are_no_classifiers(tmp_path):
    flatten, maps = (helper.make_node(kind, ["images"], ["scores"]) for kind in ("Flatten", "Relu"))
    cast = [helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT)]
    cast += [helper.make_node("Flatten", ["x"], ["scores"])]
    shape = (None, 3, *SIZE)
    with pytest.raises(ValueError, match=r"inputs are images tensor\(int64\)"):
        OnnxClassifier(saved(tmp_path / "a", cast, shape, [scores()], TensorProto.INT64)).predict(images())
    with pytest.raises(ValueError, match=r"output has shape \(9, 3, 12, 10\); expected \(n, n_classes\)"):
        OnnxClassifier(saved(tmp_path / "b", [maps], shape, [scores(shape=shape)])).predict(images())
    log = [helper.make_node("Log", ["images"], ["x"]), helper.make_node("Flatten", ["x"], ["scores"])]
    with pytest.raises(ValueError, match="output contains NaN or infinity"):
        OnnxClassifier(saved(tmp_path / "c", log, shape, [scores(shape=("n", 360))])).predict(images() * 0)
    unknown = saved(tmp_path / "d", [flatten], (None, 3, None, None), [scores(shape=("n", "k"))])
    with pytest.raises(AttributeError, match="give classes=, or call fit"):
        OnnxClassifier(unknown).classes_  # noqa: B018
    assert OnnxClassifier(unknown).predict(images()).max() < 360


def test_pickle_works_without_the_file(conv):
    path, X = conv(), images()
    model = OnnxClassifier(path)
    pickled = [pickle.dumps(model), pickle.dumps(model.fit(X, list("abcdeabcd")))]
    reference = model.predict_proba(X)
    path.unlink()
    for each in map(pickle.loads, pickled):
        np.testing.assert_array_equal(each.predict_proba(X), reference)
    assert pickle.loads(pickled[1]).classes_.tolist() == list("abcde")
    assert len(pickled[0]) < 10_000


def test_weights_in_another_file_travel_too(conv, tmp_path):
    whole, X = onnx.load(conv()), images()
    path = tmp_path / "parts.onnx"
    onnx.save(whole, path, save_as_external_data=True, location="weights", size_threshold=0, convert_attribute=False)
    model = OnnxClassifier(path)
    content = pickle.dumps(model)
    (tmp_path / "weights").unlink()
    np.testing.assert_array_equal(pickle.loads(content).predict(X), OnnxClassifier(conv()).predict(X))
    with pytest.raises(ValueError, match="cannot be read as an ONNX model"):
        OnnxClassifier(path).predict(X)


def test_clone_bytes_and_another_model(conv):
    X = images()
    model = OnnxClassifier(conv().read_bytes(), n_jobs=2)
    before = clone(model).predict_proba(X)
    np.testing.assert_allclose(before, OnnxClassifier(conv()).predict_proba(X), atol=1e-6)
    model.predict(X)
    after = model.set_params(model=conv(end="Neg"), n_jobs=1).predict_proba(X)
    np.testing.assert_array_equal(after.argmax(1), before.argmin(1))


def test_labels_of_another_model_are_refused(conv, tmp_path):
    model = OnnxClassifier(conv()).fit(images(), np.arange(9) % 5)
    model.set_params(model=linear(tmp_path / "rows.onnx"), image_shape=None)
    with pytest.raises(ValueError, match="The model has 3 outputs, and there are 5 labels"):
        model.predict(load_digits().images[:5])


def test_in_pipelines_and_the_benchmark(tmp_path):
    digits = load_digits()
    nodes = [helper.make_node("Flatten", ["images"], ["r"]), helper.make_node("MatMul", ["r", "weights"], ["scores"])]
    rows = digits.images[digits.train].reshape(len(digits.train), -1) / 255
    weights = np.linalg.lstsq(rows, np.eye(10)[digits.target[digits.train]], rcond=None)[0].astype(np.float32)
    path = saved(tmp_path / "n.onnx", nodes, (None, 1, 8, 8), [scores(shape=("n", 10))], weights=weights)
    model = OnnxClassifier(path, output="logits")
    record = benchmark.run({"net": model}, digits).records[0]
    assert record["error"] is None
    assert record["accuracy"] == model.score(digits.images[digits.test], digits.target[digits.test]) > 0.9
    pipeline = make_pipeline(Resize(8), model)
    assert cross_val_score(pipeline, digits.images[:300], digits.target[:300]).mean() > 0.9


def test_importing_the_package_imports_no_onnx():
    code = "import sys; from classic_cls import OnnxClassifier; assert not {'onnx', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
