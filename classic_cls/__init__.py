"""Classical image classification, as good and as fast as it can be done today, for scikit-learn users."""

from .datasets import load_dataset, load_digits, load_faces, load_image_folder, load_npz, load_textures
from .features.hog import HOG, hog

__all__ = [
    "HOG",
    "hog",
    "load_dataset",
    "load_digits",
    "load_faces",
    "load_image_folder",
    "load_npz",
    "load_textures",
]

__version__ = "0.1.0"
