"""What the pipelines reach on a data set, beside the two floors that any classifier has to beat."""

from .runner import BenchmarkResult, run

__all__ = ["BenchmarkResult", "run"]
