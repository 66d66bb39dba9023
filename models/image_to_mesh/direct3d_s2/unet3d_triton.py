"""Group norm and SiLU of dense features in two passes, and sums of them, as Triton kernels.

A voxel's channels lie beside each other. The first pass finds mean and spread of each group in
equal parts of the voxels, the second joins them and computes. Sums are fp32; no matrix units: they
run from sm_75 up. `group_norm.plain` and `unet3d.plain_sum` are the same in PyTorch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def part_moments(
    x,  # [B, V, C]
    offset,  # [C], added to x first
    means,  # fp32 [B, GROUPS, P]
    squares,  # fp32 [B, GROUPS, P], sums of squared differences from the part's mean
    voxels,  # V
    steps,  # tiles of a part
    C: tl.constexpr,
    OFFSET: tl.constexpr,  # whether there is one
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,  # voxels of a tile
    CHANNELS: tl.constexpr,  # a power of two, C at least
):
    item = tl.program_id(1).to(tl.int64)
    part = tl.program_id(0)
    row = tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    known = (channel < C)[None, :]
    add = _offset(offset, channel, C, OFFSET)[None, :]
    count = tl.zeros((ROWS, 1), tl.float32)
    mean = tl.zeros((ROWS, CHANNELS), tl.float32)
    square = tl.zeros((ROWS, CHANNELS), tl.float32)
    for step in range(steps):
        at = (part * steps + step) * ROWS + row
        there = (at < voxels)[:, None]
        place = (item * voxels + at)[:, None] * C + channel[None, :]
        values = tl.load(x + place, there & known, other=0.0).to(tl.float32) + add
        # Welford, 1962: numbers far from zero cancel in a sum of squares.
        count += there.to(tl.float32)
        away = values - mean
        mean += tl.where(there, away * (1.0 / tl.maximum(count, 1.0)), 0.0)
        square += tl.where(there, away * (values - mean), 0.0)
    # Chan, Golub and LeVeque, 1979: of all from those of each; first the rows, then the channels.
    total = tl.sum(tl.sum(count, axis=1), axis=0)
    average = tl.sum(mean * count, axis=0) / total
    away = mean - average[None, :]
    spread = tl.sum(square + away * away * count, axis=0)
    width = C // GROUPS
    for g in tl.static_range(GROUPS):
        mine = channel // width == g
        here = tl.sum(tl.where(mine, average, 0.0), axis=0) / width
        off = average - here
        all_spread = tl.sum(tl.where(mine, spread + off * off * total, 0.0), axis=0)
        slot = (item * GROUPS + g) * tl.num_programs(0) + part
        tl.store(means + slot, here)
        tl.store(squares + slot, all_spread)


@triton.jit
def norm_silu(
    x,  # [B, V, C]
    offset,  # [C], added to x first
    means,  # fp32 [B, GROUPS, P], as `part_moments` left them
    squares,
    weight,  # [C]
    bias,  # [C]
    out,  # [B, V, C]
    voxels,  # V
    parts,  # P
    span,  # voxels of a part; the last has what is left
    steps,  # tiles of a program
    eps,
    C: tl.constexpr,
    OFFSET: tl.constexpr,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PARTS: tl.constexpr,  # a power of two, parts at least
):
    item = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    known = channel < C
    number = tl.arange(0, PARTS)
    share = tl.maximum(tl.minimum(voxels - number * span, span), 0).to(tl.float32)
    share = tl.where(number < parts, share, 0.0) / voxels
    mean = tl.zeros((CHANNELS,), tl.float32)
    variance = tl.zeros((CHANNELS,), tl.float32)
    for g in tl.static_range(GROUPS):
        slot = (item * GROUPS + g) * parts + number
        mean_of = tl.load(means + slot, number < parts, other=0.0)
        square = tl.load(squares + slot, number < parts, other=0.0)
        here = tl.sum(mean_of * share, axis=0)
        away = mean_of - here
        spread = tl.sum(square, axis=0) / (C // GROUPS) / voxels
        spread += tl.sum(away * away * share, axis=0)
        mine = channel // (C // GROUPS) == g
        mean = tl.where(mine, here, mean)
        variance = tl.where(mine, spread, variance)
    scale = tl.load(weight + channel, known, other=0.0).to(tl.float32) / tl.sqrt(variance + eps)
    shift = tl.load(bias + channel, known, other=0.0).to(tl.float32)
    shift += (_offset(offset, channel, C, OFFSET) - mean) * scale
    for step in range(steps):
        at = (tl.program_id(0) * steps + step) * ROWS + row
        place = (item * voxels + at)[:, None] * C + channel[None, :]
        there = (at < voxels)[:, None] & known[None, :]
        values = tl.load(x + place, there, other=0.0).to(tl.float32)
        values = values * scale[None, :] + shift[None, :]
        values = values / (1.0 + tl.exp(-values))
        tl.store(out + place, values.to(out.dtype.element_ty), there)


@triton.jit
def _offset(offset, channel, C: tl.constexpr, OFFSET: tl.constexpr):
    if OFFSET:
        return tl.load(offset + channel, channel < C, other=0.0).to(tl.float32)
    else:
        return tl.zeros_like(channel).to(tl.float32)


@triton.jit
def add_skip(
    x,  # [N, C]; in place
    skip,  # [N, C]
    bias,  # [C]
    numbers,  # N * C
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = at < numbers
    total = tl.load(x + at, there, other=0.0).to(tl.float32)
    total += tl.load(skip + at, there, other=0.0).to(tl.float32)
    total += tl.load(bias + (at % C).to(tl.int32), there, other=0.0).to(tl.float32)
    tl.store(x + at, total.to(x.dtype.element_ty), there)
