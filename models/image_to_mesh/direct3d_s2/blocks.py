"""A field on blocks of 8^3 voxels: what a latent voxel decodes to, without a coordinate each.

A block is dense, so its voxels need no kernel map and no key: 51 million voxels of a 1024^3 grid
are 100,000 block coordinates and their values. It knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EDGE = 8
"""Voxels along a block: three subdivisions of a latent voxel."""
VOXELS = EDGE**3


@dataclass(frozen=True)
class Blocks:
    """cells:      int32 [T, 3], place of each block in units of blocks, each once
    values:     [T, C, 8, 8, 8], x the slowest
    resolution: voxels along the grid"""

    cells: Tensor
    values: Tensor
    resolution: int

    def __len__(self) -> int:
        return self.cells.shape[0]

    @property
    def side(self) -> int:
        """Blocks along the grid."""
        return self.resolution // EDGE

    def voxels(self) -> Tensor:
        """int32 [T * 512, 3]: coordinates, block after block, in the order of `values`."""
        ticks = torch.arange(EDGE, dtype=torch.int32, device=self.cells.device)
        inside = torch.stack(torch.meshgrid(ticks, ticks, ticks, indexing="ij"), dim=-1)
        return (self.cells[:, None] * EDGE + inside.reshape(1, VOXELS, 3)).reshape(-1, 3)

    def patch(self, start: tuple[int, int, int], size: int, background: Tensor) -> Tensor | None:
        """[C, S, S, S] of `size` blocks along each axis from block `start`, `background` [C] where
        none is; None where the patch holds no block."""
        low = self.cells.new_tensor(start)
        local = (self.cells - low).long()
        rows = ((local >= 0) & (local < size)).all(dim=1).nonzero().flatten()
        if len(rows) == 0:
            return None
        channels = self.values.shape[1]
        grid = background.view(1, 1, 1, channels, 1, 1, 1).repeat(size, size, size, 1, *[EDGE] * 3)
        x, y, z = local[rows].unbind(1)
        grid[x, y, z] = self.values[rows]
        return grid.permute(3, 0, 4, 1, 5, 2, 6).reshape(channels, *[size * EDGE] * 3)


def from_children(
    cells: Tensor,  # int32 [T, 3]
    feats: Tensor,  # [T * 512, C]: children of children of children, z fastest at each level
    resolution: int,
) -> Blocks:
    """What three subdivisions left row after row, as blocks."""
    channels = feats.shape[1]
    nested = feats.view(-1, *[2] * 9, channels)  # t, then (x, y, z) of each level, then c
    values = nested.permute(0, 10, 1, 4, 7, 2, 5, 8, 3, 6, 9)
    return Blocks(cells, values.reshape(-1, channels, *[EDGE] * 3), resolution)


def patch_starts(side: int, size: int) -> list[tuple[int, int, int]]:
    """Where the 27 patches of `size` begin in a grid of `side`: at 0, halfway and at the end."""
    stride = (side - size) // 2
    return [
        (i * stride, j * stride, k * stride) for i in range(3) for j in range(3) for k in range(3)
    ]
