import pickle

import numpy as np
import pytest
from conftest import crops
from sklearn.base import clone, is_clusterer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from classic_cls import PIPELINES, make_hog_svm, make_kmeans_clusters

CLASSIFIERS = [name for name in PIPELINES if not is_clusterer(PIPELINES[name]())]


def two_kinds(n, height, width, colour=True, seed=0):
    """Crops of a photograph, upright and lying: any descriptor of directions tells them apart."""
    images = crops(n, max(height, width), max(height, width), seed)[:, :height, :width]
    images[::2, :, :, :] //= 2
    images[::2, ::2] = 255
    images[1::2, :, ::2] = 0
    labels = np.array(["lying", "upright"])[np.arange(n) % 2]
    return (images if colour else images[..., 0]), labels


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("size", [(8, 8), (31, 64), (150, 90)])
@pytest.mark.parametrize("colour", [False, True])
def test_any_size(name, size, colour):
    images, labels = two_kinds(24, *size, colour)
    model = PIPELINES[name](random_state=0).fit(images[:16], labels[:16])
    assert isinstance(model, Pipeline)
    assert model.score(images[16:], labels[16:]) > 0.8


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_images_of_different_sizes_and_three_integer_classes(name):
    images = [image[: 40 + i] for i, image in enumerate(crops(12, 60, 50))]
    labels = np.arange(12) % 3 + 7
    predicted = PIPELINES[name](random_state=0).fit(images, labels).predict(images)
    assert predicted.dtype == labels.dtype
    assert set(predicted) <= {7, 8, 9}


@pytest.mark.parametrize("name", PIPELINES)
def test_flat_rows_clone_pickle_and_seed(name):
    images, labels = two_kinds(20, 20, 24)
    rows = images.reshape(20, -1)
    model = PIPELINES[name](image_shape=(20, 24, 3), random_state=0)
    expected = clone(model).fit(rows, labels).predict(rows)
    other = PIPELINES[name](random_state=0, n_jobs=2).fit(images, labels)
    np.testing.assert_array_equal(other.predict(images), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(other)).predict(images), expected)
    assert "Pipeline" in model._repr_html_()


def test_search_over_a_pipeline():
    images, labels = two_kinds(24, 32, 32)
    search = GridSearchCV(make_hog_svm(), {"svm__C": [0.1, 1], "hog__orientations": [6, 9]}, cv=3)
    assert search.fit(images, labels).score(images, labels) == 1


def test_labels_of_another_length_are_refused():
    images, labels = two_kinds(10, 32, 32)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        make_hog_svm().fit(images, labels[:-1])


def test_clusters():
    images, labels = two_kinds(30, 32, 32)
    clusters = make_kmeans_clusters(2, random_state=0).fit_predict(images)
    assert len(set(zip(clusters, labels, strict=True))) == 2
