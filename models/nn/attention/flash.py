"""Attention with the flash-attn package: fp16 and bf16 on CUDA devices of capability 8.0 and up.

Knows no other backend. FlashAttention-2 (Dao 2023), https://github.com/Dao-AILab/flash-attention.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from models.nn.attention.segments import Segments

PACKAGE = "flash_attn"
OLDEST = (8, 0)
WIDEST_HEAD = 256


def obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Why this backend cannot compute there; empty when it can."""
    if device.type != "cuda":
        return f"flash-attn computes on CUDA, not on {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"flash-attn computes in fp16 and bf16, not in {dtype}"
    if head_dim > WIDEST_HEAD or head_dim % 8:
        return f"flash-attn takes heads of 8, 16, ... {WIDEST_HEAD} channels, not of {head_dim}"
    if torch.cuda.get_device_capability(device) < OLDEST:
        return "flash-attn needs compute capability 8.0"
    return ""


def attend(
    q: Tensor,  # [B, L, H, D]
    k: Tensor,  # [B, M, H, D]
    v: Tensor,  # [B, M, H, D]
    bound: float | None = None,  # of no use here
) -> Tensor:  # [B, L, H, D]
    return cast(Tensor, _library().flash_attn_func(q, k, v))


def attend_varlen(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, H, D]
    v: Tensor,  # [M, H, D]
    queries: Segments,
    keys: Segments,
    bound: float | None = None,  # of no use here
) -> Tensor:  # [N, H, D]
    out = _library().flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q=queries.offsets(q.device),
        cu_seqlens_k=keys.offsets(k.device),
        max_seqlen_q=queries.longest,
        max_seqlen_k=keys.longest,
    )
    return cast(Tensor, out)


def _library() -> Any:
    return import_module(PACKAGE)
