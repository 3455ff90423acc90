"""``classic-cls info``: what this machine offers, or what a saved model holds."""

import importlib
import os
import platform
from pathlib import Path

from .. import __version__
from .common import mendable


def add_info(commands):
    """Add the command to the parser's."""
    parser = commands.add_parser("info", help="show versions, processor and GPU, or what a saved model holds")
    parser.add_argument("model", metavar="MODEL", nargs="?", type=Path, help="a file that classic_cls.save wrote")
    parser.set_defaults(command=_info)


def _info(arguments):
    return _show_machine() if arguments.model is None else _show_model(arguments.model)


def _show_model(path):
    from ..persistence import inspect_model

    with mendable():
        print(inspect_model(path))
    return 0


def _show_machine():
    from joblib import cpu_count

    from .. import _native

    lines = {"python": platform.python_version(), "classic_cls": __version__}
    modules = {"scikit-learn": "sklearn", "scikit-image": "skimage", "opencv": "cv2", "pillow": "PIL"}
    for name in ("numpy", "scipy", "scikit-learn", "scikit-image", "opencv", "pillow", "joblib"):
        lines[name] = importlib.import_module(modules.get(name, name)).__version__
    lines["processor"] = f"{platform.machine()}, {os.cpu_count()} CPUs, {cpu_count()} for this process"
    lines["kernels"] = f"{_native.body} (this processor runs {', '.join(_native.bodies())})"
    lines["GPU"] = _gpu()
    for name, value in lines.items():
        print(f"{name:<14}{value}")
    return 0


def _gpu():
    try:
        import cupy
    except ImportError as error:
        broken = f"CuPy cannot be imported ({' '.join(str(error).split())})"
        return f"none: {'CuPy is not installed' if error.name == 'cupy' else broken}"
    if not cupy.is_available():
        return f"none: CuPy {cupy.__version__} finds no CUDA device"
    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    return f"{name} (CuPy {cupy.__version__})"
