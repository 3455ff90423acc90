"""What pipelines reach on a data set, beside floors and models from elsewhere: how sure it is, what it costs, why."""

from .corruptions import CORRUPTIONS, Robustness, corrupt, robustness
from .crossings import Crossing, crossing
from .duplicates import Duplicates, Leaks, find_duplicates, find_leaks
from .efficiency import LabelEfficiency, label_efficiency
from .predictions import Predictions, read_predictions, write_predictions
from .results import BenchmarkResult, Evidence
from .runner import run
from .statistics import compare_pairs, intervals, sentence

__all__ = [
    "CORRUPTIONS",
    "BenchmarkResult",
    "Crossing",
    "Duplicates",
    "Evidence",
    "LabelEfficiency",
    "Leaks",
    "Predictions",
    "Robustness",
    "compare_pairs",
    "corrupt",
    "crossing",
    "find_duplicates",
    "find_leaks",
    "intervals",
    "label_efficiency",
    "read_predictions",
    "robustness",
    "run",
    "sentence",
    "write_predictions",
]
