"""Classical image classification, as good and as fast as it can be done today, for scikit-learn users."""

from .features.color_histogram import ColorHistogram, color_histogram
from .features.hog import HOG, hog

__all__ = ["HOG", "ColorHistogram", "color_histogram", "hog"]

__version__ = "0.1.0"
