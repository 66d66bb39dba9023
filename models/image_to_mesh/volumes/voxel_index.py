"""Where a voxel lies in a list of voxels: sorted keys and a binary search, on any device.

Knows nothing of what the voxels hold, and makes no grid: a list of 50 million voxels takes 400 MB.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 20
"""Of a coordinate in a key: three of them, and two bits more for an axis, fit an int64."""
ROOM = (1 << BITS) - 2
"""Coordinates may be -1 to ROOM: one beyond a grid of this side, both ways."""


def key_of(coords: Tensor) -> Tensor:  # int [..., 3], from -1 -> int64 [...]
    """Ascends with (x, y, z), and a step of one along an axis always adds the same: `STEPS`."""
    x, y, z = (coords.long() + 1).unbind(-1)
    return (x << 2 * BITS) | (y << BITS) | z


STEPS = (1 << 2 * BITS, 1 << BITS, 1)
"""What a step along x, y and z adds to a key."""


def coords_of(keys: Tensor) -> Tensor:  # int64 [...] -> int64 [..., 3]
    mask = (1 << BITS) - 1
    return torch.stack((keys >> 2 * BITS, keys >> BITS & mask, keys & mask), dim=-1) - 1


class VoxelIndex:
    """keys: int64 [N], ascending, each once. Rows are of this order."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys

    def find(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Rows int64 and, where nothing is there, False; both in the shape of `keys`."""
        if len(self.keys) == 0:
            return torch.zeros_like(keys), torch.zeros_like(keys, dtype=torch.bool)
        rows = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return rows, self.keys[rows] == keys
