"""Group norm and SiLU of dense features in two passes, as Triton kernels.

The first finds mean and spread of equal parts of each group, the second joins them and computes.
Sums are fp32; no matrix units: they run from sm_75 up. `group_norm.plain` is the same in PyTorch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def part_moments(
    x,  # [R, N]: of each item its groups
    means,  # fp32 [R, P]
    squares,  # fp32 [R, P], sums of squared differences from the part's mean
    numbers,  # N
    steps,  # blocks of a part
    BLOCK: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    part = tl.program_id(0)
    place = tl.arange(0, BLOCK)
    count = 0.0
    mean = 0.0
    square = 0.0
    for step in range(steps):
        start = (part * steps + step) * BLOCK
        more = tl.maximum(tl.minimum(numbers - start, BLOCK), 0).to(tl.float32)
        known = start + place < numbers
        values = tl.load(x + row * numbers + start + place, known, other=0.0).to(tl.float32)
        here = tl.sum(values, axis=0) / tl.maximum(more, 1.0)
        spread = tl.where(known, values - here, 0.0)
        # Chan, Golub and LeVeque, 1979: numbers far from zero cancel in a sum of squares.
        step_away = here - mean
        total = count + more
        square += tl.sum(spread * spread, axis=0) + step_away * step_away * count * more / total
        mean += step_away * more / total
        count = total
    tl.store(means + row * tl.num_programs(0) + part, mean)
    tl.store(squares + row * tl.num_programs(0) + part, square)


@triton.jit
def norm_silu(
    x,  # [B, C, V]
    means,  # fp32 [B * G, P], as `part_moments` left them
    squares,
    weight,  # fp32 [C]
    bias,  # fp32 [C]
    out,  # [B, C, V]
    channels,  # C
    width,  # channels of a group
    voxels,  # V
    parts,  # P
    span,  # numbers of a part; the last has what is left
    steps,  # blocks of a program
    eps,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,  # a power of two, parts at least
):
    row = tl.program_id(1).to(tl.int64)
    channel = (row % channels).to(tl.int32)
    group = row // width
    number = tl.arange(0, PARTS)
    numbers = width * voxels
    share = tl.maximum(tl.minimum(numbers - number * span, span), 0).to(tl.float32)
    share = tl.where(number < parts, share, 0.0)
    mean_of = tl.load(means + group * parts + number, number < parts, other=0.0)
    square = tl.load(squares + group * parts + number, number < parts, other=0.0)
    mean = tl.sum(mean_of * share, axis=0) / numbers
    away = mean_of - mean
    variance = tl.sum(square + away * away * share, axis=0) / numbers
    scale = tl.load(weight + channel) / tl.sqrt(variance + eps)
    shift = tl.load(bias + channel) - mean * scale
    place = tl.arange(0, BLOCK)
    for step in range(steps):
        at = (tl.program_id(0) * steps + step) * BLOCK + place
        values = tl.load(x + row * voxels + at, at < voxels, other=0.0).to(tl.float32)
        values = values * scale + shift
        values = values / (1.0 + tl.exp(-values))
        tl.store(out + row * voxels + at, values.to(out.dtype.element_ty), at < voxels)
