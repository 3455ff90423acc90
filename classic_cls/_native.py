"""Picks, once, the build of the CPU kernels that this processor can run.

The same C++ sources are compiled into several modules: ``baseline`` runs everywhere; on x86-64 there are also
``v3`` (AVX2, FMA) and ``v4`` (AVX-512). Every caller says ``_native.kernels.name(...)`` at call time. The environment
variable ``CLASSIC_CLS_BODY`` names one body instead of the best one.
"""

import importlib
import os

try:
    from . import _native_baseline
except ImportError as error:
    raise ImportError(
        f"There are no compiled kernels in {os.path.dirname(__file__)}. In the folder of the sources Python finds "
        "these before what was installed: go to another folder, or install with python -m pip install -e ."
    ) from error


def bodies():
    """Return the kernel modules that this CPU can run, by name, the fastest last."""
    found = {"baseline": _native_baseline}
    for name in _native_baseline.supported_bodies():
        found[name] = importlib.import_module(f"classic_cls._native_{name}")
    return found


def _choose():
    available = bodies()
    wanted = os.environ.get("CLASSIC_CLS_BODY") or list(available)[-1]
    if wanted not in available:
        raise ImportError(
            f"CLASSIC_CLS_BODY={wanted!r} is not a kernel body that this CPU can run; choose from {list(available)}."
        )
    return wanted, available[wanted]


body, kernels = _choose()
