"""A5, A6 and L4: run-time compilers, the headers they need, and NumPy's binary interface."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.guard.findings import Finding, Severity
from service.guard.headers import check_headers
from service.guard.numpy_abi import check_numpy
from service.guard.nvrtc import Compiler, check_nvrtc, compilers, newest_target
from service.guard.targets import Target

CUMM = {
    "cumm_cu124.libs/libnvrtc-6d168ef8.so.12.4.127": b"",
    "cumm_cu124.libs/libnvrtc-builtins-4425561a.so.12.4.127": b"",
}


def faults(findings: Any) -> list[Finding]:
    return [item for item in findings if item.severity in (Severity.WARNING, Severity.FATAL)]


# -- A5 --------------------------------------------------------------------------------------


def test_the_nvrtc_that_cumm_brings_is_too_old_for_sm_120(fake_environment: Any) -> None:
    fake_environment.install("cumm-cu124", "0.7.11", CUMM)
    (finding,) = faults(check_nvrtc(fake_environment.read(), Target(12, 0)))
    assert (finding.check, finding.severity) == ("A5", Severity.WARNING)
    assert finding.message == (
        "cumm_cu124.libs/libnvrtc-6d168ef8.so.12.4.127 is NVRTC 12.4: its newest target is sm_90. "
        "Kernels that are not prebuilt will fail on sm_120 with 'invalid value for "
        "--gpu-architecture'."
    )
    assert finding.remedy == (
        "Restrict spconv to prebuilt algorithms, or build cumm and spconv from source with "
        "CUDA >= 12.8."
    )
    assert faults(check_nvrtc(fake_environment.read(), Target(9, 0))) == []


@pytest.mark.parametrize(
    ("package", "version", "files", "toolkit"),
    [
        ("x", "1", ["lib/libnvrtc.so.12.8.93"], (12, 8)),
        ("nvidia-cuda-nvrtc-cu12", "12.6.77", ["nvidia/libnvrtc.so.12"], (12, 6)),
        ("y", "1", ["a/libnvrtc.so.13", "a/libnvrtc-builtins.so.13.0"], (13, 0)),
        ("y", "1", ["a/libnvrtc.so.13", "b/libnvrtc-builtins.so.13.0"], (0, 0)),
    ],
)
def test_its_version_is_told_by_what_there_is(
    fake_environment: Any, package: str, version: str, files: list[str], toolkit: tuple[int, int]
) -> None:
    fake_environment.install(package, version, dict.fromkeys(files, b""))
    (compiler,) = compilers(fake_environment.read())
    assert compiler.toolkit == toolkit


def test_a_library_that_can_be_asked_is_asked(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source = tmp_path / "nvrtc.c"
    source.write_text(
        "int nvrtcGetNumSupportedArchs(int *n) { *n = 2; return 0; }\n"
        "int nvrtcGetSupportedArchs(int *a) { a[0] = 75; a[1] = 121; return 0; }\n"
    )
    library = tmp_path / "libnvrtc.so.12"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    compiler = Compiler(library, library.name, "x", (12, 4))
    assert newest_target(compiler, ask=True) == (121, "asked")
    assert newest_target(compiler, ask=False) == (90, "by version")
    library.write_bytes(b"damaged")
    assert newest_target(compiler, ask=True) == (90, "by version")


def test_a_real_nvrtc_answers_what_the_table_says() -> None:
    path = os.environ.get("NVRTC")
    if not path:
        pytest.skip("NVRTC names no folder")
    (library,) = Path(path).glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.12")
    ctypes.CDLL(str(library))  # it loads without a driver
    compiler = Compiler(library, library.name, "nvidia-cuda-nvrtc-cu12", (12, 9))
    assert newest_target(compiler, ask=True)[0] == newest_target(compiler, ask=False)[0] == 121


# -- A6 --------------------------------------------------------------------------------------


def test_headers_that_are_missing_and_found(fake_environment: Any, tmp_path: Path) -> None:
    env = fake_environment
    env.install("cumm-cu124", "0.7.11")
    nowhere = {"PATH": str(tmp_path), "CUDA_HOME": str(tmp_path / "cuda")}
    found = list(check_headers(env.read(), nowhere, system=tmp_path / "none"))
    assert [item.severity for item in found] == [Severity.WARNING, Severity.WARNING]
    assert found[1].message == (
        "NVRTC cannot find cuda/std/cassert, which kernels of cumm-cu124 include."
    )
    assert found[1].remedy == (
        "pip install nvidia-cuda-cccl-cu12, or install the matching CUDA -devel headers and set "
        "CUDA_HOME; CPATH has no effect on NVRTC."
    )
    env.install("wheel", "1", {"nvidia/cuda_runtime/include/cuda_fp16.h": b""})
    (tmp_path / "cuda/include/cuda/std").mkdir(parents=True)
    (tmp_path / "cuda/include/cuda/std/cassert").touch()
    found = list(check_headers(env.read(), nowhere, system=tmp_path / "none"))
    assert [item.severity for item in found] == [Severity.OK, Severity.OK]


# -- L4 --------------------------------------------------------------------------------------

OLD = b"\x7fELF...numpy.core.multiarray\0...numpy.core._multiarray_umath\0"
NEW = OLD + b"numpy._core._multiarray_umath\0"
MODULE = "mod/_ext.cpython-312-x86_64-linux-gnu.so"


@pytest.mark.parametrize(
    ("numpy", "content", "wrong"),
    [("2.2.6", OLD, True), ("2.2.6", NEW, False), ("1.26.4", OLD, False), ("2.2.6", b"", False)],
)
def test_extensions_compiled_for_numpy_1(
    fake_environment: Any, numpy: str, content: bytes, wrong: bool
) -> None:
    env = fake_environment
    env.install("numpy", numpy)
    env.install("mod", "0.9", {MODULE: content, "mod/data.txt": OLD})
    found = faults(check_numpy(env.read()))
    assert bool(found) is wrong
    if wrong:
        assert found[0].message == f"{MODULE} was compiled for NumPy 1; NumPy 2.2.6 is installed."
        assert found[0].remedy == "Upgrade mod (pip install -U mod), or pin numpy<2."
