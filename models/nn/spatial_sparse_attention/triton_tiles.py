"""How large the tiles of each kernel are on which card, with how many warps and stages.

A table, without measurement: the same card gets the same tiles, hence the same rounding, in every
process. They were measured on sm_90 (docs/benchmarks.md); on other cards they fit shared memory and
registers, compiled ahead of time, but were not timed.
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


def choice_warps(size: int) -> int:
    """Warps of `choose_blocks` for so many blocks, a power of two."""
    return min(32, max(1, size // BLOCKS_PER_WARP))


_MODERN = Tiles(Tile(128, 64, 4, 3), Tile(128, 32, 4, 2), Tile(64, 64, 4, 2), Tile(16, 32, 1, 3))
_TURING = Tiles(Tile(64, 64, 4, 2), Tile(64, 32, 4, 2), Tile(64, 64, 4, 2), Tile(16, 32, 1, 2))


def tiles_of(capability: int) -> Tiles:
    """Of 10 * major + minor. sm_75 has 64 KB of shared memory and no asynchronous copies."""
    return _MODERN if capability >= 80 else _TURING
