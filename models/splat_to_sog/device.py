"""NVIDIA GPUs through CuPy: the card that is meant, whether it serves, kernels compiled for it.

Does not know what the kernels compute. CuPy is an extra: it is imported once a device is asked
for, never before. Whatever is missing raises Unavailable, with what to install, mount or use.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from models.context import Unavailable

LEAST_CAPABILITY = 75
"""sm_75 (Turing), ten times its compute capability: the oldest card whose stack is built."""

OPTIONS = ("-std=c++17",)

UPDATE_COMPILER = "sm_120 needs CUDA 12.8 or newer: update nvidia-cuda-nvrtc-cu12."


def import_cupy(device: str) -> tuple[Any, Any]:
    """(cupy, its Device) of "cuda" or "cuda:<index>"."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise Unavailable(
            f"device={device!r} needs CuPy, which is not installed ({error})",
            code="cupy_missing",
            next_step="Install meshpress[gpu], or use device='cpu'.",
        ) from error
    try:
        found = cupy.cuda.Device(int(device.partition(":")[2] or 0))
        capability = int(found.compute_capability)
    except (cupy.cuda.runtime.CUDARuntimeError, ValueError) as error:
        raise Unavailable(
            f"device={device!r} cannot be used: {error}",
            code="device_unavailable",
            next_step="Run `meshpress doctor`; in a container, give it the GPU (--gpus all).",
        ) from error
    if capability < LEAST_CAPABILITY:
        raise Unavailable(
            f"device={device!r} has compute capability {capability / 10}; 7.5 and up are served",
            code="device_unavailable",
            next_step="Use device='cpu'.",
        )
    return cupy, found


@contextmanager
def on_device(device: str) -> Iterator[Any]:
    """cupy, with the device current."""
    cupy, found = import_cupy(device)
    with found:
        yield cupy


def loaded_cupy() -> Any:
    """cupy, where a device is already current."""
    return importlib.import_module("cupy")


def kernel(source: str, name: str) -> Any:
    """The kernel of this name in CUDA C++ `source`, compiled for the current device.

    Compiled once a process and card; CuPy keeps the binary on disk (CUPY_CACHE_DIR).
    """
    cupy = loaded_cupy()
    try:
        return _module(source).get_function(name)
    except cupy.cuda.compiler.CompileException as error:
        raise Unavailable(
            f"NVRTC cannot compile '{name}' for this card: {error}",
            code="kernel_compiler",
            next_step=UPDATE_COMPILER,
        ) from error


@functools.cache
def _module(source: str) -> Any:
    return loaded_cupy().RawModule(code=source, options=OPTIONS)
