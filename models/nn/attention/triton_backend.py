"""Attention by our own Triton kernel: what it can compute, known without importing Triton.

Knows no other backend; `triton_attention` launches the kernel.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

import torch
from torch import Tensor

from models.nn.attention.segments import Segments

PACKAGE = "triton"
MEASURED_ON = (9, 0)
"""There it was faster than cuDNN's kernel and FlashAttention-2 (docs/benchmarks.md)."""
WIDEST_HEAD = 128


def obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Why this backend cannot compute there; empty when it can."""
    if device.type != "cuda":
        return f"Triton computes on CUDA, not on {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"the Triton kernel computes in fp16 and bf16, not in {dtype}"
    if head_dim > WIDEST_HEAD:
        return f"the Triton kernel takes heads of up to {WIDEST_HEAD} channels, not of {head_dim}"
    if dtype == torch.bfloat16 and torch.cuda.get_device_capability(device) < (8, 0):
        return "Triton computes in bf16 from compute capability 8.0"
    return ""


def attend(
    q: Tensor,  # [B, L, H, D]
    k: Tensor,  # [B, M, H, D]
    v: Tensor,  # [B, M, H, D]
    bound: float | None = None,
) -> Tensor:  # [B, L, H, D]
    launcher = import_module("models.nn.attention.triton_attention")
    return cast(Tensor, launcher.attend(q, k, v, bound))


def attend_varlen(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, H, D]
    v: Tensor,  # [M, H, D]
    queries: Segments,
    keys: Segments,
    bound: float | None = None,
) -> Tensor:  # [N, H, D]
    launcher = import_module("models.nn.attention.triton_attention")
    return cast(Tensor, launcher.attend_varlen(q, k, v, queries, keys, bound))
