"""The fused steps in plain PyTorch, one operation after the other: any device, any dtype.

It knows no kernel; every kernel is held to it. Norms are computed in fp32, or in fp64 where that is
what is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.nn.fused.steps import Norm, Update

if TYPE_CHECKING:
    from models.nn.attention.segments import Segments


def residual_norm(
    x: Tensor,  # [N, C]
    update: Update | None,
    norm: Norm | None,
    rows: Segments,  # of each item
) -> tuple[Tensor, Tensor]:  # [N, C], [norm.rows, C]
    """The updated rows, and their norm (the rows themselves without one)."""
    total = x if update is None else _updated(x, update, rows)
    return total, total if norm is None else _normed(total[: norm.rows], norm, rows)


def _updated(x: Tensor, update: Update, rows: Segments) -> Tensor:
    h = update.h
    if update.rest is not None:
        item = rows.item_index(x.device)[len(h) :] - (len(rows) - len(update.rest))
        h = torch.cat((h, update.rest.index_select(0, item)))
    return x + (h if update.gate is None else h * _per_row(update.gate, rows))


def _normed(x: Tensor, norm: Norm, rows: Segments) -> Tensor:
    """Whether `stepwise` or not: behind the norm each operation rounds to the dtype of x."""
    wide = x if x.dtype == torch.float64 else x.float()
    y = F.layer_norm(wide, x.shape[-1:], norm.weight, norm.bias, norm.eps).to(x.dtype)
    if norm.scale is not None and norm.shift is not None:
        scale, shift = (_per_row(chunk, rows)[: len(x)] for chunk in (norm.scale, norm.shift))
        y = y * (1 + scale) + shift
    return F.silu(y) if norm.silu else y


def _per_row(chunk: Tensor, rows: Segments) -> Tensor:
    """[I, C] of the items -> [N, C]; what is [1, C] stays so, and broadcasts."""
    if len(chunk) == 1:
        return chunk
    return chunk.index_select(0, rows.item_index(chunk.device))


def qk_rms_norm(
    qkv: Tensor,  # [N, 3, H, D]
    q_gamma: Tensor,  # [H, D]
    k_gamma: Tensor,  # [H, D]
) -> tuple[Tensor, Tensor, Tensor]:  # [N, H, D] each
    """x / |x| * gamma * sqrt(D) of queries and keys; values as they are."""
    wide = qkv if qkv.dtype == torch.float64 else qkv.float()
    gain = qkv.shape[-1] ** 0.5
    q, k = (
        (F.normalize(wide[:, part], dim=-1) * (gamma * gain)).to(qkv.dtype)
        for part, gamma in enumerate((q_gamma, k_gamma))
    )
    return q, k, qkv[:, 2]


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # [N, C] -> [N, C']
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")
