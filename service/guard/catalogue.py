"""The checks by their short names: what the report calls them and what each asks.

Knows no check's working. Names are stable: scripts and pasted reports use them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """title: one word for the report. question: what a reader of docs/gpus.md wants to know."""

    title: str
    question: str


CHECKS = {
    "A1": Check("code", "Does everything with device code carry some that this GPU loads?"),
    "A2": Check("jit", "What does the driver have to compile, and is it new enough for that?"),
    "A3": Check("holes", "Do all parts of a library load, or only most of them?"),
    "A4": Check("files", "Is device code where it should be, and is every file whole?"),
    "A5": Check("nvrtc", "Can the run-time compilers compile for this GPU?"),
    "A6": Check("headers", "Do kernels compiled at run time find the CUDA headers?"),
    "L1": Check("lock", "Is installed what the lock says, file by file?"),
    "L2": Check("owners", "Does each file have one owner, each library one major version?"),
    "L3": Check("pins", "Do packages meet each other's requirements?"),
    "L4": Check("numpy", "Do extensions fit the NumPy that is installed?"),
    "D1": Check("libcuda", "Is there a driver, and can it be used?"),
    "D2": Check("driver", "Does the driver serve the installed CUDA?"),
    "D3": Check("compat", "Is a cuda-compat library used where it may not be?"),
    "D4": Check("variant", "Is this the image for this GPU?"),
    "D5": Check("gpu", "Which GPUs are visible?"),
    "R1": Check("dtype", "Which number format does the GPU compute in?"),
    "R2": Check("backend", "Which attention runs on it?"),
    "R3": Check("triton", "Does Triton, and with it torch.compile, serve it?"),
    "R4": Check("caches", "Can compiled kernels be kept?"),
    "R5": Check("traps", "Does a variable change which CUDA code runs?"),
    "K": Check("kernel", "Does one tiny kernel of each library run?"),
}


def label(check: str) -> str:
    """ "A1" to "A1 code"; checks of the installation itself have one name."""
    known = CHECKS.get(check)
    return f"{check} {known.title}" if known else check
