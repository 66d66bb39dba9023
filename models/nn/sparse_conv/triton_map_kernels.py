"""The Triton kernels of kernel maps: neighbours by binary search, rows ranked and rearranged.

They know no features and no weights, and import nothing but Triton. A voxel's three neighbours
along z follow each other in the sorted keys, so nine searches find all 27.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def search_neighbours(
    keys,  # int64 [n], those of the rows, in the rows' order
    known,  # int64 [n], the same keys, ascending
    known_rows,  # int64 [n], the row of each
    table,  # int32 [27, n], written: -1 where no neighbour is
    n,
    step_x,  # what a step along x adds to a key; along z it is 1
    step_y,
    ROUNDS: tl.constexpr,  # 2^ROUNDS > n
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = row < n
    key = tl.load(keys + row, mask=inside, other=0)
    place = table + row
    for side in tl.static_range(9):
        wanted = key + (side // 3 - 1) * step_x + (side % 3 - 1) * step_y - 1
        low = tl.zeros([BLOCK], tl.int32)  # the first key >= wanted lies in low .. high
        high = low + n
        for _ in range(ROUNDS):
            middle = (low + high) >> 1
            apart = low < high
            less = tl.load(known + middle, mask=inside & apart, other=0) < wanted
            low = tl.where(apart & less, middle + 1, low)
            high = tl.where(apart & ~less, middle, high)
        for dz in tl.static_range(3):
            near = inside & (low < n)
            found = near & (tl.load(known + low, mask=near, other=-1) == wanted + dz)
            neighbour = tl.load(known_rows + low, mask=found, other=-1).to(tl.int32)
            tl.store(place, neighbour, mask=inside)
            place += n
            low += found.to(tl.int32)


@triton.jit
def rank_rows(
    table,  # int32 [VOLUME, n]
    masks,  # int32 [n], written: bit k is set where neighbour k exists
    ranks,  # int32 [n], written: rows of near ranks have like masks
    n,
    VOLUME: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = tl.zeros([BLOCK], tl.int32)
    corners, edges, faces, rest = mask, mask, mask, mask
    place = table + row
    for k in tl.static_range(VOLUME):
        exists = (tl.load(place, mask=row < n, other=-1) >= 0).to(tl.int32)
        place += n
        mask |= exists << k
        # Corners, the rarest, are the highest bits of the code: rows that differ there lie apart.
        if VOLUME == 27:
            if (k % 3 != 1) + (k // 3 % 3 != 1) + (k // 9 != 1) == 3:
                corners = corners * 2 + exists
            elif (k % 3 != 1) + (k // 3 % 3 != 1) + (k // 9 != 1) == 2:
                edges = edges * 2 + exists
            else:
                faces = faces * 2 + exists
        else:
            rest = rest * 2 + exists
    code = (corners << 19) | (edges << 7) | faces | rest
    for power in tl.static_range(5):  # the place of a Gray code: each bit plus those above it
        code ^= code >> (1 << power)
    tl.store(masks + row, mask, mask=row < n)
    tl.store(ranks + row, code, mask=row < n)


@triton.jit
def arrange_rows(
    table,  # int32 [volume, n]
    masks,  # int32 [n]
    order,  # int64 [n]: the row that comes to each place
    arranged,  # int32 [volume, padded], written
    arranged_masks,  # int32 [padded], written
    rows,  # int32 [padded], written: -1 behind the last
    n,
    padded,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    k = tl.program_id(1).to(tl.int64)
    row = tl.load(order + place, mask=place < n, other=-1).to(tl.int32)
    neighbour = tl.load(table + k * n + row, mask=row >= 0, other=-1)
    tl.store(arranged + k * padded + place, neighbour, mask=place < padded)
    if k == 0:
        tl.store(rows + place, row, mask=place < padded)
        mask = tl.load(masks + row, mask=row >= 0, other=0)
        tl.store(arranged_masks + place, mask, mask=place < padded)
