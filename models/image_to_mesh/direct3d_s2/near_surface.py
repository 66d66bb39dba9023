"""Where a surface passes: the voxels that marching cubes needs, and no others.

From a dense grid of 512^3, or from blocks of a 1024^3 grid, which is never made. It knows no
network and no triangle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.image_to_mesh.direct3d_s2.blocks import EDGE, VOXELS, Blocks
from models.nn.sites import pack

AT_ONCE = 16_384
"""Blocks looked at together: 1,000 values of 4 bytes and 8 of an index for each, 200 MB."""
OUTSIDE = 1.0
"""The field where nothing is known of it."""


@dataclass(frozen=True)
class Field:
    """Every voxel beside which the surface passes, once: coords int32 [N, 3], values fp32 [N]."""

    coords: Tensor
    values: Tensor


def near_surface_of_grid(
    grid: Tensor,  # [R, R, R]
    level: float,
) -> Field:
    """Corners of all cubes that the surface at `level` passes."""
    coords = _crossed_corners((grid < level)[None])[:, 1:]
    x, y, z = coords.unbind(1)
    return Field(coords.int(), grid[x, y, z].float())


def near_surface_of_blocks(
    blocks: Blocks,  # of one channel
    level: float,
    elsewhere: Tensor,  # [G, G, G], G dividing the resolution: the field where no block is
) -> Field:
    """Corners of all cubes that the surface passes and that hold a voxel of some block.

    Blocks are taken some at a time, with the layer of voxels around them.
    """
    coords, values = [], []
    for corner, part in _with_neighbours(blocks, elsewhere):
        t, x, y, z = _crossed_corners(part < level).unbind(1)
        coords.append(corner[t] + torch.stack((x, y, z), dim=1).int())
        values.append(part[t, x, y, z])
    return _once(torch.cat(coords), torch.cat(values), blocks.resolution)


def _crossed_corners(inside: Tensor) -> Tensor:  # bool [T, X, Y, Z] -> int64 [N, 4]
    """Corners of the cubes whose corners are not all inside or all outside."""
    low = high = inside
    for axis in (1, 2, 3):
        n = low.shape[axis] - 1
        low = low.narrow(axis, 0, n) & low.narrow(axis, 1, n)
        high = high.narrow(axis, 0, n) | high.narrow(axis, 1, n)
    wanted = F.pad(high & ~low, (0, 1, 0, 1, 0, 1))  # a cube stands at its lowest corner
    for axis in (1, 2, 3):
        n = wanted.shape[axis] - 1
        before = F.pad(wanted.narrow(axis, 0, n), [0, 0] * (3 - axis) + [1, 0])
        wanted = wanted | before
    return wanted.nonzero()


def _once(coords: Tensor, values: Tensor, resolution: int) -> Field:
    """Each voxel of the grid once: blocks that touch name those between them twice."""
    kept = ((coords >= 0) & (coords < resolution)).all(dim=1)
    coords, values = coords[kept], values[kept]
    keys, order = torch.sort(pack(F.pad(coords, (1, 0))), stable=True)
    first = torch.ones_like(keys, dtype=torch.bool)
    first[1:] = keys[1:] != keys[:-1]
    rows = order[first]
    return Field(coords[rows], values[rows])


def _with_neighbours(blocks: Blocks, elsewhere: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Lowest corners int32 [t, 3] and values fp32 [t, 10, 10, 10]: a layer of voxels around each.

    The layer is of the neighbouring blocks, or of `elsewhere`. At the grid's ends the last voxels
    stand there once more: no cube beyond has a surface that those within have not.
    """
    index = _row_grid(blocks)
    flat, coarse = blocks.values.reshape(-1), blocks.resolution // elsewhere.shape[0]
    ticks = torch.arange(-1, EDGE + 1, device=index.device)
    for cells in blocks.cells.long().split(AT_ONCE):
        voxels = (cells[..., None] * EDGE + ticks).clamp_(0, blocks.resolution - 1).unbind(1)
        rows = index[_grid(*(v // EDGE for v in voxels))].long()
        x, y, z = _grid(*(v % EDGE for v in voxels))
        own = flat[rows.clamp(min=0) * VOXELS + (x * EDGE + y) * EDGE + z].float()
        around = elsewhere[_grid(*(v // coarse for v in voxels))].float()
        yield (cells * EDGE - 1).int(), torch.where(rows >= 0, own, around)


def _row_grid(blocks: Blocks) -> Tensor:
    """int32 [S, S, S]: the row of the block at each place, -1 for none."""
    index = blocks.cells.new_full((blocks.side,) * 3, -1)
    x, y, z = blocks.cells.long().unbind(1)
    index[x, y, z] = torch.arange(len(blocks), dtype=torch.int32, device=index.device)
    return index


def _grid(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Three of [t, 10] in shapes that broadcast to [t, 10, 10, 10]."""
    return x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]
