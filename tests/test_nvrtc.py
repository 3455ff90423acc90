"""NVIDIA's compiler takes every CUDA source, on machines without a GPU too."""

import sys

import pytest
from gpu_cases import SOURCES

from classic_cls._arrays import Kernels, kernel_code

if sys.platform != "linux":
    pytest.skip("the compiler's wheel is for Linux", allow_module_level=True)
import nvrtc

OPTIONS = (*Kernels.options, "-ftz=true")  # CuPy adds the latter
CASES = [(source, types) for source, several in SOURCES.items() for types in several]


def names(types):
    return "-".join(f"{name}={getattr(value, '__name__', value)}" for name, value in types.items() if name != "sizes")


@pytest.mark.parametrize(
    ("source", "types"), CASES, ids=lambda value: value if isinstance(value, str) else names(value)
)
def test_compiles_for_the_oldest(source, types):
    code = nvrtc.compile_for("sm_75", kernel_code(source, **types), OPTIONS)
    assert code.startswith(b"\x7fELF")


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("source", SOURCES)
def test_compiles_for_newer_ones(source, architecture):
    code = nvrtc.compile_for(architecture, kernel_code(source, **SOURCES[source][-1]), OPTIONS)
    assert code.startswith(b"\x7fELF")


def test_mistakes_are_reported():
    with pytest.raises(SyntaxError, match=r"nothing.*undefined"):
        nvrtc.compile_for("sm_75", 'extern "C" __global__ void f(int* a) { *a = nothing; }')
