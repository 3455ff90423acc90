"""Which descriptors are drawn to learn from, and which of these k-means begins with."""

import numpy as np
import pytest

from classic_cls._kmeans import _random_rows
from classic_cls.features._local import _drawn

COUNTS = np.array([7, 0, 3, 4, 12, 1])


def numbers(n_images, quota, seed=0):
    return np.random.default_rng(seed).random((n_images, quota + 1))


@pytest.mark.parametrize("quota", [1, 2, 4, 5, 12, 30])
def test_as_many_as_asked_for_or_all(quota):
    rows, ends = _drawn(COUNTS, numbers(6, quota)), COUNTS.cumsum()
    assert np.array_equal(rows, np.unique(rows))
    found = np.bincount(np.searchsorted(ends, rows, side="right"), minlength=6)
    assert np.array_equal(found, np.minimum(COUNTS, quota))


def test_every_row_is_as_likely():
    rows = _drawn(np.full(20_000, 11), numbers(20_000, 4)) % 11
    assert abs(np.bincount(rows) / (20_000 * 4 / 11) - 1).max() < 0.05  # 4 standard deviations


def test_an_image_is_drawn_from_alike_whatever_others_there_are():
    random, starts = numbers(6, 3), COUNTS.cumsum() - COUNTS
    alone = [_drawn(COUNTS[i : i + 1], random[i : i + 1]) + starts[i] for i in range(6)]
    assert np.array_equal(np.concatenate(alone), _drawn(COUNTS, random))


def test_rows_are_not_evenly_spaced():
    rows = _drawn(np.full(500, 12), numbers(500, 3)).reshape(500, 3)
    assert set(np.diff(rows).ravel()) == set(range(1, 8))


def test_the_largest_numbers():
    assert _drawn(COUNTS, np.full((6, 4), 1 - 2.0**-53)).max() < COUNTS.sum()


def test_points_to_begin_with_differ_though_most_are_alike():
    points = np.zeros((300, 2), np.float32)
    points[[5, 150, 299], 0] = 1, 2, 3
    for seed in range(5):
        rows = _random_rows(points, 4, np.random.RandomState(seed))
        assert set(points[rows, 0]) == {0, 1, 2, 3}
    assert len(_random_rows(points, 10, np.random.RandomState(0))) == 10  # too few differ
