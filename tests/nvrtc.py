"""NVIDIA's run-time compiler, from the wheel nvidia-cuda-nvrtc, which the test extra names for Linux; needs no GPU.

Raises ImportError where that wheel is missing.
"""

import ctypes
from importlib.metadata import files

_nvrtc = next(
    ctypes.CDLL(str(file.locate())) for file in files("nvidia-cuda-nvrtc") or () if file.name.startswith("libnvrtc.so.")
)


def compile_for(architecture, code, options=()):
    """Return the machine code (CUBIN) of a CUDA source for e.g. "sm_90"; raise SyntaxError with the compiler's log."""
    program = ctypes.c_void_p()
    _check(_nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None))
    try:
        flags = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in options)]
        failed = _nvrtc.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
        log = _text(_nvrtc.nvrtcGetProgramLogSize, _nvrtc.nvrtcGetProgramLog, program)
        if failed or log.strip(b"\0\n "):  # a warning counts
            raise SyntaxError(log.decode())
        return _text(_nvrtc.nvrtcGetCUBINSize, _nvrtc.nvrtcGetCUBIN, program)
    finally:
        _nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _text(get_size, get, program):
    size = ctypes.c_size_t()
    _check(get_size(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(get(program, text))
    return text.raw


def _check(result):
    if result:
        raise RuntimeError(f"NVRTC error {result}")
