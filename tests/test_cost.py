import platform
import subprocess
import sys
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from joblib import cpu_count, parallel_config
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline

from classic_cls import HOG, LinearSVC, Resize, load_digits, make_color_forest, make_hog_svm
from classic_cls.benchmark import cost
from classic_cls.benchmark.cost import latency_ms, measure_cost, model_bytes, peak_memory, threads, timed_predict

MB = 10**6
needs_mark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps the mark")


class Watched(BaseEstimator):
    """Remembers the batches, and takes the seconds that it is told, on a clock that ticks for it alone."""

    def __init__(self, clock, seconds=(0.001,), n_jobs=None):
        self.clock = clock
        self.seconds = seconds
        self.n_jobs = n_jobs
        self.batches = []

    def predict(self, images):
        self.clock.now += self.seconds[min(len(self.batches), len(self.seconds) - 1)]
        self.batches.append(images)
        return np.zeros(len(images))


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0)
    monkeypatch.setattr(cost, "perf_counter", lambda: clock.now)
    return clock


def test_latency_is_the_median_of_single_images_after_a_warm_up(clock):
    images = np.arange(12).reshape(3, 2, 2)
    model = Watched(clock, (9, 0.004, 0.002, 0.003, 0.1, 0.001))
    assert latency_ms(model, images, 5) == pytest.approx(3)
    assert [batch.tolist() for batch in model.batches] == [images[[k]].tolist() for k in (0, 0, 1, 2, 0, 1)]


def test_latency_stops_after_a_second(clock):
    model = Watched(clock, (0, 0.4))
    assert latency_ms(model, [np.zeros((2, 2))] * 50, 20) == pytest.approx(400)
    assert len(model.batches) == 1 + 3
    slow = Watched(clock, (0, 300))
    assert latency_ms(slow, np.zeros((1, 2, 2))) == pytest.approx(300_000)
    assert len(slow.batches) == 2


@pytest.mark.parametrize(("seconds", "runs", "best"), [((3, 1, 2), 3, 1), ((11, 1), 1, 11)])
def test_short_predictions_are_timed_three_times(clock, seconds, runs, best):
    model = Watched(clock, seconds)
    found, predicted = timed_predict(model, np.zeros((4, 2, 2)))
    assert (found, predicted.tolist(), len(model.batches)) == (best, [0] * 4, runs)


def test_cost_of_a_model(clock):
    model = Watched(clock, (0, 0.002, 0.002, 0.5), n_jobs=2)
    measured = measure_cost(model, np.zeros((10, 2, 2)), n_latency=2)
    assert measured.latency_ms == pytest.approx(2)
    assert measured.images_per_second == pytest.approx(20)
    assert (measured.threads, measured.cpus, measured.device) == (2, cpu_count(), "cpu")
    assert measured.model_bytes == model_bytes(model) > 100


def test_images_of_different_sizes():
    images = [np.full((20 + k, 30), 20 * k, np.uint8) for k in range(6)]
    model = make_pipeline(Resize(32), HOG(), LinearSVC()).fit(images, [0, 1] * 3)
    assert measure_cost(model, images).latency_ms > 0


def test_device_is_that_of_a_step_or_of_the_images(clock):
    class Net(BaseEstimator):
        def __init__(self, device):
            self.device = device

    class Wrapped(Watched):
        def get_params(self, deep=True):
            return {"net": self.net, "net__device": self.net.device}

    images, model = np.zeros((1, 2, 2)), Wrapped(clock)
    for device, found in (("cuda", "cuda"), (None, "cpu")):
        model.net = Net(device)
        assert measure_cost(model, images).device == found


def test_threads_are_those_of_the_busiest_step():
    assert threads(make_pipeline(Resize(n_jobs=2), HOG(n_jobs=3), LinearSVC())) == 3
    assert threads(make_color_forest(n_jobs=-1)) == cpu_count()
    assert threads(make_hog_svm()) == 1
    with parallel_config("threading", n_jobs=4):
        assert threads(make_hog_svm()) == 4
    assert threads(BaseEstimator()) == 1
    assert threads(SimpleNamespace(predict=None)) is None


def test_what_cannot_be_pickled_has_no_size():
    assert model_bytes(SimpleNamespace(step=lambda: 0)) is None
    assert model_bytes(count()) > 0


def test_nothing_to_measure():
    model = make_hog_svm().fit(load_digits().images[:50], load_digits().target[:50])
    with pytest.raises(ValueError, match="no image to predict; expected at least one"):
        measure_cost(model, load_digits().images[:0])
    with pytest.raises(ValueError, match="n_latency=0; expected a positive int"):
        measure_cost(model, load_digits().images, n_latency=0)


@needs_mark
def test_peak_is_seen_though_the_memory_is_given_back():
    with peak_memory() as large:
        np.ones(100 * MB // 8)
        assert large.bytes is None
    with peak_memory() as small:
        np.ones(20 * MB // 8)
    assert large.bytes == pytest.approx(100 * MB, abs=15 * MB)
    assert small.bytes == pytest.approx(20 * MB, abs=15 * MB)


@needs_mark
def test_memory_held_before_is_not_counted():
    held = np.ones(100 * MB // 8)
    with peak_memory() as memory:
        held += 1
    assert 0 <= memory.bytes < 15 * MB


@needs_mark
def test_nested_blocks_keep_the_outer_peak():
    with peak_memory() as outer:
        np.ones(120 * MB // 8)
        with peak_memory() as inner:
            np.ones(40 * MB // 8)
        np.ones(10 * MB // 8)
    assert outer.bytes == pytest.approx(120 * MB, abs=15 * MB)
    assert inner.bytes == pytest.approx(40 * MB, abs=15 * MB)
    with pytest.raises(KeyError), peak_memory() as failed:
        {}[np.ones(60 * MB // 8).size]
    assert failed.bytes == pytest.approx(60 * MB, abs=15 * MB)
    assert cost._open_blocks == []


@needs_mark
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can trim its heap")
def test_memory_freed_but_held_is_counted_when_taken_again():
    """In a process of its own, whose small arrays lie in the heap, above one that stays."""
    code = """
import numpy as np
from classic_cls.benchmark.cost import peak_memory
def take():
    return [np.ones(1000) for _ in range(6000)]
taken = take()
last = np.ones(1000)
del taken
with peak_memory() as memory:
    take()
print(memory.bytes)
"""
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert int(printed) == pytest.approx(48 * MB, abs=15 * MB)


def test_no_measurement_where_the_system_keeps_no_mark(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cost.sys, "platform", "darwin")
        with peak_memory() as memory:
            pass
    assert memory.bytes is None


@needs_mark
def test_no_measurement_where_the_mark_cannot_be_put_back(monkeypatch):
    def refuse(path, text):
        raise PermissionError(path)

    monkeypatch.setattr(cost.Path, "write_text", refuse)
    with peak_memory() as memory:
        np.ones(20 * MB // 8)
    assert memory.bytes is None
