import json
import os
from unittest.mock import Mock

import numpy as np
import pytest
from rich.console import Console
from sklearn.cluster import DBSCAN, KMeans
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import LinearSVC
from sklearn.utils import Bunch

from classic_cls import RidgeLOOClassifier, benchmark
from classic_cls.benchmark.runner import FLOORS
from classic_cls.benchmark.scores import classification_scores, clustering_scores, multilabel_scores
from classic_cls.benchmark.terminal import print_tables
from classic_cls.pipelines import PIPELINES

REQUIRED = {
    "dataset",
    "pipeline",
    "n_train",
    "n_test",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "mean_average_precision",
    "adjusted_rand",
    "normalized_mutual_info",
    "matched_accuracy",
    "fit_seconds",
    "fit_peak_bytes",
    "predict_seconds",
    "images_per_second",
    "latency_ms",
    "model_bytes",
    "threads",
    "device",
    "seed",
    "error",
}


def rows_of(images):
    return np.array([image[:4, :4].ravel() for image in images]) / 255


def pixels(last):
    return make_pipeline(FunctionTransformer(rows_of), last)


@pytest.fixture
def bunch():
    """Dark and bright images, three to two, that anyone can tell apart."""
    target = np.arange(50) % 5 // 3
    images = np.random.default_rng(0).integers(0, 50, (50, 6, 5)) + 150 * target[:, None, None]
    return Bunch(
        name="bright",
        images=images.astype(np.uint8),
        target=target,
        target_names=np.array(["dark", "bright"]),
        train=np.arange(30),
        test=np.arange(30, 50),
    )


def record(result, name):
    return next(record for record in result.records if record["pipeline"] == name)


def test_records_hold_what_is_promised(bunch):
    result = benchmark.run({"svm": pixels(LinearSVC())}, bunch, random_state=np.int64(3))
    assert [record["pipeline"] for record in result.records] == ["svm", "pixels-svm", "majority"]
    for row in result.records:
        assert set(row) == REQUIRED
        assert (row["dataset"], row["n_train"], row["n_test"], row["seed"]) == ("bright", 30, 20, 3)
        assert (row["device"], row["error"], row["matched_accuracy"]) == ("cpu", None, None)
        assert row["fit_seconds"] > 0
        assert row["images_per_second"] == pytest.approx(20 / row["predict_seconds"])
        assert row["model_bytes"] > 100
    assert record(result, "svm")["accuracy"] == record(result, "pixels-svm")["accuracy"] == 1
    assert record(result, "majority")["accuracy"] == 0.6
    assert record(result, "majority")["balanced_accuracy"] == 0.5
    assert result.failed == []


def test_records_tell_the_device(bunch):
    class Pixels(FunctionTransformer):
        def __init__(self, device):
            super().__init__(rows_of)
            self.device = device

    own = {"there": make_pipeline(Pixels("cuda:1"), LinearSVC()), "broken": make_pipeline(Pixels("cuda"), DBSCAN())}
    result = benchmark.run(own, bunch)
    devices = {row["pipeline"]: row["device"] for row in result.records}
    assert devices == {"there": "cuda:1", "broken": "cuda", "pixels-svm": "cpu", "majority": "cpu"}
    assert [row["pipeline"] for row in result.failed] == ["broken"]


def test_table_has_a_row_for_each_pipeline(bunch):
    result = benchmark.run({"svm": pixels(LinearSVC())}, bunch)
    assert set(result.table.columns) == REQUIRED
    assert result.table.set_index("pipeline").loc["majority", "accuracy"] == 0.6


def test_estimators_are_not_fitted_in_place(bunch):
    own = pixels(LinearSVC())
    benchmark.run({"svm": own}, bunch)
    assert not hasattr(own[-1], "coef_")


def test_wilson_interval_by_hand():
    # p = 0.8, n = 10, z = 1.959964: (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)
    scores = classification_scores([1] * 10, [1] * 8 + [0] * 2)
    assert scores["accuracy"] == 0.8
    assert scores["accuracy_low"] == pytest.approx(0.4901625, abs=1e-6)
    assert scores["accuracy_high"] == pytest.approx(0.9433178, abs=1e-6)
    assert classification_scores([1] * 10, [1] * 10)["accuracy_high"] == 1


def test_balanced_accuracy_is_over_the_classes_of_the_test():
    scores = classification_scores([0, 0, 0, 1], [0, 0, 2, 1])
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)


def test_clusters_are_matched_on_the_training_images():
    scores = clustering_scores([0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0])
    assert scores == {"adjusted_rand": 1, "normalized_mutual_info": 1, "matched_accuracy": 1}
    scores = clustering_scores([0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1])
    assert scores["adjusted_rand"] == 1
    assert scores["matched_accuracy"] == 0


def test_more_clusters_than_classes_and_noise():
    train = [0, 0, 0, 1, 1, 1], [0, 0, 2, 1, 1, -1]
    scores = clustering_scores([0, 0, 1, 1], [0, 2, 1, 7], *train)
    assert scores["matched_accuracy"] == 0.5


def test_clusterers_get_their_own_scores(bunch):
    result = benchmark.run({"k-means": pixels(KMeans(2, random_state=0)), "dbscan": pixels(DBSCAN())}, bunch)
    row = record(result, "k-means")
    assert (row["adjusted_rand"], row["normalized_mutual_info"], row["matched_accuracy"]) == (1, 1, 1)
    assert row["accuracy"] is row["accuracy_low"] is row["balanced_accuracy"] is None
    assert "predict" in record(result, "dbscan")["error"]
    bunch.target[bunch.test] = 1 - bunch.target[bunch.test]
    row = record(benchmark.run({"k-means": pixels(KMeans(2, random_state=0))}, bunch), "k-means")
    assert (row["adjusted_rand"], row["matched_accuracy"]) == (1, 0)


def test_a_failing_pipeline_does_not_lose_the_others(bunch):
    def broken(images):
        raise OSError("no such luck")

    pipelines = {
        "broken": make_pipeline(FunctionTransformer(broken), LinearSVC()),
        "no estimator": "hog",
        "fine": pixels(LinearSVC()),
    }
    result = benchmark.run(pipelines, bunch)
    assert record(result, "broken")["error"] == "OSError: no such luck"
    assert record(result, "broken")["accuracy"] is None
    assert record(result, "broken")["n_test"] == 20
    assert record(result, "no estimator")["error"]
    assert record(result, "fine")["accuracy"] == 1
    assert [row["pipeline"] for row in result.failed] == ["broken", "no estimator"]


def test_a_model_that_cannot_be_pickled_still_counts(bunch):
    unpicklable = make_pipeline(FunctionTransformer(lambda images: rows_of(images)), LinearSVC())
    row = record(benchmark.run({"svm": unpicklable}, bunch), "svm")
    assert row["accuracy"] == 1
    assert row["model_bytes"] is None


@pytest.mark.parametrize("shape", [(70, 80), (70, 80, 3)])
def test_floors_take_large_pictures_and_different_sizes(bunch, shape):
    large = [np.full(shape, image.mean(), np.uint8) for image in bunch.images]
    for images in (np.array(large), [large[0][:60], *large[1:]]):
        result = benchmark.run({}, Bunch(**bunch | {"images": images}))
        assert record(result, "pixels-svm")["accuracy"] == 1, result.failed
        assert 1000 < record(result, "pixels-svm")["model_bytes"] < 200_000


def test_progress_is_told_before_each_pipeline(bunch):
    calls = []
    benchmark.run({"a": DummyClassifier()}, bunch, progress=lambda *call: calls.append(call))
    assert calls == [(0, 3, "a"), (1, 3, "pixels-svm"), (2, 3, "majority"), (3, 3, None)]


def test_named_pipelines_on_an_embedded_set():
    result = benchmark.run(["hog-svm", "kmeans-clusters"], "faces")
    assert result.failed == []
    assert record(result, "hog-svm")["accuracy"] > record(result, "majority")["accuracy"] == 0.5
    assert record(result, "kmeans-clusters")["matched_accuracy"] > 0.4
    again = benchmark.run("hog-svm", "faces")
    assert record(again, "hog-svm")["accuracy"] == record(result, "hog-svm")["accuracy"]


def test_what_cannot_be_run(bunch):
    with pytest.raises(ValueError, match=r"no pipeline 'hog'; choose from .*hog-svm"):
        benchmark.run(["hog-svm", "hog"], bunch)
    with pytest.raises(ValueError, match="'majority' is a floor"):
        benchmark.run({"majority": DummyClassifier()}, bunch)
    with pytest.raises(ValueError, match="random_state=RandomState"):
        benchmark.run({}, bunch, random_state=np.random.RandomState(0))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        benchmark.run({}, "nowhere")
    assert not set(FLOORS) & set(PIPELINES)


def test_json_is_strict_and_replaces_a_file_only_when_whole(bunch, tmp_path, monkeypatch):
    result = benchmark.run({"k-means": pixels(KMeans(2))}, bunch)
    path = tmp_path / "results.json"
    result.to_json(path)

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(path.read_text(), parse_constant=refuse) == result.records
    assert os.listdir(tmp_path) == ["results.json"]
    before = path.read_text()
    result.records[0]["accuracy"] = 0.5
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", Mock(side_effect=OSError("no room")))
        with pytest.raises(OSError, match="no room"):
            result.to_json(path)
    result.records[0]["accuracy"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        result.to_json(path)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["results.json"]


def printed(result, width=80):
    console = Console(width=width, record=True, file=open(os.devnull, "w"), markup=False)  # noqa: SIM115
    print_tables(result.records, console)
    return console.export_text().splitlines()


def test_report_is_sorted_and_fits_in_80_columns(bunch):
    pipelines = {
        "poor": DummyClassifier(strategy="constant", constant=1),
        "good": pixels(LinearSVC()),
        "k-means": pixels(KMeans(2)),
        "bad [red]": "no estimator",
    }
    lines = printed(benchmark.run(pipelines, bunch))
    assert lines[0] == "bright: 30 images to train, 20 to test"
    first_words = [line.split()[0] for line in lines if line.strip()]
    assert first_words[3:7] == ["good", "pixels-svm", "poor", "majority"]
    assert first_words[7] == "clusters"
    assert first_words[9] == "k-means"
    assert lines[-2].startswith("bad [red] failed: TypeError: ")
    table = [line for line in lines if not line.startswith("bad")]
    assert max(map(len, table)) <= 80
    assert all("…" not in line for line in table)
    assert "0.600    0.387-0.781" in next(line for line in table if line.startswith("majority"))


def test_report_keeps_data_sets_apart(bunch):
    one, two = (benchmark.run({}, Bunch(**bunch | {"name": name})) for name in ("one", "two"))
    lines = printed(benchmark.BenchmarkResult(one.records + two.records))
    assert [line.split(":")[0] for line in lines if ":" in line] == ["one", "two"]
    assert not any(line.startswith("clusters") for line in lines)


def test_several_labels_of_an_image(bunch):
    """The second label is a bright corner, which a linear SVM on pixels finds, too."""
    corner = np.arange(50) % 7 < 3
    bunch.images[corner, 0, 0] = 255
    bunch.target = np.column_stack([bunch.target, corner]).astype(int)
    bunch.target_names = np.array(["bright", "corner"])
    forest = pixels(RandomForestClassifier(20, random_state=0))
    result = benchmark.run({"ridge": pixels(RidgeLOOClassifier()), "forest": forest}, bunch)
    assert not result.failed
    for name in ("ridge", "pixels-svm"):
        assert record(result, name)["mean_average_precision"] > 0.9
        assert record(result, name)["accuracy"] > 0.7
    assert 0.5 < record(result, "forest")["mean_average_precision"] <= 1
    target = bunch.target[bunch.test]
    assert record(result, "majority")["mean_average_precision"] == pytest.approx(target.mean(0).mean())
    heading = next(line for line in printed(result) if line.startswith("pipeline"))
    assert heading.split()[1:6] == ["all", "right", "95", "%", "interval"]
    assert "mAP" in heading


def test_labels_that_no_test_image_has_are_left_out():
    target, scores = np.array([[1, 0], [0, 0]]), np.array([[0.9, 0.8], [0.1, 0.2]])
    assert multilabel_scores(target, target, scores)["mean_average_precision"] == 1
    with pytest.raises(ValueError, match="No test image has a label"):
        multilabel_scores(target * 0, target, scores)
