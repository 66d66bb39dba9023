"""Attention with the xformers package: the fast varlen kernel of Turing, where flash-attn has none.

Knows no other backend. https://facebookresearch.github.io/xformers/components/ops.html
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from models.nn.attention.segments import Segments

PACKAGE = "xformers.ops"
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
FIRST_WITH_BFLOAT16 = (8, 0)
NEWEST = (9, 0)  # released kernels stop here: "no operator found" above


def obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Why this backend cannot compute there; empty when it can."""
    if device.type != "cuda":
        return f"xformers computes on CUDA, not on {device.type}"
    if dtype not in DTYPES:
        return f"xformers computes in fp16, bf16 and fp32, not in {dtype}"
    capability = torch.cuda.get_device_capability(device)
    if capability > NEWEST:
        return "xformers has no kernels above compute capability 9.0"
    if dtype == torch.bfloat16 and capability < FIRST_WITH_BFLOAT16:
        return "xformers computes in bf16 from compute capability 8.0"
    return ""


def attend(
    q: Tensor,  # [B, L, H, D]
    k: Tensor,  # [B, M, H, D]
    v: Tensor,  # [B, M, H, D]
    bound: float | None = None,  # of no use here
) -> Tensor:  # [B, L, H, D]
    return cast(Tensor, _library().memory_efficient_attention(q, k, v))


def attend_varlen(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, H, D]
    v: Tensor,  # [M, H, D]
    queries: Segments,
    keys: Segments,
    bound: float | None = None,  # of no use here
) -> Tensor:  # [N, H, D]
    bias = queries.cached(
        ("xformers", keys.lengths, q.device),
        lambda: _library().fmha.BlockDiagonalMask.from_seqlens(
            list(queries.lengths), list(keys.lengths), device=q.device
        ),
    )
    out = _library().memory_efficient_attention(q[None], k[None], v[None], attn_bias=bias)
    return cast(Tensor, out[0])


def _library() -> Any:
    return import_module(PACKAGE)
