"""Attention with PyTorch's own kernels: any device, any dtype, nothing to install.

Knows no other backend; every other one falls back to this. PyTorch has no packed sequences outside
nested tensors, so `attend_varlen` takes the cheapest of three ways to the same result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.nn.attention import padded
from models.nn.attention.segments import Segments

FEW = 8
"""Up to so many sequences a CUDA device computes one by one: each fills it, none is padded."""


def obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Why this backend cannot compute there: never."""
    return ""


def attend(
    q: Tensor,  # [B, L, H, D]
    k: Tensor,  # [B, M, H, D]
    v: Tensor,  # [B, M, H, D]
    mask: Tensor | None = None,  # bool, broadcast to [B, H, L, M]; True: attend
    bound: float | None = None,  # of no use here
) -> Tensor:  # [B, L, H, D]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def attend_varlen(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, H, D]
    v: Tensor,  # [M, H, D]
    queries: Segments,
    keys: Segments,
    bound: float | None = None,  # of no use here
) -> Tensor:  # [N, H, D]
    """A CPU starts a call in microseconds: one by one costs it less there than padding."""
    if not q.is_cuda or len(queries) <= FEW:
        return one_by_one(q, k, v, queries, keys)
    if torch.is_inference_mode_enabled():
        return padded.attend_varlen(q, k, v, queries, keys, attend)
    return jagged(q, k, v, queries, keys)


def one_by_one(q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor:
    """A call for each sequence. A single key needs none: all its weight is one."""
    pieces = []
    for rows, columns in zip(queries.slices(), keys.slices(), strict=True):
        if columns.stop - columns.start == 1:
            pieces.append(v[columns].expand_as(q[rows]))
        else:
            pieces.append(attend(q[rows][None], k[columns][None], v[columns][None])[0])
    return torch.cat(pieces)


def jagged(q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> Tensor:
    """One call on nested tensors, which PyTorch hands to a varlen kernel on CUDA.

    Nested tensors are no inference tensors: they need `torch.no_grad`, not `inference_mode`.
    """

    def nested(x: Tensor, segments: Segments) -> Tensor:
        packed = torch.nested.nested_tensor_from_jagged(
            x,
            segments.offsets(x.device),
            min_seqlen=segments.shortest,
            max_seqlen=segments.longest,
        )
        return packed.transpose(1, 2)

    out = F.scaled_dot_product_attention(nested(q, queries), nested(k, keys), nested(v, keys))
    return out.transpose(1, 2).values()
