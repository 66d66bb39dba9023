"""The Triton kernels of spatial sparse attention: tiles, block scores, the choice, chosen blocks.

They know no networks and choose no sizes: tiles, warps and stages are arguments. A softmax is
computed as it streams (Milakov & Gimelshein 2018), in base 2 and fp32. The SHARE heads of queries
that share a head of keys lie side by side in memory, so a tile of queries is QUERIES voxels times
SHARE heads: they load each key once together. Plain pointers and no torch: the same source serves,
and compiles for, sm_75 to sm_120.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def attend_tiles(
    q,  # [N, GROUPS * SHARE, WIDTH]
    k,  # [M, GROUPS, WIDTH]
    v,  # [M, GROUPS, WIDTH]
    out,  # as q
    sums,  # fp32 [N, GROUPS * SHARE]: log2 of the sum of exp(score)
    table,  # int32 [tiles, 4]: first query, how many; first key, how many
    rows,  # int32: row of each query and key counted in `table`
    scale,  # of scores, times log2(e)
    GROUPS: tl.constexpr,
    SHARE: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    BY_ROWS: tl.constexpr,  # False: queries and keys are rows themselves
    WITH_SUMS: tl.constexpr,
):
    """Every query of a tile attends to all keys of the tile. Programs: (tiles, GROUPS)."""
    group = tl.program_id(1)
    tile = table + tl.program_id(0) * 4
    first, count = tl.load(tile), tl.load(tile + 1)
    first_key, keys = tl.load(tile + 2), tl.load(tile + 3)

    member = tl.arange(0, QUERIES * SHARE)
    real = member // SHARE < count
    row = first + member // SHARE
    if BY_ROWS:
        row = tl.load(rows + row, mask=real, other=0)
    head = row.to(tl.int64) * (GROUPS * SHARE) + group * SHARE + member % SHARE
    channel = tl.arange(0, WIDTH)
    here = head[:, None] * WIDTH + channel[None, :]
    query = tl.load(q + here, mask=real[:, None], other=0.0)

    top = tl.full([QUERIES * SHARE], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES * SHARE], tl.float32)
    mixed = tl.zeros([QUERIES * SHARE, WIDTH], tl.float32)
    place = tl.arange(0, KEYS)
    for start in range(0, keys, KEYS):
        there = start + place < keys
        at = first_key + start + place
        if BY_ROWS:
            at = tl.load(rows + at, mask=there, other=0)
        at = at * (GROUPS * WIDTH) + group * WIDTH
        key = tl.load(k + at[None, :] + channel[:, None], mask=there[None, :], other=0.0)
        value = tl.load(v + at[:, None] + channel[None, :], mask=there[:, None], other=0.0)
        score = tl.where(there[None, :], tl.dot(query, key), float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        shrink = tl.exp2((top - higher) * scale)
        weight = tl.exp2(score * scale - (higher * scale)[:, None])
        total = total * shrink + tl.sum(weight, 1)
        mixed = tl.dot(weight.to(value.dtype), value, mixed * shrink[:, None])
        top = higher

    mixed = mixed / total[:, None]
    tl.store(out + here, mixed.to(out.dtype.element_ty), mask=real[:, None])
    if WITH_SUMS:
        tl.store(sums + head, top * scale + tl.log2(total), mask=real)


@triton.jit
def score_blocks(
    q,  # [N, GROUPS * SHARE, WIDTH]
    k,  # [M, GROUPS, WIDTH]
    sums,  # fp32 [N, GROUPS * SHARE], of `attend_tiles`
    table,  # int32 [tiles, 4]: first query, how many; first key, how many
    scores,  # fp32 [GROUPS, tiles of this launch * QUERIES, columns]
    first_tile,
    columns,
    scale,
    GROUPS: tl.constexpr,
    SHARE: tl.constexpr,
    WIDTH: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Weights of keys summed over the heads of a group. Programs: (tiles, key tiles, GROUPS)."""
    group = tl.program_id(2)
    tile = table + (first_tile + tl.program_id(0)) * 4
    first, count = tl.load(tile), tl.load(tile + 1)
    first_key, keys = tl.load(tile + 2), tl.load(tile + 3)
    place = tl.program_id(1) * KEYS + tl.arange(0, KEYS)
    if tl.program_id(1) * KEYS < keys:
        channel = tl.arange(0, WIDTH)
        at = (first_key + place) * (GROUPS * WIDTH) + group * WIDTH
        there = place < keys
        key = tl.load(k + at[None, :] + channel[:, None], mask=there[None, :], other=0.0)
        member = tl.arange(0, QUERIES)
        real = member < count
        head = (first + member).to(tl.int64) * (GROUPS * SHARE) + group * SHARE
        weight = tl.zeros([QUERIES, KEYS], tl.float32)
        for _ in range(SHARE):
            query = tl.load(
                q + head[:, None] * WIDTH + channel[None, :], mask=real[:, None], other=0.0
            )
            all_keys = tl.load(sums + head, mask=real, other=0.0)
            weight += tl.exp2(tl.dot(query, key) * scale - all_keys[:, None])
            head += 1
        line = (group * tl.num_programs(0) + tl.program_id(0)) * QUERIES + member
        to = scores + line[:, None] * columns + place[None, :]
        tl.store(to, weight, mask=real[:, None] & there[None, :])


@triton.jit
def choose_blocks(
    scores,  # fp32 [GROUPS, tiles of this launch * QUERIES, columns], of `score_blocks`
    table,  # int32 [tiles, 4] of `score_blocks`
    among,  # int32 [tiles, 4]: the same queries; first selection block, how many
    children,  # int32 [S, CHILDREN], -1 behind the last
    chosen,  # int32 [N, GROUPS, TOPK]
    first_tile,
    columns,
    GROUPS: tl.constexpr,
    QUERIES: tl.constexpr,
    TOPK: tl.constexpr,
    SIZE: tl.constexpr,  # a power of two, at least TOPK and the selection blocks of any item
    CHILDREN: tl.constexpr,  # 0: each selection block is the key of its number
):
    """The TOPK best blocks of a query, ascending, -1 behind. Programs: (queries, GROUPS)."""
    line, group = tl.program_id(0), tl.program_id(1)
    tile = (first_tile + line // QUERIES) * 4
    if line % QUERIES < tl.load(table + tile + 1):
        row = tl.load(table + tile) + line % QUERIES
        first_block, blocks = tl.load(among + tile + 2), tl.load(among + tile + 3)
        from_line = scores + (group * tl.num_programs(0) + line) * columns
        block = tl.arange(0, SIZE)
        there = block < blocks
        if CHILDREN == 0:
            left = tl.load(from_line + block, mask=there, other=-1.0)
        else:
            first_key = tl.load(table + tile + 2)
            left = tl.zeros([SIZE], tl.float32)
            for turn in tl.static_range(CHILDREN):
                at = children + (first_block + block) * CHILDREN + turn
                key = tl.load(at, mask=there, other=-1)
                left += tl.load(from_line + key - first_key, mask=key >= 0, other=0.0)
            left = tl.where(there, left, -1.0)
        lower = left
        bar = tl.max(left, 0)
        for _ in range(TOPK - 1):  # down to the TOPK-th highest score, were they all different
            lower = tl.where(lower < bar, lower, -2.0)
            bar = tl.max(lower, 0)
        taken = (left >= tl.maximum(bar, 0.0)).to(tl.int32)
        if tl.sum(taken, 0) > TOPK:  # some are equal: one by one, of equal ones the first
            taken = tl.zeros([SIZE], tl.int32)
            for _ in range(TOPK):
                best = tl.min(tl.where(left == tl.max(left, 0), block, SIZE), 0)
                taken = tl.where((block == best) & there, 1, taken)
                left = tl.where(block == best, -2.0, left)
        to = chosen + (row.to(tl.int64) * GROUPS + group) * TOPK
        tl.store(to + tl.cumsum(taken, 0) - 1, first_block + block, mask=taken != 0)
        behind = (block >= tl.sum(taken, 0)) & (block < TOPK)
        tl.store(to + block, tl.full([SIZE], -1, tl.int32), mask=behind)


@triton.jit
def attend_chosen(
    q,  # [N, GROUPS * SHARE, WIDTH]
    k,  # [N, GROUPS, WIDTH]
    v,  # [N, GROUPS, WIDTH]
    chosen,  # int32 [N, GROUPS, TOPK]
    starts,  # int32 [S + 1], first row of each block
    seen,  # as q: what compression gave, and
    near,  # as q: what windows gave
    gates,  # [N, 3]
    out,  # as q
    scale,  # of scores, times log2(e)
    GROUPS: tl.constexpr,
    SHARE: tl.constexpr,
    HEADS: tl.constexpr,  # SHARE, at least 16: rows of a product
    WIDTH: tl.constexpr,
    TOPK: tl.constexpr,
    SLOTS: tl.constexpr,  # TOPK up to a power of two
    KEYS: tl.constexpr,
    GATED: tl.constexpr,  # out is the gated sum of all three; else of this branch alone
):
    """A voxel attends to all rows of its blocks, a tile of one block at a time. Programs:
    (N, GROUPS).

    Tiles begin with their blocks, so the last one of each may be part empty. To lay blocks end to
    end instead fills it, and costs a search of every row's block.
    """
    row, group = tl.program_id(0), tl.program_id(1)
    slot = tl.arange(0, SLOTS)
    of_row = chosen + (row.to(tl.int64) * GROUPS + group) * TOPK
    block = tl.load(of_row + slot, mask=slot < TOPK, other=-1)
    start = tl.load(starts + block, mask=block >= 0, other=0)
    stop = tl.load(starts + block + 1, mask=block >= 0, other=0)
    tiles = (stop - start + KEYS - 1) // KEYS
    ends = tl.cumsum(tiles, 0)
    begins = ends - tiles
    moved = start - begins * KEYS  # tile i of all begins at row i * KEYS + moved of its block

    member = tl.arange(0, HEADS)
    real = member < SHARE
    channel = tl.arange(0, WIDTH)
    head = row.to(tl.int64) * (GROUPS * SHARE) + group * SHARE + member
    here = head[:, None] * WIDTH + channel[None, :]
    query = tl.load(q + here, mask=real[:, None], other=0.0)

    top = tl.full([HEADS], float("-inf"), tl.float32)
    total = tl.zeros([HEADS], tl.float32)
    mixed = tl.zeros([HEADS, WIDTH], tl.float32)
    place = tl.arange(0, KEYS)
    for tile in range(0, tl.sum(tiles, 0)):
        mine = (begins <= tile) & (tile < ends)
        at = tile * KEYS + tl.sum(tl.where(mine, moved, 0), 0) + place
        there = at < tl.sum(tl.where(mine, stop, 0), 0)
        at = at * (GROUPS * WIDTH) + group * WIDTH
        key = tl.load(k + at[None, :] + channel[:, None], mask=there[None, :], other=0.0)
        value = tl.load(v + at[:, None] + channel[None, :], mask=there[:, None], other=0.0)
        score = tl.where(there[None, :], tl.dot(query, key), float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        shrink = tl.exp2((top - higher) * scale)
        weight = tl.exp2(score * scale - (higher * scale)[:, None])
        total = total * shrink + tl.sum(weight, 1)
        mixed = tl.dot(weight.to(value.dtype), value, mixed * shrink[:, None])
        top = higher

    mixed = mixed / total[:, None]
    if GATED:
        gate = gates + row * 3
        mixed *= tl.load(gate + 1).to(tl.float32)
        before = tl.load(seen + here, mask=real[:, None], other=0.0).to(tl.float32)
        mixed += tl.load(gate).to(tl.float32) * before
        beside = tl.load(near + here, mask=real[:, None], other=0.0).to(tl.float32)
        mixed += tl.load(gate + 2).to(tl.float32) * beside
    tl.store(out + here, mixed.to(out.dtype.element_ty), mask=real[:, None])
