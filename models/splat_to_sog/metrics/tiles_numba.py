"""Bins packed Gaussians into 16 px tiles, compiled; each tile is sorted front to back for itself.

Does not draw. Import it inside functions only (see `models.compiled`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.compiled import (
    f32,
    filled,
    i64,
    inlined,
    kernel,
    taken,
    u32,
    u64,
)
from models.cores import usable_cores
from models.splat_to_sog.metrics.packed import HALF_HEIGHT, HALF_WIDTH, Packed, U, V
from models.splat_to_sog.metrics.rasterise import TILE_PX, Float32

PARTS_PER_CORE = 8  # tiles differ in work: small parts even it out
MAX_KEYS = 1 << 26  # 512 MB; only scenes of huge splats need more than one strip


@dataclass(frozen=True)
class Strip:
    """Rows of tiles first..last-1; tile t holds keys[starts[t] : starts[t + 1]], not yet sorted.

    A key is the Gaussian's depth above its index.
    """

    first: int  # tile
    last: int
    starts: NDArray[np.int64]  # [tiles of the picture + 1]
    keys: NDArray[np.uint64]

    def parts(self) -> list[slice]:
        """The tiles in slices of about equal work."""
        starts = self.starts[self.first : self.last + 1]
        limits = np.linspace(0, starts[-1], PARTS_PER_CORE * usable_cores() + 1)[1:-1]
        cuts = np.searchsorted(starts, limits)
        cuts = self.first + np.unique(np.concatenate([[0], cuts, [len(starts) - 1]]))
        return [slice(int(a), int(b)) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]

    def sort(self, part: slice) -> None:
        """Front to back, each tile of the part for itself."""
        limits = self.starts[part.start : part.stop + 1].tolist()
        for begin, end in zip(limits[:-1], limits[1:], strict=True):
            self.keys[begin:end].sort()


def strips(packed: Packed, width: int, height: int) -> Iterator[Strip]:
    """The picture in as few strips as keep the keys within MAX_KEYS; nearly always one."""
    columns, rows = -(-width // TILE_PX), -(-height // TILE_PX)
    starts = np.zeros(columns * rows + 1, np.int64)
    _count(packed.table, columns, rows, starts)
    ends = starts[::columns]  # of the rows of tiles
    top = 0
    while top < rows:
        bottom = max(top + 1, int(np.searchsorted(ends, ends[top] + MAX_KEYS, "right")) - 1)
        first, last = top * columns, bottom * columns
        local = starts - starts[first]
        keys = np.empty(local[last], np.uint64)
        _fill(packed.table, packed.depths, columns, top, bottom, local.copy(), keys)
        yield Strip(first, last, local, keys)
        top = bottom


@inlined
def _box(splat: Float32, columns: int, rows: int) -> tuple[int, int, int, int]:
    """First and last + 1 column, first and last + 1 row of tiles the Gaussian's box touches.

    Clipped before they become integers: a huge Gaussian's box has no limits.
    """
    scale, zero, one = np.float32(1 / TILE_PX), np.float32(0), np.float32(1)
    left = np.floor((splat[U] - splat[HALF_WIDTH]) * scale)
    right = np.floor((splat[U] + splat[HALF_WIDTH]) * scale) + one
    top = np.floor((splat[V] - splat[HALF_HEIGHT]) * scale)
    bottom = np.floor((splat[V] + splat[HALF_HEIGHT]) * scale) + one
    return (
        int(max(left, zero)),
        int(min(max(right, zero), np.float32(columns))),
        int(max(top, zero)),
        int(min(max(bottom, zero), np.float32(rows))),
    )


@kernel(taken(f32, 2), i64, i64, filled(i64, 1))
def _count(table: Float32, columns: int, rows: int, starts: NDArray[np.int64]) -> None:
    for i in range(len(table)):
        left, right, top, bottom = _box(table[i], columns, rows)
        for row in range(top, bottom):
            for column in range(left, right):
                starts[row * columns + column + 1] += 1
    for tile in range(1, len(starts)):
        starts[tile] += starts[tile - 1]


@kernel(taken(f32, 2), taken(u32, 1), i64, i64, i64, filled(i64, 1), filled(u64, 1))
def _fill(
    table: Float32,  # [M, COLUMNS]
    depths: NDArray[np.uint32],  # [M]
    columns: int,
    first: int,
    last: int,
    ends: NDArray[np.int64],  # [tiles]
    keys: NDArray[np.uint64],
) -> None:
    for i in range(len(table)):
        left, right, top, bottom = _box(table[i], columns, last)
        key = np.uint64(depths[i]) << np.uint64(32) | np.uint64(i)
        for row in range(max(top, first), bottom):
            for column in range(left, right):
                tile = row * columns + column
                keys[ends[tile]] = key
                ends[tile] += 1
