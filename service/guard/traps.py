"""Variables of the environment that silently change which CUDA code runs: check R5.

Knows the variables; looks at no file and no GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from service.guard.findings import Finding, warning

JIT = ("CUDA_DISABLE_PTX_JIT", "CUDA_FORCE_PTX_JIT")


def check_traps(variables: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """R5. What is fine yields nothing."""
    for name in JIT:
        if variables.get(name, "0") != "0":
            yield _trap(name, variables[name])
    preloaded = variables.get("LD_PRELOAD", "")
    if "cuda" in preloaded or "nvrtc" in preloaded:
        yield _trap("LD_PRELOAD", preloaded)
    folders = [folder for folder in variables.get("LD_LIBRARY_PATH", "").split(":") if folder]
    libraries = ":".join(folders)
    if any("/compat" in folder for folder in folders):
        yield warning(
            "R5",
            "LD_LIBRARY_PATH",
            f"is {libraries!r}: the CUDA compat library serves data-centre GPUs only",
            "Remove the compat folder from it unless the host's driver is older than the image's "
            "CUDA and the GPU is a data-centre one.",
        )
    elif any("cuda" in folder for folder in folders):
        yield warning(
            "R5",
            "LD_LIBRARY_PATH",
            f"is {libraries!r}: a toolkit's libraries are loaded before those of the wheels",
            "LD_LIBRARY_PATH changes which CUDA code runs. Unset it: the wheels find their own.",
        )


def _trap(name: str, value: str) -> Finding:
    return warning(
        "R5",
        name,
        f"{name}={value} changes which CUDA code runs.",
        f"Unset it: unset {name}",
    )
