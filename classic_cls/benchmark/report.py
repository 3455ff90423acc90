"""The benchmark's result as one web page that needs nothing else: no network, no other file."""

import os
import platform
import time
from importlib.metadata import version
from importlib.resources import files

from .._files import replacing
from ._report_blocks import part
from ._report_figures import page_style

_PACKAGES = ("classic_cls", "scikit-learn", "numpy", "scipy", "opencv-python", "pillow")


def write_report(result, path, *, command=None):
    """Write a benchmark's result as a self-contained HTML page.

    Parameters
    ----------
    result : BenchmarkResult
        Of :func:`.run`.
    path : str or path
        An older file is replaced only by a whole page.
    command : str, default=None
        The command that reproduces the result, to be shown at the end.

    Raises
    ------
    ValueError
        If the result holds no predictions, as when all pipelines failed, or images have several labels each.
    """
    from jinja2 import Environment

    if not result.evidence:
        raise ValueError("The result holds no predictions of single labels; there is nothing to report on.")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("report.html.jinja").read_text("utf-8"))
    with page_style():
        parts = [part(test, result.records_of(test.name)) for test in result.evidence]
    made = f"{time.strftime('%Y-%m-%d')}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    title = "classic_cls benchmark: " + ", ".join(test.name for test in result.evidence)
    text = template.render(title=title, made=made, parts=parts, reproduce=_reproduce(result, command))
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _reproduce(result, command):
    lines = [command] if command else []
    lines.append(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in _PACKAGES))
    for test in result.evidence:
        seed = result.records_of(test.name)[0]["seed"]
        lines.append(f"{test.name}: seed {seed}, fingerprint of the test images {test.fingerprint}")
    return "\n".join(lines)
