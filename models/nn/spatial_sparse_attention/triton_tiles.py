"""How large the tiles of each kernel are on which card, with how many warps and stages.

A table, without measurement: the same card gets the same tiles, hence the same rounding, in every
process. Rows of sm_90 were measured (docs/benchmarks.md); the others are sized by shared memory and
registers and compiled ahead of time, not timed.
"""

from __future__ import annotations

from dataclasses import dataclass

SCRATCH_BYTES = 128 << 20
"""For scores of some queries and all blocks, at once: they are read again while in L2."""

BLOCKS_PER_WARP = 512
"""Of `choose_blocks`, which holds the scores of all blocks of an item in registers."""


@dataclass(frozen=True)
class Tile:
    """rows: of a product, voxels times heads; keys: its columns, in a step or in all."""

    rows: int
    keys: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Tiles:
    """compression, window: of `attend_tiles`; score: of `score_blocks`; chosen: `attend_chosen`."""

    compression: Tile
    window: Tile
    score: Tile
    chosen: Tile


_TILES = {
    90: Tiles(Tile(128, 64, 4, 3), Tile(128, 32, 4, 2), Tile(64, 64, 4, 2), Tile(16, 32, 1, 3)),
    80: Tiles(Tile(128, 64, 4, 3), Tile(128, 32, 4, 2), Tile(64, 64, 4, 2), Tile(16, 32, 1, 3)),
    75: Tiles(Tile(64, 64, 4, 2), Tile(64, 32, 4, 2), Tile(64, 64, 4, 2), Tile(16, 32, 1, 2)),
}


def choice_warps(size: int) -> int:
    """Warps of `choose_blocks` for so many blocks, a power of two."""
    return min(32, max(1, size // BLOCKS_PER_WARP))


def tiles_of(capability: int) -> Tiles:
    """Of 10 * major + minor. sm_120 has the shared memory of an 80."""
    if 90 <= capability < 100:
        return _TILES[90]
    return _TILES[80 if capability >= 80 else 75]
