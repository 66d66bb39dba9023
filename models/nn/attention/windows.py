"""Windows of a voxel grid: which rows of a sparse tensor attend to one another, found once a level.

Knows no features. A window is a cube of voxels; every second block shifts the grid of windows by
half a window (Liu et al., "Swin Transformer", 2021). The shift is added to the coordinate and
nothing wraps around: windows at the border are smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.nn.attention.segments import Segments
from models.nn.sites import Sites, pack


@dataclass(frozen=True)
class Window:
    """size: edge in voxels. shift: what is added to each coordinate before it is divided."""

    size: int
    shift: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.shift < self.size:
            raise ValueError(
                f"window of size {self.size} and shift {self.shift}: "
                "size must be at least 1 and shift from 0 to size - 1"
            )


@dataclass(frozen=True)
class Partition:
    """Rows in the order of their windows: `order` takes them there, `back` returns them."""

    order: Tensor  # int64 [N], row at each place
    back: Tensor  # int64 [N], place of each row
    windows: Segments  # rows of each window; no window is empty


def partition(sites: Sites, window: Window) -> Partition:
    """The partition of these sites, kept with them: all blocks of a level share it."""
    return sites.cached(("windows", window), lambda: make_partition(sites.coords, window))


def make_partition(
    coords: Tensor,  # int32 [N, 4] of (b, x, y, z)
    window: Window,
) -> Partition:
    """Windows ascend by batch item, then x, y, z; rows of one keep their order."""
    cubes = coords.clone()
    cubes[:, 1:] = (coords[:, 1:] + window.shift).div(window.size, rounding_mode="floor")
    keys, order = torch.sort(pack(cubes), stable=True)
    counts = torch.unique_consecutive(keys, return_counts=True)[1]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return Partition(order, back, Segments(counts.tolist()))
