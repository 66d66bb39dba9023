"""The voxels near a mesh and how far each is from it: an unsigned distance field in a band.

Exact, and without a grid. On a GPU it descends from coarse blocks of voxels to single ones, or to
small ones where our kernels compute, and keeps, for each block, the triangles that can still be the
nearest of some voxel in it; on the CPU compiled loops fill one block after another. Knows nothing
of networks; what a token covers is for its caller to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.image_to_mesh.volumes import block_lists
from models.image_to_mesh.volumes.triangle_distance import Triangles, triangles_of
from models.image_to_mesh.volumes.voxel_index import ROOM, key_of
from models.nn.fused.functional import ours_compute

COARSEST = 64
"""Voxels along the blocks where the descent begins, and which the CPU fills."""
AT_ONCE = 1 << 21
"""Pairs of block and triangle measured together: they fill a GPU, and take 2 GB of its memory."""
SLACK = 2e-3
"""Voxels by which a bound may be off: rounding of fp32 at 1,000 voxels from the origin."""


class Band(NamedTuple):
    """coords: int32 [N, 3], ascending; distances: fp32 [N], in voxels."""

    coords: Tensor
    distances: Tensor


class _Pairs(NamedTuple):
    """corners: int64 [B, 3] lowest voxels of blocks; block, triangle: int64 [P] the pairs."""

    edge: int
    corners: Tensor
    block: Tensor
    triangle: Tensor


_Search = Callable[[_Pairs, Triangles, int, float, Callable[[], None]], list[tuple[Tensor, Tensor]]]
"""From pairs, triangles, resolution, band and on_part: int [n, 3] and fp32 [n], part by part."""


def voxelise(
    vertices: Tensor,  # [V, 3] in voxels: voxel (i, j, k) is the point (i, j, k)
    faces: Tensor,  # int [F, 3]
    resolution: int,
    band: float,  # voxels
    on_part: Callable[[], None] = lambda: None,
) -> Band:
    """Every voxel of the grid nearer than `band` to the surface, with its exact distance.

    On the device of `vertices`. on_part is called after each part of the work, a fraction of a
    second; what it raises ends it. Raises ValueError for a band or resolution that makes no sense,
    and for vertices that are not finite.
    """
    if not 0 < resolution <= ROOM or not 0 < band < math.inf:
        raise ValueError(f"resolution {resolution} and band {band} must be positive.")
    if not bool(torch.isfinite(vertices).all()):
        raise ValueError("A vertex is not finite.")
    vertices, faces = vertices.float(), faces.long()
    # Nothing but what is found outlives the search: sorting it takes as much memory again.
    found = _search_of(vertices)(
        _coarse(vertices[faces], resolution, band),
        triangles_of(vertices.double(), faces),
        resolution,
        band,
        on_part,
    )
    if not found:
        return Band(vertices.new_empty(0, 3).int(), vertices.new_empty(0))
    order = torch.cat([key_of(part[0]) for part in found]).argsort()
    coords = torch.cat([part[0].int() for part in found])
    return Band(coords[order], torch.cat([part[1] for part in found])[order])


def _search_of(vertices: Tensor) -> _Search:
    if vertices.device.type == "cpu":
        return _filled
    return _listed if ours_compute(vertices) else _descended


def _filled(
    coarse: _Pairs,
    triangles: Triangles,
    resolution: int,
    band: float,
    on_part: Callable[[], None],
) -> list[tuple[Tensor, Tensor]]:
    """Voxels and distances of each block, a block to a thread; on the CPU."""
    from models.cores import usable_cores
    from models.image_to_mesh.volumes.voxelise_compiled import gather, nearest_in_block

    order = coarse.block.argsort(stable=True)
    owned = coarse.triangle[order].split(torch.bincount(coarse.block).tolist())
    table = torch.cat((triangles.origin, triangles.axes.flatten(1), triangles.shape), dim=1).numpy()
    boxes = torch.cat((triangles.lowest, triangles.highest), dim=1).numpy()

    def fill(corner: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        extent = (resolution - corner).clamp(max=coarse.edge).tolist()
        best = np.full(extent, band * band, np.float32)
        count = nearest_in_block(table, boxes, own.numpy(), corner.numpy(), band, best)
        coords, distances = np.empty((count, 3), np.int32), np.empty(count, np.float32)
        gather(best, band, corner.numpy(), coords, distances)
        return torch.from_numpy(coords), torch.from_numpy(distances)

    pool, found = ThreadPoolExecutor(usable_cores()), []
    try:
        for part in pool.map(fill, coarse.corners, owned):
            found.append(part)
            on_part()
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _listed(
    coarse: _Pairs,
    triangles: Triangles,
    resolution: int,
    band: float,
    on_part: Callable[[], None],
) -> list[tuple[Tensor, Tensor]]:
    """The same by our kernels, which halve blocks too."""
    lists = block_lists.lists_of(coarse.edge, coarse.corners, coarse.block, coarse.triangle)
    return block_lists.descend(lists, triangles, resolution, band, SLACK, on_part)


def _descended(
    coarse: _Pairs,
    triangles: Triangles,
    resolution: int,
    band: float,
    on_part: Callable[[], None],
) -> list[tuple[Tensor, Tensor]]:
    """The same by halving blocks, on any device that PyTorch knows."""
    triangles = triangles.float()
    found: list[tuple[Tensor, Tensor]] = []
    todo = [coarse]
    while todo:
        on_part()
        pairs = todo.pop()
        if len(pairs.triangle) > AT_ONCE and len(pairs.corners) > 1:
            todo += _halves(pairs)
            continue
        far = _measure(pairs, triangles)
        nearest = far.new_full((len(pairs.corners),), math.inf)
        nearest.scatter_reduce_(0, pairs.block, far, "amin")
        if pairs.edge == 1:
            near = nearest < band
            found.append((pairs.corners[near], nearest[near]))
            continue
        # A voxel is at most this far from the middle of its block.
        reach = math.sqrt(3) * (pairs.edge - 1) / 2 + SLACK
        keep = (far < band + reach) & (far <= nearest[pairs.block] + 2 * reach)
        if bool(keep.any()):
            todo.append(_children(pairs, keep, resolution))
    return found


def _coarse(corners: Tensor, resolution: int, band: float) -> _Pairs:  # [F, 3, 3]
    """Every triangle with every block that its box comes near to."""
    edge = min(COARSEST, 1 << (resolution - 1).bit_length())
    side = -(-resolution // edge)
    first = ((corners.amin(1) - band) / edge).floor().long().clamp(0, side)
    last = ((corners.amax(1) + band) / edge).floor().long().clamp(-1, side - 1)
    extent = (last - first + 1).clamp(min=0)
    count = extent.prod(dim=1)
    triangle = torch.arange(len(corners), device=corners.device).repeat_interleave(count)
    number = torch.arange(len(triangle), device=corners.device)
    number -= (count.cumsum(0) - count)[triangle]
    wide = extent[triangle]
    z, number = number % wide[:, 2], number // wide[:, 2]
    y, x = number % wide[:, 1], number // wide[:, 1]
    place = first[triangle] + torch.stack((x, y, z), dim=1)
    name = (place[:, 0] * side + place[:, 1]) * side + place[:, 2]
    names, block = name.unique(return_inverse=True)
    lowest = torch.stack((names // side**2, names // side % side, names % side), dim=1) * edge
    return _Pairs(edge, lowest, block, triangle)


def _halves(pairs: _Pairs) -> list[_Pairs]:
    """The same in two parts, each with all pairs of its blocks."""
    middle = len(pairs.corners) // 2
    low = pairs.block < middle
    return [
        _Pairs(pairs.edge, pairs.corners[:middle], pairs.block[low], pairs.triangle[low]),
        _Pairs(
            pairs.edge, pairs.corners[middle:], pairs.block[~low] - middle, pairs.triangle[~low]
        ),
    ]


def _measure(pairs: _Pairs, triangles: Triangles) -> Tensor:  # -> fp32 [P]
    """From the middle of each pair's block to its triangle."""
    middles = pairs.corners + (pairs.edge - 1) / 2
    parts = zip(pairs.block.split(AT_ONCE), pairs.triangle.split(AT_ONCE), strict=True)
    return torch.cat([triangles.distance(middles[block], triangle) for block, triangle in parts])


def _children(pairs: _Pairs, keep: Tensor, resolution: int) -> _Pairs:
    """The eight halves of each block that has pairs left, inside the grid, with its pairs."""
    half = pairs.edge // 2
    device = keep.device
    wanted = torch.zeros(len(pairs.corners), dtype=torch.bool, device=device)
    wanted[pairs.block[keep]] = True
    used = wanted.nonzero().flatten()
    block = (wanted.cumsum(0) - 1)[pairs.block[keep]]
    steps = torch.tensor([(x, y, z) for x in (0, half) for y in (0, half) for z in (0, half)])
    corners = pairs.corners[used][:, None] + steps.to(device)
    inside = (corners < resolution).all(dim=2).flatten()
    number = inside.cumsum(0) - 1
    child = (block[:, None] * 8 + torch.arange(8, device=device)).flatten()
    triangle = pairs.triangle[keep].repeat_interleave(8)
    valid = inside[child]
    return _Pairs(half, corners.flatten(0, 1)[inside], number[child[valid]], triangle[valid])
