"""Error texts as people paste them, and what the guard makes of each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.guard.catalogue import CHECKS
from service.guard.explain import explain, explain_code

PASTED = [
    (
        "A1",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device\n"
        "CUDA kernel errors might be asynchronously reported at some other API call",
    ),
    (
        "A1",
        "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with the current "
        "PyTorch installation.\nThe current PyTorch install supports CUDA capabilities sm_50 sm_60",
    ),
    ("A1", "cupy.cuda.driver.CUDADriverError: CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image"),
    ("A1", "CUBLAS_STATUS_ARCH_MISMATCH when calling cublasGemmEx"),
    ("A2", "CUDA error: the provided PTX was compiled with an unsupported toolchain."),
    ("A2", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222)"),
    ("A3", "magma_dgetri_gpu: no kernel image is available for execution on the device"),
    ("A4", "AssertionError: Torch not compiled with CUDA enabled"),
    ("A5", "nvrtc: error: invalid value for --gpu-architecture (-arch)"),
    ("A5", "[WARNING]Can't find algo Turing_f16f16f16 in prebuilt. compile with nvrtc..."),
    ("A6", 'fill.cu(1): catastrophic error: cannot open source file "cuda_fp16.h"'),
    ("A6", 'tensorview/x.h(12): could not open source file "cuda/std/cassert" (no directories'),
    ("D1", "OSError: libcuda.so.1: cannot open shared object file: No such file or directory"),
    ("D1", "RuntimeError: Found no NVIDIA driver on your system."),
    ("D2", "CUDA driver version is insufficient for CUDA runtime version"),
    ("D2", "The NVIDIA driver on your system is too old (found version 11040)."),
    ("D2", "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.4"),
    ("D3", "Error 804: forward compatibility was attempted on non supported HW"),
    ("D3", "system has unsupported display driver / cuda driver combination (error 803)"),
    ("D5", "RuntimeError: No CUDA GPUs are available"),
    ("L3", "ImportError: flash_attn_2_cuda.so: undefined symbol: _ZN3c105ErrorC2ENS_14Source"),
    ("L3", "WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions. xFormers was built for:"),
    ("L3", "ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory"),
    ("L4", "A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.2.6 as it may"),
    ("L4", "ValueError: numpy.dtype size changed, may indicate binary incompatibility."),
    ("R1", "RuntimeError: bfloat16 is only supported on devices with compute capability 8.0"),
    ("R2", "RuntimeError: FlashAttention only supports Ampere GPUs or newer."),
    ("R2", "requires device with capability <= (9, 0) but your GPU has capability (12, 0)"),
    ("R3", "computeCapability not supported\nUNREACHABLE executed at ..."),
    ("R3", "ptxas fatal: Value 'sm_120' is not defined for option 'gpu-name'"),
    ("R4", "PermissionError: [Errno 13] Permission denied: '/home/user/.triton/cache'"),
    ("R5", "undefined symbol: __nvJitLinkAddData_12_1, version libnvJitLink.so.12"),
]


@pytest.mark.parametrize(("check", "text"), PASTED)
def test_pasted_errors(check: str, text: str) -> None:
    found = explain(text)
    assert found is not None
    assert found.check == check, found
    assert found.remedy


@pytest.mark.parametrize(
    ("code", "check"),
    [(209, "A1"), (222, "A2"), (803, "D3"), (804, "D3"), (35, "D2"), (100, "D5"), (223, "R5")],
)
def test_cuda_errors_by_number(code: int, check: str) -> None:
    found = explain_code(code)
    assert found is not None
    assert found.check == check


def test_the_remedy_names_the_release_for_the_gpu() -> None:
    found = explain(PASTED[1][1])
    assert found is not None
    assert found.remedy == (
        "Install torch>=2.8.0, the first on PyPI with code for sm_120. "
        "`meshpress doctor --target sm_120` names each library and its remedy."
    )


@pytest.mark.parametrize(
    "text",
    ["", "KeyError: 'x'", "the weather is fine", "CUDA error 2094", "exit code 100", "error 35"],
)
def test_what_is_not_known(text: str) -> None:
    assert explain(text) is None


def test_every_check_is_in_the_catalogue_and_the_page() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "gpus.md").read_text()
    for check, text in CHECKS.items():
        assert re.search(rf"^\| {check} {text.title} \| .*{re.escape(text.question)}", page, re.M)
    assert {check for check, _ in PASTED} <= set(CHECKS)
