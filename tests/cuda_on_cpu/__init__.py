"""Compiles CUDA sources for the CPU and launches their kernels on NumPy arrays, with CuPy's interface."""

import atexit
import ctypes
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

KERNEL = re.compile(r'extern "C" __global__ void(?: __launch_bounds__\([^)]+\))?\s+(\w+)\(')
SIZE = re.compile(r"^const int (\w+) = (\d+);$", re.MULTILINE)
_DYNAMIC_SHARED = re.compile(r"extern __shared__ ([\w ]+) (\w+)\[\];")
_FENCE = 4096  # bytes on either side of an array that a kernel must not touch
_ALIGNMENT = 16  # of what is allocated; a copy of a slice is as much off as the slice
_POISON = b"\xad\xdb\xba\xff"  # as float32, a NaN that changes its bits in any sum or product

seed = 0  # of the order in which threads and blocks run


class CudaError(Exception):
    """A kernel did what CUDA forbids."""


class RawModule:
    """The kernels of a CUDA source, compiled by g++; what ``cupy.RawModule`` is on a GPU."""

    launched = []  # (source, kernel) of every launch

    def __init__(self, *, code, options=()):
        self.code = code
        self._sizes = {name: int(value) for name, value in SIZE.findall(code)}
        self._library = ctypes.CDLL(_compiled(SIZE.sub(r'extern "C" int \1; int \1;', code)))

    def get_function(self, name):
        """Return a function that launches a kernel."""
        return lambda grid, block, args, shared_mem=0: self._launch(name, grid, block, args, shared_mem)

    def _launch(self, name, grid, block, args, shared_mem):
        signature = getattr(self._library, f"signature_{name}")
        signature.restype = ctypes.c_char_p
        arguments = _Arguments(args, signature().decode().split(), name)
        launch = getattr(self._library, f"launch_{name}")
        launch.restype = ctypes.c_char_p
        for size, value in self._sizes.items():  # spares compiling each of them
            ctypes.c_int.in_dll(self._library, size).value = value
        failure = launch(_three(grid), _three(block), ctypes.c_size_t(shared_mem), ctypes.c_uint64(seed), arguments.all)
        if failure:
            raise CudaError(f"{name}: {failure.decode()}")
        arguments.take_back()
        RawModule.launched.append((self.code, name))


@cache
def _compiled(code):
    """Return the path of the shared library that a CUDA source becomes."""
    level = "-O0" if "hog" in KERNEL.findall(code) else "-O1"  # compiled for each parameter, and run for a moment
    folder = Path(tempfile.mkdtemp(dir=_folder(level)))
    text = _DYNAMIC_SHARED.sub(r"\1* \2 = (\1*)cuda_on_cpu::dynamic_shared;", code)
    entries = [f"CUDA_ON_CPU_ENTRY({kernel})" for kernel in KERNEL.findall(code)]
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    source.write_text("\n".join(['#include "cuda_on_cpu.h"', "#line 1", text, *entries, ""]))
    _compile(level, f"-I{_folder(level)}", "-c", str(source), "-o", str(folder / "kernels.o"))
    _run("g++", "-shared", str(folder / "kernels.o"), "-o", str(library))  # its own handler of misaligned addresses
    return str(library)


@cache
def _folder(level):
    """Return a folder for what is compiled, with the header in it compiled already: that takes longer than a kernel."""
    folder = Path(tempfile.mkdtemp(prefix="cuda_on_cpu"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    header = Path(__file__).with_name("cuda_on_cpu.h")
    shutil.copy(header, folder)
    _compile(level, "-x", "c++-header", str(header), "-o", str(folder / "cuda_on_cpu.h.gch"))
    return folder


def _compile(level, *arguments):
    flags = ["-std=c++17", level, "-fPIC", "-ffp-contract=off", "-U_FORTIFY_SOURCE", "-w", "-fsanitize=alignment"]
    flags += ["-fno-gnu-unique"]  # or a library would take another one's constants
    _run("g++", *flags, *arguments)


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CudaError(done.stderr)


def _three(sizes):
    return (ctypes.c_uint * 3)(*(*sizes, 1, 1)[:3])


class _Arguments:
    """Copies of a kernel's arguments; arrays between fences."""

    def __init__(self, args, types, kernel):
        if len(args) != len(types):
            raise CudaError(f"{kernel} takes {len(types)} arguments, and {len(args)} came")
        self.kernel, self.arrays, self.values = kernel, [], []
        for i, (argument, kind) in enumerate(zip(args, types, strict=True)):
            expected = np.dtype(kind.lstrip("<>"))
            is_array = isinstance(argument, np.ndarray)
            if getattr(argument, "dtype", None) != expected or is_array != (kind[0] in "<>"):
                raise CudaError(f"{kernel}: argument {i} is {argument!r:.60}; the kernel takes {kind}")
            self.values.append(self._fenced(argument, i, kind[0] == ">") if is_array else np.array([argument]))
        self.all = (ctypes.c_void_p * len(types))(*(value.ctypes.data for value in self.values))

    def _fenced(self, array, i, written):
        if not array.flags.c_contiguous:
            raise CudaError(f"{self.kernel}: argument {i} is an array with gaps")
        first = _FENCE + array.ctypes.data % _ALIGNMENT
        memory = _poisoned(first + array.nbytes + _FENCE)
        memory[first : first + array.nbytes] = array.reshape(-1).view(np.uint8)
        self.arrays.append((i, array, memory, slice(first, first + array.nbytes), written))
        return np.array([memory.ctypes.data + first], np.uint64)

    def take_back(self):
        for i, array, memory, within, written in self.arrays:
            untouched = _poisoned(len(memory))
            untouched[within] = memory[within]
            if (memory != untouched).any():
                raise CudaError(f"{self.kernel}: writes beyond argument {i}, of shape {array.shape}")
            if written:
                array.reshape(-1).view(np.uint8)[...] = memory[within]


def _poisoned(n_bytes):
    return np.frombuffer(bytearray(_POISON * (n_bytes // 4 + 1)), np.uint8)[:n_bytes]
