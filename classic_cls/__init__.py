"""Classical image classification, as good and as fast as it can be done today, for scikit-learn users."""

from .features.hog import HOG, hog

__all__ = ["HOG", "hog"]

__version__ = "0.1.0"
