"""The Triton kernels of sparse convolution: a masked implicit GEMM, and the sum of its splits.

They know no networks and choose nothing: tiles, stages and splits are arguments. A program computes
a tile of output rows and channels; it steps through the offsets that any of its rows has, gathers
the rows' neighbours by index into shared memory, and multiplies them with that offset's weights.
Plain pointers and no torch: the same source serves, and compiles for, sm_75 to sm_120.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def count_bits(bits):
    """Bits set in a non-negative int32."""
    bits = bits - ((bits >> 1) & 0x55555555)
    bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
    bits = (bits + (bits >> 4)) & 0x0F0F0F0F
    return (bits * 0x01010101) >> 24


@triton.jit
def lowest_bit(bits):
    """The place of the lowest bit set in a positive int32: the exponent of that power of two."""
    power = (bits & -bits).to(tl.float32)
    return (power.to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def implicit_gemm(
    features,  # [N_in, IN], row-major
    weight,  # [volume, IN, OUT] by the strides below
    table,  # int32 [volume, padded], -1 where no neighbour is
    masks,  # int32 [padded]
    rows,  # int32 [padded], -1 behind the last
    bias,  # [OUT]
    residual,  # [N, OUT], added
    out,  # [N, OUT]; with SPLITS > 1 fp32 [SPLITS, padded, OUT], by place
    padded,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    OFFSET_STRIDE: tl.constexpr,
    IN_STRIDE: tl.constexpr,
    OUT_STRIDE: tl.constexpr,
    HAS_BIAS: tl.constexpr,  # False with SPLITS > 1, as the next: `sum_splits` adds them
    HAS_RESIDUAL: tl.constexpr,
    PRECISION: tl.constexpr,  # of fp32 products: "ieee", "tf32" or "tf32x3"
    WIDE: tl.constexpr,  # elements are counted in int64
    BLOCK_M: tl.constexpr,  # rows
    BLOCK_N: tl.constexpr,  # channels out, and
    TAIL_N: tl.constexpr,  # further ones: 64 + 32 = 96
    BLOCK_K: tl.constexpr,  # channels in
    SPLITS: tl.constexpr,
):
    columns: tl.constexpr = BLOCK_N + TAIL_N
    column_tiles: tl.constexpr = (OUT + columns - 1) // columns
    parts: tl.constexpr = (IN + BLOCK_K - 1) // BLOCK_K
    even: tl.constexpr = IN % BLOCK_K == 0
    whole: tl.constexpr = even and OUT % columns == 0
    # Column tiles of the same rows run side by side: what one gathered, the next finds in L2.
    tile = tl.program_id(0) // column_tiles
    column = tl.program_id(0) % column_tiles * columns
    split = tl.program_id(1)

    place = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    bits = tl.reduce(tl.load(masks + place), 0, _either)
    offsets = count_bits(bits)
    if SPLITS > 1:  # this program's share of the offsets
        share = (offsets + SPLITS - 1) // SPLITS
        first = split * share
        offsets = tl.maximum(tl.minimum(share, offsets - first), 0)
        for _ in range(first):
            bits &= bits - 1

    inner = tl.arange(0, BLOCK_K)
    outer = column + tl.arange(0, BLOCK_N)
    row = tl.load(rows + place)
    sums = _begin(row, outer, bias, residual, OUT, HAS_BIAS, HAS_RESIDUAL, BLOCK_M, BLOCK_N)
    weights = weight + inner[:, None] * IN_STRIDE + outer[None, :] * OUT_STRIDE
    if TAIL_N > 0:
        tail = column + BLOCK_N + tl.arange(0, TAIL_N)
        tail_sums = _begin(row, tail, bias, residual, OUT, HAS_BIAS, HAS_RESIDUAL, BLOCK_M, TAIL_N)
        tail_weights = weight + inner[:, None] * IN_STRIDE + tail[None, :] * OUT_STRIDE
    for step in range(offsets * parts):
        k = lowest_bit(bits)
        c = step % parts * BLOCK_K
        bits = tl.where(step % parts == parts - 1, bits & (bits - 1), bits)
        if WIDE:
            index = tl.load(table + k.to(tl.int64) * padded + place).to(tl.int64)
        else:
            index = tl.load(table + k * padded + place)
        exists = (index >= 0)[:, None]
        gathered = features + index[:, None] * IN + (c + inner)[None, :]
        start = k * OFFSET_STRIDE + c * IN_STRIDE
        if even:
            a = tl.load(gathered, mask=exists, other=0.0)
        else:
            a = tl.load(gathered, mask=exists & (c + inner < IN)[None, :], other=0.0)
        b = _weights(weights + start, c + inner, outer, IN, OUT, whole)
        sums = tl.dot(a, b, sums, input_precision=PRECISION)
        if TAIL_N > 0:
            b = _weights(tail_weights + start, c + inner, tail, IN, OUT, whole)
            tail_sums = tl.dot(a, b, tail_sums, input_precision=PRECISION)

    if SPLITS > 1:
        to = out + (split.to(tl.int64) * padded + place)[:, None] * OUT
        tl.store(to + outer[None, :], sums, mask=(outer < OUT)[None, :])
        if TAIL_N > 0:
            tl.store(to + tail[None, :], tail_sums, mask=(tail < OUT)[None, :])
    else:
        _store(sums, row, outer, out, OUT)
        if TAIL_N > 0:
            _store(tail_sums, row, tail, out, OUT)


@triton.jit
def _weights(at, inner, outer, IN: tl.constexpr, OUT: tl.constexpr, WHOLE: tl.constexpr):
    if WHOLE:
        return tl.load(at)
    else:
        return tl.load(at, mask=(inner < IN)[:, None] & (outer < OUT)[None, :], other=0.0)


@triton.jit
def _begin(
    row,  # int32 [ROWS], -1: not stored
    channel,  # int32 [COLUMNS]
    bias,
    residual,
    OUT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """What the sums start from, fp32: added first, so that no register waits for it at the end."""
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    if HAS_BIAS:
        sums += tl.load(bias + channel, mask=channel < OUT, other=0.0).to(tl.float32)[None, :]
    if HAS_RESIDUAL:
        there = (row >= 0)[:, None] & (channel < OUT)[None, :]
        at = (residual + row.to(tl.int64) * OUT)[:, None] + channel[None, :]
        sums += tl.load(at, mask=there, other=0.0).to(tl.float32)
    return sums


@triton.jit
def _store(sums, row, channel, out, OUT: tl.constexpr):
    at = (out + row.to(tl.int64) * OUT)[:, None] + channel[None, :]
    there = (row >= 0)[:, None] & (channel < OUT)[None, :]
    tl.store(at, sums.to(out.dtype.element_ty), mask=there)


@triton.jit
def sum_splits(
    partial,  # fp32 [SPLITS, padded, OUT], by place
    rows,  # int32 [padded]
    bias,  # [OUT]
    residual,  # [N, OUT]
    out,  # [N, OUT]
    padded,
    OUT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    channel = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    at = partial + place.to(tl.int64)[:, None] * OUT + channel[None, :]
    row = tl.load(rows + place)
    sums = _begin(row, channel, bias, residual, OUT, HAS_BIAS, HAS_RESIDUAL, BLOCK_M, BLOCK_N)
    for _ in tl.static_range(SPLITS):
        sums += tl.load(at, mask=(channel < OUT)[None, :], other=0.0)
        at += padded.to(tl.int64) * OUT
    _store(sums, row, channel, out, OUT)
