"""Neighbours of voxels on a GPU, and the order in which convolution walks them.

Knows no features and no weights. Rows are sorted by which neighbours they have: rows of one tile
lack the same ones, and a tile skips what all its rows lack ("sorted implicit GEMM": the library of
Yan et al., SECOND, Sensors 2018; Tang et al., TorchSparse++, MICRO 2023). Here by a Gray code of
the mask, corners first, so that tiles across the border of two masks differ by few bits: on a
shell a tile of 128 rows computes 1.09 times the pairs there are, 1.64 times in the rows' own order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from models.nn.sparse_conv.triton_map_kernels import arrange_rows, rank_rows, search_neighbours

PADDING = 256  # rows of an arrangement come in multiples of the largest tile
VOLUME_LIMIT = 31  # neighbours of a row are bits of a non-negative int32
_BLOCK = 128


@dataclass(frozen=True)
class Arrangement:
    """A kernel map in the order of its walk, rows padded to a multiple of PADDING.

    n:     rows convolved.
    rows:  int32 [padded], which row is at each place; -1 behind the last.
    masks: int32 [padded], bit k where neighbour k exists; 0 behind the last.
    table: int32 [volume, padded], the row of each neighbour; -1 where none is.
    """

    n: int
    rows: Tensor
    masks: Tensor
    table: Tensor

    @property
    def volume(self) -> int:
        return self.table.shape[0]

    @property
    def padded(self) -> int:
        return self.table.shape[1]


def find_neighbours(
    keys: Tensor,  # int64 [N]
    known: Tensor,  # int64 [N], ascending
    known_rows: Tensor,  # int64 [N]
    step_x: int,
    step_y: int,
) -> Tensor:
    """int32 [27, N]: the row at (x + dx, y + dy, z + dz) of every row, -1 where none is.

    Offset k = 9 (dx + 1) + 3 (dy + 1) + dz + 1. A key grows by `step_x`, `step_y` and 1 along
    the axes; no two voxels share one, and a step never carries into another axis.
    """
    n = keys.shape[0]
    table = torch.empty((27, n), dtype=torch.int32, device=keys.device)
    search_neighbours[(triton.cdiv(n, _BLOCK),)](
        keys, known, known_rows, table, n, step_x, step_y, ROUNDS=n.bit_length(), BLOCK=_BLOCK
    )
    return table


def arrange(table: Tensor) -> Arrangement:  # int32 [volume, N], -1 where no neighbour is
    """The rows sorted by which neighbours they have; equal ones stay in their order."""
    volume, n = table.shape
    if volume > VOLUME_LIMIT:
        raise ValueError(f"A kernel of {volume} offsets has more than {VOLUME_LIMIT}.")

    def new(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.int32, device=table.device)

    masks, ranks = new(n), new(n)
    rank_rows[(triton.cdiv(n, _BLOCK),)](table, masks, ranks, n, VOLUME=volume, BLOCK=_BLOCK)
    order = torch.sort(ranks, stable=True).indices
    padded = triton.cdiv(n, PADDING) * PADDING
    arranged = Arrangement(n, new(padded), new(padded), new(volume, padded))
    arrange_rows[(triton.cdiv(padded, _BLOCK), volume)](
        table, masks, order, arranged.table, arranged.masks, arranged.rows, n, padded, BLOCK=_BLOCK
    )
    return arranged
