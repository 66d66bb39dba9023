"""What of the CUDA rasteriser can be known without a card: it compiles.

NVRTC is looked for in the folders of NVRTC (colon-separated); without it the compilation skips.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from models.splat_to_sog.device import OPTIONS
from models.splat_to_sog.metrics.rasterise_cuda import SOURCE

GRADIENT = Path(__file__).resolve().parents[4] / "benchmarks/scenes/blend_gradient.cu"


@pytest.fixture(scope="module")
def nvrtc() -> ctypes.CDLL:
    for folder in filter(None, os.environ.get("NVRTC", "").split(":")):
        for library in sorted(Path(folder).glob("nvidia/**/libnvrtc.so.*")):
            for builtins in library.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins))  # it would not be found by its name alone
            return ctypes.CDLL(str(library))
    pytest.skip("NVRTC is not set: no compiler of GPU code")


def compile_log(nvrtc: ctypes.CDLL, source: str, capability: int) -> tuple[int, str]:
    """(error code, what the compiler said)."""
    program = ctypes.c_void_p()
    code = source.encode()
    assert not nvrtc.nvrtcCreateProgram(ctypes.byref(program), code, b"k.cu", 0, None, None)
    flags = [f"--gpu-architecture=sm_{capability}".encode(), *(o.encode() for o in OPTIONS)]
    result = nvrtc.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return result, log.value.decode()


@pytest.mark.parametrize("capability", [75, 86, 90, 120])
def test_kernels_compile_for_every_card(nvrtc: ctypes.CDLL, capability: int) -> None:
    source = SOURCE.read_text() + GRADIENT.read_text()
    assert compile_log(nvrtc, source, capability) == (0, "")


def test_a_mistake_would_be_seen(nvrtc: ctypes.CDLL) -> None:
    code, log = compile_log(nvrtc, SOURCE.read_text().replace("float alpha", "flat alpha", 1), 86)
    assert code != 0 and "flat" in log
