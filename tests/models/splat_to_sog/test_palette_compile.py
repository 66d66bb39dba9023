"""GPU kernels of palette, codebooks and order compile for every card that is served, without one.

NVRTC and Triton are looked for in the folders of NVRTC and TRITONS (colon-separated), where
`.ci/run` installs them from tests/models/splat_to_sog/compilers.txt; without them these skip.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from models.splat_to_sog import codebook_device, device
from models.splat_to_sog.order import device as order_device
from models.splat_to_sog.palette import rounding_device
from models.splat_to_sog.palette.device import kernel_options, kernel_source

ROOT = Path(__file__).resolve().parents[3]
SHARED_LIMIT = {75: 64 << 10, 86: 99 << 10, 90: 227 << 10, 120: 99 << 10}  # bytes a block
FIXED_LIMIT = 48 << 10  # more must be asked for at run time, which the product does not
REGISTER_LIMIT = {"assign": 168, "assign_hopper": 168}

ATTRIBUTES = {0x2F: "registers", 0x11: "stack", 0x12: "stack", 0x23: "stack"}


class Nvrtc:
    """NVIDIA's run-time compiler through ctypes, as its wheel brings it."""

    def __init__(self, library: Path) -> None:
        self.c = ctypes.CDLL(str(library))

    def cubin(self, source: str, options: list[str]) -> bytes:
        program = ctypes.c_void_p()
        self._call("CreateProgram", ctypes.byref(program), source.encode(), b"k.cu", 0, None, None)
        try:
            flags = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            if self.c.nvrtcCompileProgram(program, len(options), flags):
                pytest.fail(self._text(program, "ProgramLog").decode())
            return self._text(program, "CUBIN")
        finally:
            self._call("DestroyProgram", ctypes.byref(program))

    def _text(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"Get{what}", program, buffer)
        return buffer.raw

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self.c, f"nvrtc{name}")(*arguments)
        assert code == 0, f"nvrtc{name}: error {code}"


@pytest.fixture(scope="session")
def nvrtc() -> Nvrtc:
    for folder in os.environ.get("NVRTC", "").split(":"):
        found = sorted(Path(folder).glob("nvidia/**/libnvrtc.so.*")) if folder else []
        if found:
            return Nvrtc(found[0])
    pytest.skip("NVRTC is not set: no compiler of GPU code")


def kernels_of(cubin: bytes) -> dict[str, dict[str, int]]:
    """Registers, static shared bytes and local bytes a thread of every kernel in an ELF file.

    `.nv.shared.NAME` is the shared memory; in `.nv.info`, attribute 0x2f holds the registers, and
    0x11, 0x12 and 0x23 what it needs of the stack, where spills go.
    """
    offset, size, count, names_at = (
        *struct.unpack_from("<Q", cubin, 0x28),
        64,
        *struct.unpack_from("<HH", cubin, 0x3C),
    )
    headers = [struct.unpack_from("<IIQQQQIIQQ", cubin, offset + size * i) for i in range(count)]
    strings = headers[names_at][4]

    def text(at: int) -> str:
        return cubin[at : cubin.index(b"\0", at)].decode()

    names = [text(strings + header[0]) for header in headers]
    kernels: dict[str, dict[str, int]] = {}
    for name in names:
        if name.startswith(".text."):
            kernels[name[6:]] = {"registers": 0, "shared": 0, "stack": 0}
    for name, header in zip(names, headers, strict=True):
        if name.startswith(".nv.shared.") and name[11:] in kernels:
            kernels[name[11:]]["shared"] = header[5]
    symbols = next(h for n, h in zip(names, headers, strict=True) if n == ".symtab")
    linked = headers[symbols[6]][4]
    info = next(h for n, h in zip(names, headers, strict=True) if n == ".nv.info")
    at, end = info[4], info[4] + info[5]
    while at < end:
        form, attribute, length = struct.unpack_from("<BBH", cubin, at)
        if form == 4 and attribute in ATTRIBUTES:
            symbol, value = struct.unpack_from("<II", cubin, at + 4)
            name = text(linked + struct.unpack_from("<I", cubin, symbols[4] + 24 * symbol)[0])
            if name in kernels:
                field = ATTRIBUTES[attribute]
                kernels[name][field] = max(kernels[name][field], value)
        at += 4 + (length if form == 4 else 0)
    return kernels


@pytest.mark.parametrize("columns", [9, 24, 45])
@pytest.mark.parametrize("capability", [75, 80, 86, 89, 90, 120])
def test_kernels_compile_without_spills(nvrtc, capability: int, columns: int) -> None:
    search, options = kernel_options(columns, capability)
    found = kernels_of(nvrtc.cubin(kernel_source(), options))
    expected = {"assign", "draw_keys", "move_entries", "pack_entries", "pack_rows", "rescore"}
    assert set(found) == expected | {"score_bias", search}
    limit = min(FIXED_LIMIT, SHARED_LIMIT.get(capability, FIXED_LIMIT))
    for name, kernel in found.items():
        assert kernel["stack"] == 0, (name, kernel)  # nothing spilled
        assert kernel["shared"] <= limit, (name, kernel)
        assert 0 < kernel["registers"] <= REGISTER_LIMIT.get(name, 64), (name, kernel)


@pytest.mark.parametrize("source", [codebook_device, order_device, rounding_device])
@pytest.mark.parametrize("capability", [75, 80, 86, 89, 90, 120])
def test_the_other_kernels_compile_without_spills(nvrtc, capability: int, source) -> None:
    options = [f"--gpu-architecture=sm_{capability}", *device.OPTIONS]
    found = kernels_of(nvrtc.cubin(source.SOURCE, options))
    assert found
    for name, kernel in found.items():
        assert kernel["stack"] == 0, (name, kernel)
        assert kernel["shared"] <= FIXED_LIMIT, (name, kernel)
        assert 0 < kernel["registers"] <= 64, (name, kernel)  # 1024 threads a block


def test_a_spill_would_be_seen(nvrtc) -> None:
    """The reading of cubins above finds what it looks for."""
    source = """extern "C" __global__ void k(const int* a, int* b) {
        volatile int local[1024]; __shared__ int s[100];
        for (int i = 0; i < 1024; i++) local[i] = a[i]; s[a[1] % 100] = 3; __syncthreads();
        *b = local[a[0] & 1023] + s[a[2] % 100]; }"""
    found = kernels_of(nvrtc.cubin(source, ["--gpu-architecture=sm_86"]))
    assert found["k"]["stack"] == 4096
    assert found["k"]["shared"] == 400


TRITON = """
import json, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import triton
from triton.compiler import ASTSource
from triton.backends.compiler import GPUTarget
from palette_triton import ROWS, SIGNATURE, TILE, search
from inspect import signature
constants = {"LOW": 32, "HIGH": 16, "ROWS": ROWS, "TILE": TILE}
keyword = "constants" if "constants" in signature(ASTSource).parameters else "constexprs"
types = SIGNATURE | ({} if keyword == "constants" else dict.fromkeys(constants, "constexpr"))
capability = int(sys.argv[3])
compiled = triton.compile(
    ASTSource(search, types, **{keyword: constants}),
    target=GPUTarget("cuda", capability, 32), options={"num_warps": 4, "num_stages": 3})
print(json.dumps({"version": triton.__version__, "shared": compiled.metadata.shared,
    "cubin": len(compiled.asm["cubin"]), "mma": "mma" in compiled.asm["ptx"]}))
"""

NOT_COMPILED = {("3.2", 120)}
"""Triton 3.2 knows no sm_120 and aborts the process."""


def tritons() -> list[str]:
    return [folder for folder in os.environ.get("TRITONS", "").split(":") if folder]


@pytest.mark.parametrize("capability", [75, 86, 90, 120])
@pytest.mark.parametrize("folder", tritons() or [None], ids=lambda f: Path(f).name if f else "none")
def test_the_triton_version_compiles(folder: str | None, capability: int, tmp_path) -> None:
    if folder is None:
        pytest.skip("TRITONS is not set: no Triton to compile with")
    found = next(Path(folder).glob("triton-*.dist-info"))
    version = re.match(r"triton-(\d+\.\d+)", found.name)[1]
    run = subprocess.run(
        [sys.executable, "-c", TRITON, folder, str(ROOT / "benchmarks"), str(capability)],
        capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    if (version, capability) in NOT_COMPILED:
        assert run.returncode != 0
        return
    assert run.returncode == 0, run.stderr[-2000:]
    report = json.loads(run.stdout)
    assert report["version"].startswith(version)
    assert 0 < report["shared"] <= SHARED_LIMIT[capability]
    # From 3.4 on Turing is served without its matrix units: the kernel runs, slowly.
    assert report["mma"] == (capability > 75 or version == "3.2")
