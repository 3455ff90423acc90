"""Classical image classification, as good and as fast as it can be done today, for scikit-learn users."""

from .features.dense_sift import DenseSIFT, dense_sift
from .features.hog import HOG, hog
from .features.keypoint_sift import KeypointSIFT, keypoint_sift

__all__ = ["HOG", "DenseSIFT", "KeypointSIFT", "dense_sift", "hog", "keypoint_sift"]

__version__ = "0.1.0"
