"""Classical image classification, as good and as fast as it can be done today, for scikit-learn users."""

from .datasets import load_dataset, load_digits, load_faces, load_image_folder, load_npz, load_textures
from .features.bag_of_words import BagOfVisualWords, assign_words
from .features.color_histogram import ColorHistogram, color_histogram
from .features.dense_sift import DenseSIFT, dense_sift
from .features.hog import HOG, hog
from .features.keypoint_sift import KeypointSIFT, keypoint_sift
from .features.resize import Resize, resize
from .pipelines import (
    PIPELINES,
    make_bovw_svm,
    make_color_forest,
    make_hog_color_svm,
    make_hog_svm,
    make_kmeans_clusters,
)

__all__ = [
    "HOG",
    "PIPELINES",
    "BagOfVisualWords",
    "ColorHistogram",
    "DenseSIFT",
    "KeypointSIFT",
    "Resize",
    "assign_words",
    "color_histogram",
    "dense_sift",
    "hog",
    "keypoint_sift",
    "load_dataset",
    "load_digits",
    "load_faces",
    "load_image_folder",
    "load_npz",
    "load_textures",
    "make_bovw_svm",
    "make_color_forest",
    "make_hog_color_svm",
    "make_hog_svm",
    "make_kmeans_clusters",
    "resize",
]

__version__ = "0.1.0"
