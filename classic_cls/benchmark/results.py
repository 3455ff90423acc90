"""What a benchmark found: records, what the models said, and the page that shows it."""

import json
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from sklearn.utils import Bunch

from .._files import replacing
from .corruptions import Robustness
from .duplicates import find_leaks
from .predictions import split_fingerprint
from .statistics import compare_pairs, intervals


@dataclass(frozen=True, eq=False)
class Evidence:
    """What models said of the test images of a data set, and what follows from it.

    Attributes
    ----------
    dataset : Bunch
    predictions : dict of str to Predictions
        By the model's name.
    outside : tuple of str
        The names of the models that come from elsewhere.
    robustness : Robustness or None
        How the models do on corrupted test images, if that was asked for.
    """

    dataset: Bunch
    predictions: dict
    outside: tuple = ()
    robustness: Robustness | None = None

    @property
    def name(self):
        """The data set's name."""
        return self.dataset.get("name", "custom")

    @property
    def target(self):
        """The test images' true labels."""
        return np.asarray(self.dataset.target)[self.dataset.test]

    @property
    def images(self):
        """The test images."""
        images, test = self.dataset.images, self.dataset.test
        return [images[k] for k in test] if isinstance(images, list) else images[test]

    @cached_property
    def intervals(self):
        """The table of :func:`.statistics.intervals`."""
        return intervals(self.target, self.predictions)

    @cached_property
    def comparisons(self):
        """What :func:`.statistics.compare_pairs` says of every pair of models."""
        return compare_pairs(self.target, self.predictions) if len(self.predictions) > 1 else []

    @property
    def findings(self):
        """The comparisons of our best model with those from elsewhere; without any, of the best with the next three."""
        ours = [name for name in self.ranked if name not in self.outside]
        rivals = [name for name in self.outside if ours] or [name for name in self.ranked[1:4] if name != "majority"]
        pairs = [{(ours or self.ranked)[0], name} for name in rivals]
        return [comparison for comparison in self.comparisons if {comparison.first, comparison.second} in pairs]

    @cached_property
    def leaks(self):
        """What :func:`.duplicates.find_leaks` says of the data set."""
        return find_leaks(self.dataset)

    @cached_property
    def fingerprint(self):
        """The test images', see :func:`.predictions.split_fingerprint`."""
        return split_fingerprint(self.dataset)

    @property
    def ranked(self):
        """The models' names, the most accurate first."""
        right = {name: np.mean(said.labels == self.target) for name, said in self.predictions.items()}
        return sorted(right, key=right.get, reverse=True)


@dataclass(frozen=True)
class BenchmarkResult:
    """What :func:`.run` found.

    Attributes
    ----------
    records : list of dict
        One for each pipeline, in the order they ran, of plain numbers and strings; None where a number does
        not apply. The keys are listed in :func:`.run`.
    evidence : list of Evidence
        What the classifiers said, for each data set whose images have one label each.
    """

    records: list
    evidence: list = field(default_factory=list, repr=False)

    @property
    def table(self):
        """The records as a :class:`pandas.DataFrame`, one row for each pipeline."""
        import pandas as pd

        return pd.DataFrame(self.records)

    @property
    def failed(self):
        """The records of the pipelines that raised an error."""
        return [record for record in self.records if record["error"]]

    def records_of(self, dataset):
        """Return the records of a data set, by its name."""
        return [record for record in self.records if record["dataset"] == dataset]

    def to_json(self, path):
        """Write the records to `path`, a JSON list; an older file is replaced only by a whole one."""
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(self.records, indent=2, allow_nan=False) + "\n")

    def report(self, path, *, command=None):
        """Write a web page that needs nothing else, see :func:`.report.write_report`."""
        from .report import write_report

        write_report(self, path, command=command)
