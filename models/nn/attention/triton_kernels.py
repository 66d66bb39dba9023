"""A Triton kernel of attention over sequences: one pass over the keys, no score is stored.

It knows pointers and sizes; `triton_attention` launches it. Online softmax: Dao et al.,
"FlashAttention" (2022), algorithm 1, queries outermost as in its second version (2023).

Where no score can pass a bound, as behind a QK norm, the bound takes the place of the running
maximum: nothing is rescaled on the way, which saves a tenth of the time. The result is the same
quotient; its weights then lie between 2^(-2 bound) and 1, inside the range of fp32 and bf16.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attention(
    q,  # [N, H, D], rows `q_row` apart, heads `q_head` apart; so for the others
    k,
    v,
    out,  # [N, H, D]
    blocks,  # int32 [T, 2] where not UNIFORM: the sequence of a program, its first row in there
    q_starts,  # int32 [S + 1] where not UNIFORM
    k_starts,
    q_length,  # of every sequence where UNIFORM
    k_length,
    scale,  # of the scores, times log2(e)
    bound,  # of the scaled scores, where BOUNDED
    q_row,
    k_row,
    v_row,
    out_row,
    q_head,
    k_head,
    v_head,
    out_head,
    BOUNDED: tl.constexpr,
    UNIFORM: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    head = tl.program_id(1).to(tl.int64)
    if UNIFORM:
        item = tl.program_id(2).to(tl.int64)
        first = tl.program_id(0) * BLOCK_M
        q_start, k_start = item * q_length, item * k_length
        q_count, k_count = q_length, k_length
    else:
        item = tl.load(blocks + 2 * tl.program_id(0)).to(tl.int64)
        first = tl.load(blocks + 2 * tl.program_id(0) + 1)
        q_start = tl.load(q_starts + item).to(tl.int64)
        k_start = tl.load(k_starts + item).to(tl.int64)
        q_count = (tl.load(q_starts + item + 1) - q_start).to(tl.int32)
        k_count = (tl.load(k_starts + item + 1) - k_start).to(tl.int32)

    rows = first + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_N)
    channel = tl.arange(0, BLOCK_D)
    there = channel < D
    live = (rows < q_count)[:, None] & there[None, :]
    at = q + head * q_head + (q_start + rows)[:, None] * q_row + channel[None, :]
    queries = tl.load(at, mask=live, other=0.0)
    k_at = k + head * k_head + (k_start + columns)[None, :] * k_row + channel[:, None]
    v_at = v + head * v_head + (k_start + columns)[:, None] * v_row + channel[None, :]

    most = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    if BOUNDED:
        most = tl.zeros((BLOCK_M,), tl.float32) + bound
    total = tl.zeros((BLOCK_M,), tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    whole = k_count // BLOCK_N * BLOCK_N
    for _ in range(0, whole, BLOCK_N):
        if D == BLOCK_D:
            keys = tl.load(k_at)
        else:
            keys = tl.load(k_at, mask=there[:, None], other=0.0)
        scores = tl.dot(queries, keys)
        if not BOUNDED:
            peak = tl.maximum(most, tl.max(scores, 1) * scale)
            fade = tl.exp2(most - peak)
            total *= fade
            sums *= fade[:, None]
            most = peak
        weights = tl.exp2(scores * scale - most[:, None])
        total += tl.sum(weights, 1)
        if D == BLOCK_D:
            values = tl.load(v_at)
        else:
            values = tl.load(v_at, mask=there[None, :], other=0.0)
        sums = tl.dot(weights.to(values.dtype), values, sums)
        k_at += BLOCK_N * k_row
        v_at += BLOCK_N * v_row
    if whole < k_count:  # the last block is not full
        left = columns < k_count - whole
        keys = tl.load(k_at, mask=there[:, None] & left[None, :], other=0.0)
        values = tl.load(v_at, mask=there[None, :] & left[:, None], other=0.0)
        scores = tl.where(left[None, :], tl.dot(queries, keys), float("-inf"))
        if not BOUNDED:
            peak = tl.maximum(most, tl.max(scores, 1) * scale)
            fade = tl.exp2(most - peak)
            total *= fade
            sums *= fade[:, None]
            most = peak
        weights = tl.exp2(scores * scale - most[:, None])
        total += tl.sum(weights, 1)
        sums = tl.dot(weights.to(values.dtype), values, sums)
    at = out + head * out_head + (q_start + rows)[:, None] * out_row + channel[None, :]
    tl.store(at, (sums / total[:, None]).to(out.dtype.element_ty), mask=live)
