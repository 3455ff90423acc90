"""What pipelines reach on a data set, beside the floors that any classifier has to beat, and with how many labels."""

from .corruptions import CORRUPTIONS, Robustness, corrupt, robustness
from .crossings import Crossing, crossing
from .duplicates import Duplicates, Leaks, find_duplicates, find_leaks
from .efficiency import LabelEfficiency, label_efficiency
from .runner import BenchmarkResult, run
