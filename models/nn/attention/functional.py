"""`attend` and `attend_varlen`: check the shapes once, pick a backend, compute.

Knows no kernel: each backend is a file beside this one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.nn.attention import reference
from models.nn.attention.segments import Segments


def attend(
    q: Tensor,  # [B, L, H, D]
    k: Tensor,  # [B, M, H, D]
    v: Tensor,  # [B, M, H, D]
) -> Tensor:  # [B, L, H, D]
    """softmax(q k^T / sqrt(D)) v for each item and head."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def attend_varlen(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, H, D]
    v: Tensor,  # [M, H, D]
    q_lengths: Segments | Sequence[int],  # S lengths with sum N
    k_lengths: Segments | Sequence[int],  # S lengths with sum M
) -> Tensor:  # [N, H, D]
    """Sequence i of q attends to sequence i of k and v, and to nothing else."""
    return reference.attend_varlen(q, k, v, Segments.of(q_lengths), Segments.of(k_lengths))
