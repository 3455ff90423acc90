"""What the pipelines reach on a data set, beside the two floors that any classifier has to beat."""

from .corruptions import CORRUPTIONS, Robustness, corrupt, robustness
from .duplicates import Duplicates, Leaks, find_duplicates, find_leaks
from .runner import BenchmarkResult, run

__all__ = [
    "CORRUPTIONS",
    "BenchmarkResult",
    "Duplicates",
    "Leaks",
    "Robustness",
    "corrupt",
    "find_duplicates",
    "find_leaks",
    "robustness",
    "run",
]
