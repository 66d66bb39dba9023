"""Attention by our own Triton kernel: dense and packed, nothing to install but Triton.

Knows no other backend. Any number of rows runs at once, where cuDNN plans each new one for 50 ms;
and it uses what a QK norm says of the scores (`triton_kernels`).
"""

from __future__ import annotations

import math
from functools import cache

import torch
import triton
from torch import Tensor

from models.nn.attention.segments import Segments
from models.nn.attention.triton_kernels import attention

LOG2_E = math.log2(math.e)
WIDEST_BOUND = 60.0
"""Of scores in powers of two: the smallest weight, 2^-120, is a normal number still. fp16 has no
room for such weights: there the maximum is followed."""
NARROWEST = 16  # channels that a matrix unit takes at once


def tile(capability: int, width: int) -> tuple[int, int, int, int]:
    """Rows, keys, warps and stages of a program; measured on an H200 alone (heads of 64)."""
    if capability == 90:
        return (128, 64, 8, 3) if width <= 64 else (64, 32, 4, 2)
    return 64 if width <= 64 else 32, 32, 4, 1 if capability < 80 else 2


@cache
def capability_of(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def attend(
    q: Tensor,  # [B, L, H, D]
    k: Tensor,  # [B, M, H, D]
    v: Tensor,  # [B, M, H, D]
    bound: float | None = None,
) -> Tensor:  # [B, L, H, D]
    packed = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    out = _launch(*packed, q.shape[1], k.shape[1], None, None, bound)
    return out.view(q.shape)


def attend_varlen(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, H, D]
    v: Tensor,  # [M, H, D]
    queries: Segments,
    keys: Segments,
    bound: float | None = None,
) -> Tensor:  # [N, H, D]
    return _launch(q, k, v, 0, 0, queries, keys, bound)


def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_length: int,  # of every sequence, where `queries` is None
    k_length: int,
    queries: Segments | None,
    keys: Segments | None,
    bound: float | None,
) -> Tensor:
    q, k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (q, k, v))
    n, heads, width = q.shape
    out = q.new_empty(n, heads, width)
    if n == 0:
        return out
    rows, columns, warps, stages = tile(capability_of(q.device), width)
    tables = (q, q, q)  # not read
    if queries is None or keys is None:
        grid = (triton.cdiv(q_length, rows), heads, n // q_length)
    else:
        blocks = blocks_of(queries, rows, q.device)
        tables = (blocks, queries.offsets(q.device), keys.offsets(q.device))
        grid = (len(blocks), heads, 1)
    scale = width**-0.5 * LOG2_E
    bound = math.inf if bound is None or q.dtype == torch.float16 else bound * LOG2_E
    bounded = bound <= WIDEST_BOUND
    with torch.cuda.device_of(q):
        attention[grid](
            q,
            k,
            v,
            out,
            *tables,
            q_length,
            k_length,
            scale,
            bound if bounded else 0.0,
            *(x.stride(0) for x in (q, k, v, out)),
            *(x.stride(1) for x in (q, k, v, out)),
            BOUNDED=bounded,
            UNIFORM=queries is None,
            D=width,
            BLOCK_D=max(NARROWEST, triton.next_power_of_2(width)),
            BLOCK_M=rows,
            BLOCK_N=columns,
            num_warps=warps,
            num_stages=stages,
        )
    return out


def blocks_of(queries: Segments, rows: int, device: torch.device) -> Tensor:
    """int32 [T, 2]: the sequence and the first row in it of each program; kept with the lengths."""

    def build() -> Tensor:
        lengths = torch.tensor(queries.lengths, dtype=torch.int64)
        counts = (lengths + rows - 1) // rows
        item = torch.arange(len(lengths)).repeat_interleave(counts)
        before = (counts.cumsum(0) - counts).repeat_interleave(counts)
        first = (torch.arange(len(item)) - before) * rows
        return torch.stack((item, first), dim=1).int().to(device)

    return queries.cached(("triton_blocks", rows, device), build)
