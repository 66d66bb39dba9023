"""Blocks of voxels and the triangles near each, as Triton kernels: lists halved, distances filled.

Knows nothing of meshes or grids. Each program owns a block and walks along its list, so nothing is
kept of a pair of block and triangle but a byte for each half. fp32 and no matrix units: they run
from sm_75 up. `voxelise` has the same in PyTorch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _square(table, item, x, y, z):
    """Squared distance from points to the triangles named beside them: see `Triangles`."""
    row = table + item.to(tl.int64) * 17
    x, y, z = x - tl.load(row), y - tl.load(row + 1), z - tl.load(row + 2)
    u = tl.load(row + 3) * x + tl.load(row + 4) * y + tl.load(row + 5) * z
    v = tl.load(row + 6) * x + tl.load(row + 7) * y + tl.load(row + 8) * z
    w = tl.load(row + 9) * x + tl.load(row + 10) * y + tl.load(row + 11) * z
    length, cu, cv = tl.load(row + 12), tl.load(row + 13), tl.load(row + 14)
    bu, eu = u - length, cu - length
    # On a side is beyond it, too: so is then every point of a triangle without area.
    beyond = (v <= 0) | (eu * v <= cv * bu) | (cu * v >= cv * u)
    off = u - tl.minimum(tl.maximum(u, 0.0), length)
    sides = tl.minimum(
        _to_segment(bu, v, eu, cv, tl.load(row + 15)), _to_segment(u, v, cu, cv, tl.load(row + 16))
    )
    return tl.where(beyond, tl.minimum(off * off + v * v, sides), 0.0) + w * w


@triton.jit
def _to_segment(u, v, eu, ev, inverse):
    """In the plane to the segment from the origin to (eu, ev); inverse: 1 / (eu^2 + ev^2)."""
    share = tl.minimum(tl.maximum((u * eu + v * ev) * inverse, 0.0), 1.0)
    u, v = u - share * eu, v - share * ev
    return u * u + v * v


@triton.jit
def mark_kept(
    table,  # fp32 [F, 17], see `BlockLists`
    items,  # int32 [P]: triangles, block after block
    starts,  # int64 [B + 1]
    corners,  # int32 [B, 3]
    keeps,  # int8 [P, 8], written: whether a half of the block keeps the triangle
    counts,  # int32 [B, 8], written: how many it keeps
    resolution,
    half,  # voxels along a half
    band,
    reach,  # from a half's middle to its farthest voxel
    ROWS: tl.constexpr,  # triangles looked at together
):
    block = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + block)
    size = (tl.load(starts + block + 1) - first).to(tl.int32)
    child = tl.arange(0, 8)[None, :]
    x = tl.load(corners + 3 * block) + (child // 4) * half
    y = tl.load(corners + 3 * block + 1) + (child // 2 % 2) * half
    z = tl.load(corners + 3 * block + 2) + (child % 2) * half
    inside = (x < resolution) & (y < resolution) & (z < resolution)
    middle = (half - 1) / 2.0
    x, y, z = x.to(tl.float32) + middle, y.to(tl.float32) + middle, z.to(tl.float32) + middle
    best = tl.full((ROWS, 8), float("inf"), tl.float32)
    for begin in range(0, size, ROWS):
        # As wide as the result before it is loaded: each thread then has what it needs.
        row = tl.broadcast_to(begin + tl.arange(0, ROWS)[:, None], (ROWS, 8))
        item = tl.load(items + first + row, row < size, other=0)
        square = _square(table, item, x, y, z)
        best = tl.minimum(best, tl.where(row < size, square, float("inf")))
    limit = tl.minimum(tl.sqrt(tl.min(best, axis=0)) + 2 * reach, band + reach)[None, :]
    limit = tl.where(inside, limit * limit, -1.0)
    count = tl.zeros((ROWS, 8), tl.int32)
    for begin in range(0, size, ROWS):
        row = tl.broadcast_to(begin + tl.arange(0, ROWS)[:, None], (ROWS, 8))
        item = tl.load(items + first + row, row < size, other=0)
        keep = ((_square(table, item, x, y, z) <= limit) & (row < size)).to(tl.int32)
        tl.store(keeps + (first + row) * 8 + child, keep.to(tl.int8), row < size)
        count += keep
    tl.store(counts + block * 8 + tl.arange(0, 8), tl.sum(count, axis=0))


@triton.jit
def gather_kept(
    items,  # int32 [P]
    starts,  # int64 [B + 1]
    keeps,  # int8 [P, 8]
    counts,  # int32 [B, 8]
    ends,  # int64 [B, 8]: running sums of them
    kept,  # int32, written: the lists of the halves, one after the other
    ROWS: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + block)
    size = (tl.load(starts + block + 1) - first).to(tl.int32)
    child = tl.arange(0, 8)
    place = tl.load(ends + block * 8 + child) - tl.load(counts + block * 8 + child)
    for begin in range(0, size, ROWS):
        row = tl.broadcast_to(begin + tl.arange(0, ROWS)[:, None], (ROWS, 8))
        item = tl.load(items + first + row, row < size, other=0)
        keep = tl.load(keeps + (first + row) * 8 + child[None, :], row < size, other=0)
        keep = keep.to(tl.int32)
        tl.store(kept + place[None, :] + tl.cumsum(keep, axis=0) - keep, item, keep > 0)
        place += tl.sum(keep, axis=0)


@triton.jit
def fill(
    table,  # fp32 [F, 17]
    items,  # int32 [P]
    starts,  # int64 [B + 1]
    corners,  # int32 [B, 3]
    distances,  # fp32 [B, EDGE, EDGE, EDGE], written: infinite outside of the grid
    resolution,
    EDGE: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64)
    first = tl.load(starts + block)
    size = (tl.load(starts + block + 1) - first).to(tl.int32)
    voxel = tl.arange(0, EDGE * EDGE * EDGE)
    i = tl.load(corners + 3 * block) + voxel // (EDGE * EDGE)
    j = tl.load(corners + 3 * block + 1) + voxel // EDGE % EDGE
    k = tl.load(corners + 3 * block + 2) + voxel % EDGE
    inside = (i < resolution) & (j < resolution) & (k < resolution)
    x, y, z = i.to(tl.float32), j.to(tl.float32), k.to(tl.float32)
    best = tl.full((EDGE * EDGE * EDGE,), float("inf"), tl.float32)
    for row in range(0, size):
        best = tl.minimum(best, _square(table, tl.load(items + first + row), x, y, z))
    best = tl.where(inside, tl.sqrt(best), float("inf"))
    tl.store(distances + block * (EDGE * EDGE * EDGE) + voxel, best)
