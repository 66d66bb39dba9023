"""Attention written out in plain products, one sequence at a time: what every backend is held to.

Knows no kernel and saves no memory: it holds all scores of a sequence at once.
Formula: softmax(q k^T / sqrt(D)) v, "Attention Is All You Need" (Vaswani et al. 2017), eq. 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.nn.attention.segments import Segments


def attend(
    q: Tensor,  # [B, L, H, D]
    k: Tensor,  # [B, M, H, D]
    v: Tensor,  # [B, M, H, D]
) -> Tensor:  # [B, L, H, D]
    scores = torch.einsum("blhd,bmhd->bhlm", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhlm,bmhd->blhd", scores.softmax(-1), v)


def attend_varlen(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, H, D]
    v: Tensor,  # [M, H, D]
    queries: Segments,  # of the N rows of q
    keys: Segments,  # of the M rows of k and v
) -> Tensor:  # [N, H, D]
    pieces = [
        attend(q[rows][None], k[columns][None], v[columns][None])[0]
        for rows, columns in zip(queries.slices(), keys.slices(), strict=True)
    ]
    return torch.cat(pieces) if pieces else q.clone()
