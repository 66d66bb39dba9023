"""Voxels near triangles by our kernels: each block of voxels has a list of the triangles near it.

Lists are halved with their blocks until a block is small enough to measure every voxel of it
against every triangle of its list. It knows what a kernel needs, and no mesh; `voxelise` has the
same in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.image_to_mesh.volumes.triangle_distance import Triangles

FINEST = 4
"""Voxels along the blocks that are filled."""
PAIRS_AT_ONCE = 1 << 23
"""Of block and triangle in a part of the work: 12 bytes each, and 4 for each half that keeps it."""
BLOCKS_AT_ONCE = 1 << 18
"""In a part: of 64 voxels each, and a voxel takes 4 bytes, or 60 if it is within the band."""


class Threads(NamedTuple):
    """Of a block: triangles that they look at together, and warps."""

    rows: int
    warps: int


FEW, MANY = Threads(32, 1), Threads(256, 16)
LONG = 1024
"""Triangles of a list, on average, from which on a block gets many."""
FILLING_WARPS = 1


class BlockLists(NamedTuple):
    """edge: voxels along a block. corners: int32 [B, 3] their lowest voxels.

    items: int32 [P], triangles, block after block; starts: int64 [B + 1], where each list begins.
    """

    edge: int
    corners: Tensor
    items: Tensor
    starts: Tensor

    def halves(self) -> list[BlockLists]:
        """The same in two parts."""
        middle = len(self.corners) // 2
        cut = int(self.starts[middle])
        return [
            BlockLists(
                self.edge, self.corners[:middle], self.items[:cut], self.starts[: middle + 1]
            ),
            BlockLists(
                self.edge, self.corners[middle:], self.items[cut:], self.starts[middle:] - cut
            ),
        ]


def lists_of(
    edge: int,
    corners: Tensor,  # int [B, 3]
    block: Tensor,  # int64 [P], of each pair
    triangle: Tensor,  # int64 [P]
) -> BlockLists:
    items = triangle.int()[block.argsort(stable=True)]
    starts = F.pad(torch.bincount(block, minlength=len(corners)).cumsum(0), (1, 0))
    return BlockLists(edge, corners.int(), items, starts)


def descend(
    coarse: BlockLists,
    triangles: Triangles,
    resolution: int,
    band: float,  # voxels
    slack: float,  # voxels by which a bound may be off
    on_part: Callable[[], None],
) -> list[tuple[Tensor, Tensor]]:
    """Voxels int32 [n, 3] nearer than `band` and their distances fp32 [n], part by part."""
    table = table_of(triangles)
    found = []
    todo = [coarse]
    while todo:
        on_part()
        lists = todo.pop()
        size = len(lists.corners)
        if size > 1 and (len(lists.items) > PAIRS_AT_ONCE or size > BLOCKS_AT_ONCE):
            todo += lists.halves()
        elif lists.edge <= FINEST:
            found.append(filled(lists, table, resolution, band))
        elif size:
            # A voxel is at most this far from the middle of its block.
            reach = math.sqrt(3) * (lists.edge // 2 - 1) / 2 + slack
            todo.append(halved(lists, table, resolution, band, reach))
    return found


def table_of(triangles: Triangles) -> Tensor:  # -> fp32 [F, 17]
    """Origin, axes and shape, and 1 / length^2 of the second and the third side."""
    length, x, y = triangles.shape.unbind(1)
    squares = torch.stack(((x - length) ** 2 + y * y, x * x + y * y), dim=1)
    inverse = 1 / squares.clamp_(min=torch.finfo(torch.float32).tiny)
    parts = (triangles.origin, triangles.axes.flatten(1), triangles.shape, inverse)
    return torch.cat([part.float() for part in parts], dim=1)


def halved(
    lists: BlockLists, table: Tensor, resolution: int, band: float, reach: float
) -> BlockLists:
    """The halves of each block that lie in the grid, each with what can be nearest in it."""
    from models.image_to_mesh.volumes.voxelise_triton import gather_kept, mark_kept

    half, device = lists.edge // 2, table.device
    blocks, pairs = len(lists.corners), len(lists.items)
    threads = MANY if pairs > LONG * blocks else FEW
    keeps = torch.empty(pairs, 8, dtype=torch.int8, device=device)
    counts = torch.empty(blocks, 8, dtype=torch.int32, device=device)
    with torch.cuda.device_of(table):
        mark_kept[blocks,](
            *(table, lists.items, lists.starts, lists.corners, keeps, counts),
            *(resolution, half, band, reach),
            ROWS=threads.rows,
            num_warps=threads.warps,
        )
        ends = counts.flatten().cumsum(0)
        kept = torch.empty(int(ends[-1]), dtype=torch.int32, device=device)
        gather_kept[blocks,](
            *(lists.items, lists.starts, keeps, counts, ends, kept),
            ROWS=threads.rows,
            num_warps=threads.warps,
        )
    used = counts.flatten().nonzero().flatten()
    corners = lists.corners[used // 8] + half * _within(2, device)[used % 8]
    return BlockLists(half, corners, kept, F.pad(ends[used], (1, 0)))


def filled(
    lists: BlockLists, table: Tensor, resolution: int, band: float
) -> tuple[Tensor, Tensor]:  # int32 [n, 3], fp32 [n]
    """The voxels nearer than `band`, every one against its block's whole list."""
    from models.image_to_mesh.volumes.voxelise_triton import fill

    blocks = len(lists.corners)
    distances = table.new_empty(blocks, FINEST**3)
    if blocks:
        with torch.cuda.device_of(table):
            fill[blocks,](
                *(table, lists.items, lists.starts, lists.corners, distances, resolution),
                EDGE=FINEST,
                num_warps=FILLING_WARPS,
            )
    block, voxel = (distances < band).nonzero().unbind(1)
    coords = lists.corners[block] + _within(FINEST, table.device)[voxel]
    return coords, distances[block, voxel]


def _within(side: int, device: torch.device) -> Tensor:  # int32 [side^3, 3]
    """The places of a cube, z fastest."""
    ticks = torch.arange(side, dtype=torch.int32, device=device)
    return torch.cartesian_prod(ticks, ticks, ticks)
