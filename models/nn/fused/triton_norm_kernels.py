"""Triton kernels of the steps between a transformer's products: residual and norm, and QK-norm.

They know pointers and sizes; who launches them with what is `triton_norms`. Each reads and writes a
row once: such steps are bound by memory, and by little else.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rounded(value, like, STEPWISE: tl.constexpr):
    """An fp32 value, where STEPWISE as the elements of `like` would hold it."""
    if STEPWISE:
        value = value.to(like.dtype.element_ty).to(tl.float32)
    return value


@triton.jit
def residual_norm(
    x,  # [N, C]
    h,  # [H, C]: added to the first H rows, times their gate
    rest,  # [J, C]: added to the other rows, one row of it to all rows of an item
    gate,  # [I or 1, C] by `stride`
    scale,  # [I or 1, C] by `stride`, or fp32 [C] where AFFINE
    shift,
    out_x,  # [N, C]: the sum
    out_y,  # [Y, C]: the first Y rows of it, normed
    items,  # int32 [N]: the item of each row, where ITEMS
    n,
    n_h,
    n_y,
    length,  # rows of an item, where not ITEMS
    first_rest,  # the item that the first row of `rest` is of
    stride,  # between items of gate, scale and shift; 0: one for all
    eps,
    C: tl.constexpr,
    ADD: tl.constexpr,
    REST: tl.constexpr,
    GATE: tl.constexpr,
    NORM: tl.constexpr,
    AFFINE: tl.constexpr,
    MODULATE: tl.constexpr,
    SILU: tl.constexpr,
    STEPWISE: tl.constexpr,
    ITEMS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, BLOCK)
    there = row < n
    live = there[:, None] & (col < C)[None, :]
    at = row.to(tl.int64)[:, None] * C + col[None, :]
    if ITEMS:
        item = tl.load(items + row, mask=there, other=0)
    else:
        item = row // length
    chunk = item.to(tl.int64)[:, None] * stride + col[None, :]
    value = tl.load(x + at, mask=live, other=0.0).to(tl.float32)
    if ADD:
        first = row < n_h
        update = tl.load(h + at, mask=live & first[:, None], other=0.0).to(tl.float32)
        if REST:
            late = (item - first_rest).to(tl.int64)[:, None] * C + col[None, :]
            update += tl.load(rest + late, mask=live & ~first[:, None], other=0.0).to(tl.float32)
        if GATE:
            update *= tl.load(gate + chunk, mask=live, other=0.0).to(tl.float32)
        kept = (value + update).to(out_x.dtype.element_ty)
        tl.store(out_x + at, kept, mask=live)
        value = kept.to(tl.float32)  # what the next step reads
    if NORM:
        mean = tl.sum(value, axis=1) / C
        centred = tl.where((col < C)[None, :], value - mean[:, None], 0.0)
        spread = tl.sum(centred * centred, axis=1) / C
        normed = centred * (1 / tl.sqrt(spread + eps))[:, None]
        if AFFINE:
            normed *= tl.load(scale + col, mask=col < C, other=0.0)[None, :]
            normed += tl.load(shift + col, mask=col < C, other=0.0)[None, :]
        normed = rounded(normed, out_y, STEPWISE)
        if MODULATE:
            factor = 1 + tl.load(scale + chunk, mask=live, other=0.0).to(tl.float32)
            normed = rounded(normed * rounded(factor, out_y, STEPWISE), out_y, STEPWISE)
            normed += tl.load(shift + chunk, mask=live, other=0.0).to(tl.float32)
            normed = rounded(normed, out_y, STEPWISE)
        if SILU:
            normed *= 1 / (1 + tl.exp(-normed))
        wanted = live & (row < n_y)[:, None]
        tl.store(out_y + at, normed.to(out_y.dtype.element_ty), mask=wanted)


@triton.jit
def qk_rms_norm(
    qkv,  # [N, 3, H, D], the first two thirds changed in place
    q_gamma,  # fp32 [H, D]
    k_gamma,
    n,
    gain,
    H: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,  # rows times heads of a program
    BLOCK: tl.constexpr,
):
    part = tl.program_id(1)
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row, head = place // H, place % H
    col = tl.arange(0, BLOCK)
    live = (row < n)[:, None] & (col < D)[None, :]
    at = qkv + (row.to(tl.int64) * 3 + part)[:, None] * (H * D) + head[:, None] * D + col[None, :]
    value = tl.load(at, mask=live, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(value * value, axis=1))
    factor = gain / tl.maximum(length, 1e-12)
    learnt = head[:, None] * D + col[None, :]
    if part == 0:
        gamma = tl.load(q_gamma + learnt, mask=live, other=0.0)
    else:
        gamma = tl.load(k_gamma + learnt, mask=live, other=0.0)
    tl.store(at, (value * factor[:, None] * gamma).to(qkv.dtype.element_ty), mask=live)
