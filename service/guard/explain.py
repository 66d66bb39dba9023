"""An error text to what it means here: which check finds the cause, and what to do.

Knows the words of CUDA, PyTorch, Triton, CuPy and others; asks no machine. The first row that
matches wins, so the particular stands above the general.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from service.guard import knowledge
from service.guard.numpy_abi import REFUSALS

_REBUILD = "`meshpress doctor --target {target}` names each library and its remedy."


@dataclass(frozen=True)
class Explanation:
    """check: its short name. meaning and remedy: one sentence or two each."""

    check: str
    meaning: str
    remedy: str


@dataclass(frozen=True)
class _Row:
    pattern: re.Pattern[str]
    check: str
    meaning: str
    remedy: str | Callable[[re.Match[str]], str]


def explain(text: str) -> Explanation | None:
    """What a pasted error means; None for words we do not know."""
    for row in _ROWS:
        match = row.pattern.search(text)
        if match is not None:
            remedy = row.remedy if isinstance(row.remedy, str) else row.remedy(match)
            return Explanation(row.check, row.meaning, remedy)
    return None


def explain_code(code: int) -> Explanation | None:
    """What a CUDA error number (209, of the driver or the runtime) means."""
    return explain(f"CUDA error {code}")


def _error(*numbers: int) -> str:
    """A pattern for "CUDA error 209" or "cuInit: error code 100": a number alone says nothing."""
    either = "|".join(map(str, numbers))
    return rf"\bcu\w*[^\n]{{0,80}}?error\W{{0,4}}(?:code\W{{0,3}})?(?:{either})\b"


def _for_torch(match: re.Match[str]) -> str:
    target = f"sm_{match['sm']}"
    first = knowledge.first_release("torch", target)
    last = knowledge.last_release("torch", target)
    if first:
        return f"Install torch>={first}, the first on PyPI with code for {target}. " + (
            _REBUILD.format(target=target)
        )
    if last:
        return f"Install torch=={last}, the newest known with all code for {target}. " + (
            _REBUILD.format(target=target)
        )
    return _REBUILD.format(target=target)


def _for_header(match: re.Match[str]) -> str:
    header = match["header"] or match["other"]
    wheel = "nvidia-cuda-cccl-cu12" if "/" in header else "nvidia-cuda-runtime-cu12"
    return (
        f"pip install {wheel}, or install the matching CUDA -devel headers and set CUDA_HOME; "
        "CPATH has no effect on NVRTC."
    )


def _for_numpy(match: re.Match[str]) -> str:
    return "Upgrade the package whose import fails, or pin numpy<2."


_SAGEMAKER = (
    "Update the host's driver: >= 525 for CUDA 12, >= 580 for CUDA 13. On SageMaker set "
    "InferenceAmiVersion=al2-ami-sagemaker-inference-gpu-3-1 (for sm_100 and above "
    "al2023-ami-sagemaker-inference-gpu-4-1)."
)
_NO_IMAGE = (
    "A library carries nothing that this GPU loads.",
    "`meshpress doctor --target sm_XX` (sm_75 T4, sm_86 A10G, sm_120 RTX 5090) names the library "
    "and its remedy; TORCH_CUDA_ARCH_LIST only affects what you compile yourself.",
)
_NO_DRIVER = "Start the container with --gpus all (Docker) or the nvidia runtime class."
_COMPAT = (
    "Remove /usr/local/cuda/compat from LD_LIBRARY_PATH, or update the host's driver and use its "
    "own libcuda."
)

_TABLE: tuple[tuple[str, str, str, str | Callable[[re.Match[str]], str]], ...] = (
    (
        r"sm_(?P<sm>\d+) is not compatible with the current PyTorch",
        "A1",
        "This torch carries no code for the GPU.",
        _for_torch,
    ),
    (
        r"magma\w*[\s\S]*no kernel image|linalg[\s\S]*no kernel image",
        "A3",
        "torch's linear algebra lacks code for this GPU although torch itself has it: so it is "
        "on sm_75 from torch 2.11 on.",
        "Use torch<=2.10.0 for T4 and other sm_75 GPUs.",
    ),
    (
        r"no kernel image is available|cudaErrorNoKernelImageForDevice"
        r"|CUDA_ERROR_NO_BINARY_FOR_GPU|ARCH_MISMATCH|invalid device function|" + _error(209, 98),
        "A1",
        *_NO_IMAGE,
    ),
    (
        r"provided PTX was compiled with an unsupported toolchain|UNSUPPORTED_PTX_VERSION|"
        r"Unsupported \.version|" + _error(222),
        "A2",
        "The PTX was written by a newer CUDA than the driver knows; minor-version compatibility "
        "does not cover PTX.",
        "Update the driver to that of the CUDA that wrote it (12.4: 550, 12.6: 560, 12.8: 570, "
        "12.9: 575, 13.0: 580), or install a build with machine code for this GPU.",
    ),
    (
        r"PTX JIT compiler library not found|nvidia-ptxjitcompiler|" + _error(221),
        "D1",
        "The driver's PTX compiler is not in the container.",
        "Set NVIDIA_DRIVER_CAPABILITIES=compute,utility and start it with the nvidia runtime.",
    ),
    (
        r"PTX JIT compilation was disabled|JIT_COMPILATION_DISABLED|" + _error(223),
        "R5",
        "CUDA_DISABLE_PTX_JIT forbids what this build needs on this GPU.",
        "unset CUDA_DISABLE_PTX_JIT",
    ),
    (
        r"invalid value for --gpu-architecture|nvrtc: error: invalid value|"
        r"Can't find algo .* in prebuilt|NVRTC_ERROR_INVALID_OPTION",
        "A5",
        "The run-time compiler in use is older than this GPU.",
        "For spconv and cumm: restrict spconv to prebuilt algorithms, or build "
        "both from source with CUDA >= 12.8; SPCONV_DISABLE_JIT and CUMM_DISABLE_JIT act on builds "
        "only. Else upgrade the package that brings libnvrtc; `meshpress doctor --target sm_XX` "
        "names each copy.",
    ),
    (
        r"(?:cannot open source file|could not open source file|cannot find|catastrophic error)"
        r"[^\n]*?(?P<header>cuda/std/\w+|cuda_\w+\.h|cooperative_groups\.h)"
        r"|(?P<other>cuda/std/\w+|cuda_\w+\.h): No such file",
        "A6",
        "A kernel compiled at run time includes a CUDA header that is not found.",
        _for_header,
    ),
    (
        r"forward compatibility was attempted on non supported HW|" + _error(804),
        "D3",
        "A cuda-compat libcuda is in use on a GPU that does not allow it: it is for data-centre "
        "GPUs, not for GeForce.",
        _COMPAT,
    ),
    (
        r"unsupported display driver / cuda driver combination|" + _error(803),
        "D3",
        "libcuda and the host's kernel driver do not fit: often a cuda-compat library that is "
        "older than the driver.",
        _COMPAT,
    ),
    (
        r"driver version is insufficient|driver on your system is too old|"
        r"unsatisfied condition: cuda|InsufficientDriver|" + _error(35),
        "D2",
        "The host's driver is older than the installed CUDA needs.",
        _SAGEMAKER,
    ),
    (
        r"libcuda\.so\.1: cannot open|Found no NVIDIA driver|could not select device driver",
        "D1",
        "There is no NVIDIA driver in the container.",
        _NO_DRIVER,
    ),
    (
        r"No CUDA GPUs are available|no CUDA-capable device|CUDA_ERROR_NO_DEVICE|"
        r"invalid device ordinal|" + _error(100, 101),
        "D5",
        "No GPU is visible, or fewer than were asked for.",
        "Unset CUDA_VISIBLE_DEVICES, or expose one: --gpus all (Docker).",
    ),
    (
        r"not compiled with CUDA enabled|without CUDA support",
        "A4",
        "The package was built for the CPU alone.",
        "Reinstall it as PyPI has it: pip install --force-reinstall torch, with no CPU wheel index "
        "in the settings of pip.",
    ),
    (
        r"capability <= \((?P<cc>\d+, ?\d+)\)|\(too new\)|requires device with capability",
        "R2",
        "This xformers refuses GPUs newer than it was built for.",
        "Set MESHPRESS_ATTENTION_BACKEND=sdpa, or uninstall xformers.",
    ),
    (
        r"only supports Ampere GPUs or newer",
        "R2",
        "FlashAttention needs compute capability 8.0; a T4 has 7.5.",
        "Set MESHPRESS_ATTENTION_BACKEND=sdpa, or uninstall flash-attn.",
    ),
    (
        r"xFormers can't load C\+\+/CUDA extensions|xFormers was built for",
        "L3",
        "xformers was built for another torch.",
        "Install the release for this torch (2.6.0: 0.0.29.post3, 2.8.0: 0.0.32.post2, 2.10.0: "
        "0.0.34); `meshpress doctor` names it.",
    ),
    (
        r"undefined symbol: \w*(?:nvJitLink|cublas|cusparse|cudnn)",
        "R5",
        "A library of another CUDA is loaded before the one in the wheels.",
        "Unset LD_LIBRARY_PATH; `meshpress doctor` lists libraries that are there twice (L2).",
    ),
    (
        r"undefined symbol: \w*(?:c10|torch|at\d|_ZN2at|THP)",
        "L3",
        "An extension was compiled for another torch than the one installed.",
        "Reinstall or rebuild it against this torch: pip wheel --no-build-isolation --no-deps "
        "PACKAGE; flash-attn has to be rebuilt whenever torch changes.",
    ),
    (
        "|".join(map(re.escape, REFUSALS)),
        "L4",
        "An extension was compiled for NumPy 1 and NumPy 2 is installed, or the other way round.",
        _for_numpy,
    ),
    (
        r"computeCapability not supported|is not defined for option 'gpu-name'|"
        r"PassManager::run failed|Triton only support\w* (?:CUDA|devices)",
        "R3",
        "This Triton does not know the GPU, or no longer does.",
        "For sm_100 and above install triton>=3.3 (torch>=2.7 pins it); for sm_75 the last is "
        "triton 3.2.0, that of torch 2.6.0.",
    ),
    (
        r"(?:Permission denied|Read-only file system)[^\n]*"
        r"(?:\.triton|\.nv|\.cupy|ComputeCache|kernel_cache|torchinductor)",
        "R4",
        "Compiled kernels cannot be kept: every start compiles them again.",
        "Set TRITON_CACHE_DIR, CUPY_CACHE_DIR and CUDA_CACHE_PATH to a folder on a volume that "
        "this user may write to.",
    ),
    (
        r"(?:bf16|bfloat16)[^\n]*(?:not supported|only supported|requires)",
        "R1",
        "bfloat16 needs compute capability 8.0.",
        "Set MESHPRESS_DTYPE=float16.",
    ),
    (
        r"lib(?P<library>cudart|cublas|cublasLt|cudnn\w*|cufft|cusparse\w*|cusolver|nccl|nvrtc|"
        r"nvJitLink|cupti|curand)\.so\.(?P<major>\d+)\S*: cannot open",
        "L3",
        "A CUDA library that a package needs is not installed, or only in another major version.",
        lambda match: (
            f"Install the nvidia-* package that brings lib{match['library']}.so.{match['major']}; "
            "PyPI's torch requires it by its exact version: pip install --force-reinstall torch. "
            "`meshpress doctor` lists requirements that are not met (L3)."
        ),
    ),
)

_ROWS = tuple(_Row(re.compile(p, re.IGNORECASE), check, m, r) for p, check, m, r in _TABLE)
