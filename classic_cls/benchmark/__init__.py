"""What pipelines reach on a data set, beside the floors that any classifier has to beat, and with how many labels."""

from .crossings import Crossing, crossing
from .efficiency import LabelEfficiency, label_efficiency
from .runner import BenchmarkResult, run

__all__ = ["BenchmarkResult", "Crossing", "LabelEfficiency", "crossing", "label_efficiency", "run"]
