"""The CUDA headers that kernels compiled at run time include: check A6.

Knows where wheels, toolkits and CuPy keep them; compiles nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from service.guard.findings import Finding, ok, warning
from service.guard.installed import Environment

# Which package compiles with which header, where its own copy lies, and the wheel that brings it.
NEEDED = (
    ("cupy", "cuda_fp16.h", "cupy/_core/include", "nvidia-cuda-runtime"),
    ("cumm", "cuda_fp16.h", "", "nvidia-cuda-runtime"),
    # cumm bundles its own headers, and these include the standard library for devices (CCCL).
    ("cumm", "cuda/std/cassert", "", "nvidia-cuda-cccl"),
)
WHEEL_FOLDERS = (
    "nvidia/cuda_runtime/include",
    "nvidia/cuda_cccl/include",
    "nvidia/cu13/include",
    "nvidia/cu13/include/cccl",
)


def check_headers(
    environment: Environment,
    variables: Mapping[str, str] = os.environ,
    system: Path = Path("/usr/local/cuda"),
) -> Iterator[Finding]:
    """A6: each package that compiles at run time can find the headers it includes.

    system: where a toolkit lies that no variable names
    """
    for package, header, own, wheel in NEEDED:
        name = next((n for n in environment.distributions if n.startswith(package)), None)
        if name is None:
            continue
        found = find_header(header, environment, own, _toolkits(variables, system))
        if found is not None:
            yield ok("A6", name, f"{header} in {found}")
            continue
        yield warning(
            "A6",
            name,
            f"NVRTC cannot find {header}, which kernels of {name} include.",
            f"pip install {wheel}-cu12, or install the matching CUDA -devel headers and set "
            "CUDA_HOME; CPATH has no effect on NVRTC.",
        )


def find_header(
    header: str, environment: Environment, own: str, toolkits: Iterable[Path]
) -> Path | None:
    """The include folder that has `header`: the package's, a toolkit's, or a wheel's."""
    folders = [site / own for site in environment.site_packages if own]
    folders += [site / folder for site in environment.site_packages for folder in WHEEL_FOLDERS]
    for root in toolkits:
        folders += [root / "include", root / "include/cccl"]
    return next((folder for folder in folders if (folder / header).is_file()), None)


def _toolkits(variables: Mapping[str, str], system: Path) -> list[Path]:
    """Installed toolkits, as cumm and CuPy look for them."""
    roots = [Path(variables[name]) for name in ("CUDA_HOME", "CUDA_PATH") if variables.get(name)]
    compiler = shutil.which("nvcc", path=variables.get("PATH", ""))
    if compiler:
        roots.append(Path(compiler).resolve().parents[1])
    return [*roots, system]
