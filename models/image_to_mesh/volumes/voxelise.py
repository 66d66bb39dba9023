"""The voxels near a mesh and how far each is from it: an unsigned distance field in a band.

Descends from coarse blocks of voxels to single ones and keeps, for each block, the triangles that
can still be the nearest of some voxel in it: exact, without a grid, and one code for every device.
Knows nothing of networks; what a token covers is for its caller to say.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from models.image_to_mesh.volumes.triangle_distance import Triangles
from models.image_to_mesh.volumes.voxel_index import ROOM, key_of

COARSEST = 64
"""Voxels along the blocks where the descent begins."""
AT_ONCE = {"cpu": 1 << 17, "cuda": 1 << 22}
"""Pairs of block and triangle measured together: what fits a cache, or fills a GPU (1 GB)."""
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


def voxelise(
    vertices: Tensor,  # [V, 3] in voxels: voxel (i, j, k) is the point (i, j, k)
    faces: Tensor,  # int [F, 3]
    resolution: int,
    band: float,  # voxels
) -> Band:
    """Every voxel of the grid nearer than `band` to the surface, with its exact distance.

    On the device of `vertices`. Raises ValueError for a band or resolution that makes no sense, and
    for vertices that are not finite.
    """
    if not 0 < resolution <= ROOM or not 0 < band < math.inf:
        raise ValueError(f"resolution {resolution} and band {band} must be positive.")
    if not bool(torch.isfinite(vertices).all()):
        raise ValueError("A vertex is not finite.")
    vertices = vertices.float()
    triangles = Triangles(vertices, faces)
    at_once = AT_ONCE.get(vertices.device.type, AT_ONCE["cuda"])
    found: list[tuple[Tensor, Tensor]] = []
    todo = [_coarse(vertices[faces.long()], resolution, band)]
    while todo:
        pairs = todo.pop()
        if len(pairs.triangle) > at_once and len(pairs.corners) > 1:
            todo += _halves(pairs)
            continue
        far = _measure(pairs, triangles, at_once)
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
    return _sorted(found, vertices)


def _sorted(found: list[tuple[Tensor, Tensor]], like: Tensor) -> Band:
    if not found:
        return Band(like.new_empty(0, 3).int(), like.new_empty(0))
    coords = torch.cat([part[0] for part in found])
    order = key_of(coords).argsort()
    return Band(coords[order].int(), torch.cat([part[1] for part in found])[order])


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


def _measure(pairs: _Pairs, triangles: Triangles, at_once: int) -> Tensor:  # -> fp32 [P]
    """From the middle of each pair's block to its triangle."""
    middles = pairs.corners + (pairs.edge - 1) / 2
    parts = zip(pairs.block.split(at_once), pairs.triangle.split(at_once), strict=True)
    return torch.cat([triangles.distance(middles[block], triangle) for block, triangle in parts])


def _children(pairs: _Pairs, keep: Tensor, resolution: int) -> _Pairs:
    """The eight halves of each block that has pairs left, inside the grid, with its pairs."""
    half = pairs.edge // 2
    used, block = pairs.block[keep].unique(return_inverse=True)
    device = used.device
    steps = torch.tensor([(x, y, z) for x in (0, half) for y in (0, half) for z in (0, half)])
    corners = pairs.corners[used][:, None] + steps.to(device)
    inside = (corners < resolution).all(dim=2).flatten()
    number = inside.cumsum(0) - 1
    child = (block[:, None] * 8 + torch.arange(8, device=device)).flatten()
    triangle = pairs.triangle[keep].repeat_interleave(8)
    valid = inside[child]
    return _Pairs(half, corners.flatten(0, 1)[inside], number[child[valid]], triangle[valid])
