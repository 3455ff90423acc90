"""Models in files: what comes back, what is refused, and that no file crashes anything."""

import json
import os
import subprocess
import sys
import time
import warnings
import zipfile

import numpy as np
import pytest
import scipy.sparse
import sklearn
import skops.io
from conftest import crops
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from sklearn.utils.validation import check_is_fitted
from test_contract import TRANSFORMERS, make
from threadpoolctl import threadpool_limits

import classic_cls
from classic_cls import cli, inspect_model, load, save
from classic_cls.pipelines import PIPELINES

TREES = ["sklearn.tree._tree.Tree"]
# Small parts of those pipelines that would take long to fit.
DESCRIPTORS = "features__transformer__descriptors"
SMALL = {
    "features__transformer__kernel__n_components": 12,
    "features__transformer__kernel__n_dims": 8,
    f"{DESCRIPTORS}__patches__patches__n_clusters": 10,
    f"{DESCRIPTORS}__patches9__patches__n_clusters": 10,
    f"{DESCRIPTORS}__fisher__fisher__n_components": 3,
    "words__n_words": 20,
    "forest__n_estimators": 5,
    "kmeans__n_clusters": 2,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread_for_products():
    """Several would wait for each other where all cores are busy; the models are tiny."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def images():
    return crops(16, 24, 24)


@pytest.fixture(scope="module")
def labels():
    return np.array(["left", "right"] * 8)


def fitted(name, images, labels):
    model = PIPELINES[name](random_state=0)
    return model.set_params(**{k: v for k, v in SMALL.items() if k in model.get_params()}).fit(images, labels)


@pytest.fixture(scope="module")
def hog_svm(images, labels):
    return fitted("hog-svm", images, labels)


@pytest.fixture
def path(tmp_path, hog_svm):
    save(hog_svm, tmp_path / "model.skops", metadata={"n_train": np.int64(16), "classes": ["left", "right"]})
    return tmp_path / "model.skops"


def rewrite(path, edit, compression=zipfile.ZIP_STORED):
    """Write a file anew with what `edit` returns for the dict of its members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in edit(members).items():
            archive.writestr(name, content)


def rewrite_json(path, name, **changes):
    rewrite(path, lambda members: members | {name: json.dumps(json.loads(members[name]) | changes)})


def refused(path, message, error=ValueError, **options):
    for function in (load, inspect_model):
        with pytest.raises(error, match=message) as caught:
            function(path, **(options if function is load else {}))
        assert str(path) in str(caught.value)


# --- There and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines(name, images, labels, tmp_path):
    model, path = fitted(name, images, labels), tmp_path / name
    save(model, path)
    trusted = TREES if name == "color-forest" else []
    assert inspect_model(path).untrusted == trusted
    again = load(path, trusted=trusted)
    others = crops(9, 24, 24, seed=1)
    for method in ("predict", "predict_proba", "decision_function"):
        if hasattr(model, method):
            np.testing.assert_array_equal(getattr(again, method)(others), getattr(model, method)(others), strict=True)
    assert repr(again) == repr(model)


# They take paths (see test_cli_fit.py), hold what skops does not keep, or need a GPU.
NOT_ON_THESE_IMAGES = {"ReadImages", "NetClassifier", "OnnxClassifier", "ToDevice"}


AROUND_ANOTHER = {"HostPredictions": [classic_cls.RidgeLOOClassifier()]}


def public_estimators():
    public = {name: getattr(classic_cls, name) for name in classic_cls.__all__ if name not in NOT_ON_THESE_IMAGES}
    return {name: c for name, c in public.items() if isinstance(c, type) and issubclass(c, BaseEstimator)}


@pytest.mark.parametrize("name", public_estimators())
def test_public_estimators_need_no_trust(name, images, labels, tmp_path):
    estimator = make(name) if name in TRANSFORMERS else public_estimators()[name](*AROUND_ANOTHER.get(name, ()))
    rows = images.reshape(16, -1)[:, ::50] / 255
    X = images if name in TRANSFORMERS else rows
    save(estimator.fit(X, labels), tmp_path / "model")
    again = load(tmp_path / "model")
    use = "transform" if isinstance(estimator, TransformerMixin) else "predict"
    for a, b in zip(getattr(estimator, use)(X), getattr(again, use)(X), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert isinstance(estimator, (TransformerMixin, ClassifierMixin))


def test_several_labels_per_image(images, tmp_path):
    model = classic_cls.make_baseline("fast", random_state=0).set_params(**{k: SMALL[k] for k in list(SMALL)[:3]})
    model.fit(images, np.random.default_rng(0).integers(0, 2, (16, 3)))
    save(model, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(images), model.predict_proba(images))


def test_one_array_in_two_places_is_one_again(images, tmp_path):
    shared = np.arange(3.0)
    model = FunctionTransformer(np.add, kw_args={"a": [shared, shared]}, validate=False).fit(images)
    save(model, tmp_path / "model")
    first, second = load(tmp_path / "model").kw_args["a"]
    assert first is second


def test_skops_can_read_the_file(path, hog_svm, images):
    again = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
    np.testing.assert_array_equal(again.predict(images), hog_svm.predict(images))


# --- What a file says -------------------------------------------------------------------------------------------------


def test_inspect_model(path, hog_svm):
    info = inspect_model(path)
    assert info.size == path.stat().st_size
    assert info.metadata["user"] == {"n_train": 16, "classes": ["left", "right"]}
    assert info.metadata["classic_cls"] == classic_cls.__version__
    assert info.metadata["model"] == repr(hog_svm)
    assert "  svm: LinearSVC\n    classes_ <U5 (2,)\n    coef_ float64 (1, 1764)" in info.tree
    assert "load needs    nothing" in str(info)


def test_inspect_model_folds_long_lists_and_skips_unfitted_copies(images, labels, tmp_path):
    model = make_pipeline(classic_cls.BagOfVisualWords(classic_cls.DenseSIFT(), 20), PIPELINES["color-forest"]()[1])
    model[1].n_estimators = 20
    save(model.fit(images, labels), tmp_path / "model")
    info = inspect_model(tmp_path / "model")
    assert "estimators_[3] to [19]: not shown" in info.tree
    assert info.tree.count("DenseSIFT") == 1
    assert f"trusted={TREES}" in str(info)


def test_inspecting_constructs_nothing(path, monkeypatch):
    monkeypatch.setattr(BaseEstimator, "__setstate__", lambda self, state: pytest.fail("constructed"))
    inspect_model(path)


def test_terminals_obey_no_file(path):
    rewrite_json(path, "metadata.json", user={"\x1b[2Jname": "\x1b]0;value"})
    text = str(inspect_model(path))
    assert "name" in text
    assert "\x1b" not in text


def test_command(path, capsys):
    assert cli.main(["info", str(path)]) == 0
    assert "n_train       16" in capsys.readouterr().out
    assert cli.main(["info", str(path) + "x"]) == 2
    assert "No such file" in capsys.readouterr().err
    path.write_bytes(b"no zip")
    assert cli.main(["info", str(path)]) == 2
    assert "damaged or no model" in capsys.readouterr().err


# --- Versions ---------------------------------------------------------------------------------------------------------


def test_newer_format(path):
    rewrite_json(path, "metadata.json", format=2, classic_cls="9.9")
    with pytest.raises(ValueError, match=f"by classic_cls 9.9, this is {classic_cls.__version__}.*upgrade"):
        load(path)
    assert inspect_model(path).metadata["format"] == 2


def test_another_scikit_learn_is_one_warning(path, images, hog_svm):
    def age(members):
        return {k: v.replace(sklearn.__version__.encode(), b"1.2.3") for k, v in members.items()}

    rewrite(path, age)
    with pytest.warns(UserWarning, match=r"scikit-learn 1\.2\.3") as caught:
        np.testing.assert_array_equal(load(path).predict(images), hog_svm.predict(images))
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_file_of_skops_itself_loads_with_a_warning(tmp_path, hog_svm, images):
    skops.io.dump(hog_svm, tmp_path / "model")
    with pytest.warns(UserWarning, match="no metadata"):
        assert (load(tmp_path / "model").predict(images) == hog_svm.predict(images)).all()
    assert inspect_model(tmp_path / "model").metadata == {}


def test_same_versions_are_silent(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path)


# --- What cannot be saved ---------------------------------------------------------------------------------------------


def halve(X):
    return X / 2


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda: classic_cls.make_hog_svm(), NotFittedError, "Pipeline is not fitted; fit it first"),
        (lambda: FunctionTransformer(lambda X: X).fit([[1]]), ValueError, "holds test_persistence.<lambda>.*no lambda"),
        (lambda: FunctionTransformer(kw_args={"a": scipy.sparse.eye(3)}).fit([[1]]), ValueError, "arrays of numbers"),
        (lambda: FunctionTransformer(kw_args={"a": open(os.devnull)}).fit([[1]]), ValueError, "cannot be saved"),  # noqa: SIM115
        (lambda: {"a": 1}, TypeError, "not an estimator"),
    ],
)
def test_what_cannot_be_saved(spoil, error, message, path):
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        save(spoil(), path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_model_that_holds_itself(tmp_path):
    model = FunctionTransformer(kw_args={}).fit([[1]])
    model.kw_args["a"] = model
    with pytest.raises(ValueError, match="cannot be saved: RecursionError"):
        save(model, tmp_path / "model")


def test_a_function_with_a_name_is_saved_and_needs_trust(tmp_path):
    save(FunctionTransformer(halve).fit([[1]]), tmp_path / "model")
    with pytest.raises(ValueError, match=r"not trusted: test_persistence.halve"):
        load(tmp_path / "model")
    assert load(tmp_path / "model", trusted=["test_persistence.halve"]).transform(np.array([[4]])) == [[2]]


@pytest.mark.parametrize("metadata", [{"a": np.nan}, {"a": object()}, {"a": np.zeros(3)}, {1: 2}, [1], 7])
def test_metadata_that_json_cannot_say(metadata, hog_svm, tmp_path):
    with pytest.raises(ValueError, match="expected a dict of names and numbers"):
        save(hog_svm, tmp_path / "model", metadata=metadata)


def test_paths_to_save_to(hog_svm, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        save(hog_svm, tmp_path / "nowhere" / "model")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save(hog_svm, tmp_path)


def test_a_full_disk_leaves_nothing(hog_svm, path, monkeypatch):
    before = path.read_bytes()

    def full(model, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(skops.io, "dump", full)
    with pytest.raises(OSError, match="No space"):
        save(hog_svm, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


# --- What is not trusted ----------------------------------------------------------------------------------------------


def test_the_error_says_what_to_trust(images, labels, tmp_path):
    save(fitted("color-forest", images, labels), tmp_path / "model")
    with pytest.raises(ValueError, match=r"load it with trusted=\['sklearn.tree._tree.Tree'\]"):
        load(tmp_path / "model")
    save(make_pipeline(classic_cls.HOG(), SVC()).fit(images, labels), tmp_path / "model")
    with pytest.raises(ValueError, match=r"trusted=\['sklearn.svm._classes.SVC'\]"):
        load(tmp_path / "model")
    model = load(tmp_path / "model", trusted=["sklearn.svm._classes.SVC"])
    assert model.predict(images).shape == (16,)


def test_a_generator_is_not_trusted(images, tmp_path):
    """A forged position in its state would be read without a look at where that is."""
    save(classic_cls.HOG().fit(images).set_params(n_jobs=np.random.RandomState(0)), tmp_path / "model")
    with pytest.raises(ValueError, match=r"not trusted: numpy.random.mtrand.RandomState"):
        load(tmp_path / "model")


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "classic_cls.cli.main", "classic_cls.persistence.load"])
@pytest.mark.parametrize("loader", ["FunctionNode", "TypeNode", "ObjectNode", "ConstructorFromReduceNode", "ListNode"])
def test_code_is_refused(name, loader, path):
    module, _, function = name.rpartition(".")
    state = {"__loader__": loader, "__module__": module, "__class__": function}
    content = {"__loader__": "ListNode", "__module__": "builtins", "__class__": "list", "content": []}
    state["content"] = [] if loader == "ListNode" else content
    rewrite_json(path, "schema.json", **state)
    with pytest.raises(ValueError, match=f"not trusted: {name}"):
        load(path)
    assert name in inspect_model(path).untrusted


def test_names_that_only_look_like_ours_are_refused(path):
    text = "classic_cls.features.hog"
    rewrite(path, lambda m: {k: v.replace(text.encode(), b"classic_cls.features.HOG") for k, v in m.items()})
    with pytest.raises(ValueError, match=r"not trusted: classic_cls.features.HOG.HOG"):
        load(path)


@pytest.mark.parametrize("trusted", ["sklearn.tree._tree.Tree", True, [SVC]])
def test_trusted_is_a_list_of_names(trusted, path):
    with pytest.raises(TypeError, match="expected a list of names"):
        load(path, trusted=trusted)


# --- Damaged and forged files -----------------------------------------------------------------------------------------


def test_paths_to_load_from(tmp_path):
    refused(tmp_path / "nowhere", "No such file", FileNotFoundError)
    refused(tmp_path, "Is a directory", IsADirectoryError)


@pytest.mark.parametrize("n", [0, 1, 21, 1000, -1, -30, -5000])
def test_truncated(path, n):
    path.write_bytes(path.read_bytes()[:n])
    refused(path, "damaged or no model")


def test_compressed_members(path):
    rewrite(path, lambda members: members, zipfile.ZIP_DEFLATED)
    refused(path, "is compressed")


def test_members_that_overlap(path):
    """The directory of a zip may name the same bytes any number of times."""
    rewrite(path, lambda members: members | {"zeros.npy": npy(np.zeros(100_000))})
    content = path.read_bytes()
    start = content.rindex(b"PK\x01\x02", 0, content.rindex(b"zeros.npy"))
    entry = content[start : content.index(b"PK\x05\x06")]
    copies = b"".join(entry.replace(b"zeros.npy", b"zero%d.npy" % i) for i in range(9))
    end = bytearray(content[content.index(b"PK\x05\x06") :])
    end[8:10] = end[10:12] = (int.from_bytes(end[8:10], "little") + 9).to_bytes(2, "little")
    end[12:16] = (int.from_bytes(end[12:16], "little") + len(copies)).to_bytes(4, "little")
    path.write_bytes(content[: start + len(entry)] + copies + bytes(end))
    refused(path, "its members overlap")


def npy(array, **header):
    import io

    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(array) | header)
    return buffer.getvalue() + array.tobytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(np.zeros(3), shape=(10**12,)), "more or less"),
        (npy(np.zeros(3), shape=(2,)), "more or less"),
        (npy(np.zeros(0), shape=(-1,)), "expected numbers or text"),
        (npy(np.zeros(0), descr="|V0", shape=(10**12,)), "expected numbers or text"),
        (npy(np.zeros(3), descr="|O"), "expected numbers or text"),
        (b"\x93NUMPY\x03\x00", "damaged"),
        (b"PK\x03\x04", "damaged"),
        (b"", "damaged"),
    ],
)
def test_arrays_that_lie(content, message, path):
    rewrite(path, lambda members: {k: content if k.endswith(".npy") else v for k, v in members.items()})
    refused(path, message)


def node(loader, kind, **more):
    return {"__loader__": loader, "__module__": "builtins", "__class__": kind, **more}


def test_a_schema_that_doubles_at_every_level(path):
    level = node("ListNode", "list", content=[], __id__=1)
    for i in range(2, 100):
        level = node("ListNode", "list", content=[level, node("ListNode", "list", content=[], __id__=i - 1)], __id__=i)
    rewrite_json(path, "schema.json", **level)
    started = time.monotonic()
    refused(path, "said to be one.*differ")
    assert time.monotonic() - started < 10


def test_a_schema_that_holds_itself(path):
    inner = node("ListNode", "list", content=[], __id__=5)
    rewrite_json(path, "schema.json", **node("ListNode", "list", content=[inner], __id__=5))
    refused(path, "said to be one.*differ")


def test_one_array_for_two_objects(path):
    def forge(members):
        name = next(k for k in members if k.endswith(".npy"))
        array = node("NdArrayNode", "ndarray", type="numpy", file=name) | {"__module__": "numpy"}
        schema = json.loads(members["schema.json"]) | node("ListNode", "list", content=[array] * 3)
        return members | {"schema.json": json.dumps(schema)}

    rewrite(path, forge)
    refused(path, "two objects claim")


def test_a_deep_schema(path):
    rewrite(path, lambda members: members | {"schema.json": "[" * 10**6})
    refused(path, "damaged")
    deep = node("ListNode", "list", content=[])
    for _ in range(400):
        deep = node("ListNode", "list", content=[deep])
    rewrite(path, lambda members: members | {"schema.json": json.dumps(deep | {"protocol": 2})})
    refused(path, "damaged or no model: RecursionError")


@pytest.mark.parametrize("changes", [{"format": "1"}, {"format": True}, {"model": None}, {"user": 3}])
def test_metadata_that_is_none(changes, path):
    rewrite_json(path, "metadata.json", **changes)
    refused(path, "metadata.json")


def test_not_an_estimator(path):
    rewrite_json(path, "schema.json", **node("ListNode", "list", content=[]))
    with pytest.raises(ValueError, match=r"expected an estimator, not \[\]"):
        load(path)


@pytest.mark.parametrize(
    ("name", "step", "attribute", "spoil", "message"),
    [
        ("hog-svm", "svm", "coef_", lambda a: a * np.nan, "LinearSVC.coef_ holds NaN or infinity"),
        ("bovw-svm", "words", "vocabulary_", lambda a: np.where(a > 0, np.inf, a), "vocabulary_ holds NaN or infinity"),
        ("fast", "ridge", "scale_", lambda a: float("nan"), "RidgeLOOClassifier.scale_ holds NaN"),
        ("kmeans-clusters", "kmeans", "cluster_centers_", lambda a: np.tile(a, 10**4), "cluster_centers_ has shape"),
        ("kmeans-clusters", "kmeans", "n_features_in_", lambda a: 1, "there are 1 features"),
    ],
)
def test_numbers_that_would_pass_in_silence_or_crash(name, step, attribute, spoil, message, images, labels, tmp_path):
    model = fitted(name, images, labels)
    setattr(model.named_steps[step], attribute, spoil(getattr(model.named_steps[step], attribute)))
    with pytest.raises(ValueError, match=f"cannot be saved: .*{message}"):
        save(model, tmp_path / "model")
    skops.io.dump(model, tmp_path / "model")
    with pytest.warns(UserWarning, match="no metadata"), pytest.raises(ValueError, match=message):
        load(tmp_path / "model")


FUZZ = """
import resource, sys, warnings
import numpy as np
from classic_cls import inspect_model, load
from test_persistence import mutants

def outcome(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return type(error).__name__
    return "done"

warnings.simplefilter("ignore")
images, models = np.load("images.npy"), sys.argv[2:]
for model in models:
    load(model).predict(images)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in (path for model in models for path in mutants(model, int(sys.argv[1]))):
    inspected = outcome(inspect_model, path)
    try:
        model = load(path)
    except ValueError:
        print(inspected, "refused")
    else:
        print(inspected, "loaded", outcome(model.predict, images), flush=True)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def mutants(path, n):
    """Write and yield `n` damaged copies of a file."""
    rng, original, copy = np.random.default_rng(0), open(path, "rb").read(), f"{path}.mutant"  # noqa: SIM115
    for i in range(n):
        kind = ("bytes", "cut", "numbers", "shape", "schema")[i % 5]
        with open(copy, "wb") as file:
            file.write(damaged(kind, original, rng))
        if kind in ("numbers", "shape", "schema"):
            rewrite(copy, lambda members, kind=kind: edited(kind, members, rng))
        yield copy


def damaged(kind, content, rng):
    content = bytearray(content)
    if kind == "bytes":
        for k in rng.integers(0, len(content), rng.integers(1, 20)):
            content[k] = rng.integers(256)
    return bytes(content[: rng.integers(len(content))] if kind == "cut" else content)


def edited(kind, members, rng):
    """Change an array's numbers or shape, or exchange values of the schema."""
    if kind == "schema":
        return members | {"schema.json": exchanged(members["schema.json"].decode(), rng)}
    name = rng.choice([k for k in members if k.endswith(".npy")])
    import io

    array = np.load(io.BytesIO(members[name]))
    if kind == "shape":
        wanted = [(), (0,), (1, 1), (array.size,), (3, *array.shape), (1, max(array.size, 1)), (max(array.size, 1), 1)]
        array = np.resize(array, wanted[rng.integers(len(wanted))])
    else:
        kinds = [np.float32, np.float64, np.int8, np.int64, np.uint8, bool, "S3", np.complex64]
        raw = rng.integers(0, 256, array.nbytes, dtype=np.uint8)
        other = raw.view(array.dtype).reshape(array.shape)
        array = other if rng.random() < 0.3 else np.zeros(array.shape, kinds[rng.integers(len(kinds))])
    return members | {name: npy(np.ascontiguousarray(array))}


def exchanged(schema, rng):
    import re

    pattern = r'"content": "[^\n]*"|"file": "[^"]*"|"__class__": "[^"]*"|"__loader__": "[^"]*"|"__id__": \d+'
    found = [m.span() for m in re.finditer(pattern, schema)]
    (a, b), (c, d) = (found[i] for i in sorted(rng.choice(len(found), 2, replace=False)))
    numbers = ['"content": "-1"', '"content": "0"', '"content": "1000"', '"content": "null"', '"content": "[1, 2]"']
    replacement = schema[c:d] if rng.random() < 0.5 else numbers[rng.integers(len(numbers))]
    return schema[:a] + replacement + schema[b:]


def test_no_damage_crashes_anything(images, labels, tmp_path):
    """A damaged copy is refused with a ValueError, or loads; then it answers, or raises. In a process of its own."""
    names = ["balanced", "bovw-svm", "hog-color-svm", "kmeans-clusters"]
    for name in names:
        save(fitted(name, images, labels), tmp_path / name)
    np.save(tmp_path / "images.npy", images[:3])
    folders = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = os.environ | {"PYTHONPATH": folders, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FUZZ, "60", *names]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    *outcomes, mebibytes = [line.split() for line in done.stdout.splitlines()]
    assert len(outcomes) == 240
    assert {inspected for inspected, *_ in outcomes} == {"done", "ValueError"}
    assert {loaded for _, loaded, *_ in outcomes} == {"loaded", "refused"}
    assert int(mebibytes[0]) < 256


def test_importing_the_package_imports_no_skops():
    code = "import sys, classic_cls, classic_cls.cli; assert 'skops' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_loaded_models_are_fitted(path):
    check_is_fitted(load(path))
