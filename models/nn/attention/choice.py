"""Which backend computes: what `models.nn.backends` asks for where it can, PyTorch elsewhere.

Knows no GPU of its own: each backend says what stands in its way on a device. The service's guard
hands its verdict over through `models.nn.backends`; "auto" is for those who run without one.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Protocol, cast

import torch
from torch import Tensor

from models.context import Unavailable
from models.nn.attention import flash, sdpa, triton_backend, xformers
from models.nn.attention.segments import Segments
from models.nn.backends import current_backends

OPTIONAL: dict[str, ModuleType] = {  # the best first
    "triton": triton_backend,
    "flash": flash,
    "xformers": xformers,
}


class Backend(Protocol):
    """What each backend's file offers."""

    def obstacle(self, device: torch.device, dtype: torch.dtype, head_dim: int) -> str: ...
    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, bound: float | None) -> Tensor: ...
    def attend_varlen(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        queries: Segments,
        keys: Segments,
        *,
        bound: float | None,
    ) -> Tensor: ...


def dense_backend(q: Tensor) -> Backend:
    """For a dense batch "auto" is our kernel where it was measured to be the fastest, else PyTorch:
    its choice of kernels holds FlashAttention and cuDNN's.

    In a graph being compiled it always is PyTorch: the compiler knows its operator.
    """
    if torch.compiler.is_compiling():
        return sdpa
    asked = current_backends().attention
    if asked == "auto" and _best_of_all(q.device, q.dtype, q.shape[-1]):
        return cast(Backend, triton_backend)
    return sdpa if asked in ("auto", "sdpa") else _asked_for(asked, q)


def varlen_backend(q: Tensor) -> Backend:
    """For packed sequences "auto" is the first package that is installed and can compute here."""
    if torch.compiler.is_compiling():
        return sdpa
    asked = current_backends().attention
    if asked == "sdpa":
        return sdpa
    if asked != "auto":
        return _asked_for(asked, q)
    for backend in OPTIONAL.values():
        if backend is triton_backend and not _best_of_all(q.device, q.dtype, q.shape[-1]):
            continue
        if not backend.obstacle(q.device, q.dtype, q.shape[-1]) and installed(backend.PACKAGE):
            return cast(Backend, backend)
    return sdpa


@cache
def _best_of_all(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether our kernel runs here, on a card where it was measured against the others."""
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) == triton_backend.MEASURED_ON
        and not triton_backend.obstacle(device, dtype, head_dim)
        and installed(triton_backend.PACKAGE)
    )


def _asked_for(name: str, q: Tensor) -> Backend:
    """The named backend, or PyTorch's for what it cannot compute, such as a part kept in fp32."""
    backend = OPTIONAL[name]
    if backend.obstacle(q.device, q.dtype, q.shape[-1]):
        return sdpa
    if not installed(backend.PACKAGE):
        package = backend.PACKAGE.partition(".")[0]
        raise Unavailable(
            f"The attention backend {name} was asked for, but {package} cannot be imported.",
            code="attention_backend_missing",
            next_step=f"Install {package}, or set MESHPRESS_ATTENTION_BACKEND=sdpa.",
        )
    return cast(Backend, backend)


@cache
def installed(package: str) -> bool:
    """Whether the package imports: a wheel for another PyTorch is there and does not."""
    try:
        import_module(package)
    except (ImportError, OSError):
        return False
    return True
