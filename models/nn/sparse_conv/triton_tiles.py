"""Which tile a convolution is cut into on which card, and into how many splits.

A table and two rules, without measurement: the same card and shape get the same plan, hence the
same rounding, in every process. Rows of sm_90 were measured (docs/benchmarks.md); the others are
sized by shared memory and registers and compiled ahead of time, not timed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch

Precision = Literal["ieee", "tf32", "tf32x3"]

_SPLITS = (1, 2, 3, 4, 6)
_SPLIT_COST = 6  # of launching the sum of splits, in steps of a tile
_SPLIT_TRAFFIC = 250_000  # elements of a partial sum written and read in the time of one step


@dataclass(frozen=True)
class Tile:
    """rows x (columns + tail) outputs a program, `depth` channels in a step.

    stages: of the pipeline. A gather is two loads in a row, index then features, so 5 stages keep
            two steps of features on their way; 4 keep one, and are up to 40 % slower.
    """

    rows: int
    columns: int
    tail: int
    depth: int
    warps: int
    stages: int

    @property
    def width(self) -> int:
        return self.columns + self.tail


@dataclass(frozen=True)
class Card:
    """Of a GPU: 10 * major + minor of its capability, and its multiprocessors."""

    capability: int
    processors: int


@dataclass(frozen=True)
class Problem:
    """What a plan depends on."""

    dtype: torch.dtype
    rows: int
    channels_in: int
    channels_out: int
    volume: int
    precision: Precision = "ieee"


@dataclass(frozen=True)
class Plan:
    """splits: programs that share a tile of outputs, each some of the offsets."""

    tile: Tile
    splits: int = 1
    precision: Precision = "ieee"


# By the least capability served, narrow to wide: widths of 2^n and 3 * 2^n, both frequent in
# networks. Features and weights of a stage in flight take (rows + width) * depth elements.
_HALF = {
    90: (  # 227 KB of shared memory a block; wgmma
        Tile(128, 32, 0, 64, 4, 5),
        Tile(128, 64, 0, 64, 4, 5),
        Tile(128, 64, 32, 64, 4, 5),
        Tile(128, 128, 0, 64, 4, 5),
        Tile(128, 64, 128, 32, 4, 7),
        Tile(128, 256, 0, 64, 8, 5),
    ),
    80: (  # 99 KB on sm_86, sm_89 and sm_120; mma.sync
        Tile(128, 32, 0, 32, 4, 5),
        Tile(128, 64, 0, 32, 4, 5),
        Tile(128, 64, 32, 32, 4, 5),
        Tile(128, 128, 0, 32, 8, 5),
        Tile(128, 128, 64, 32, 8, 5),
    ),
    75: (  # 64 KB, no asynchronous copies
        Tile(64, 32, 0, 32, 4, 2),
        Tile(128, 64, 0, 32, 4, 2),
        Tile(64, 64, 32, 32, 4, 2),
        Tile(64, 128, 0, 32, 4, 2),
    ),
}
_SINGLE = {
    90: (
        Tile(128, 32, 0, 32, 4, 5),
        Tile(128, 64, 0, 32, 4, 5),
        Tile(64, 64, 32, 32, 4, 5),
        Tile(64, 128, 0, 32, 4, 5),
    ),
    80: (
        Tile(64, 32, 0, 32, 4, 5),
        Tile(128, 64, 0, 16, 8, 5),
        Tile(128, 64, 32, 16, 8, 5),
    ),
    75: (Tile(64, 32, 0, 16, 4, 2), Tile(64, 64, 0, 16, 4, 2)),  # without matrix units
}


def tiles_of(capability: int, dtype: torch.dtype) -> tuple[Tile, ...]:
    """The tiles of a card and dtype, narrow to wide. wgmma is Hopper's alone; sm_120 is an 80."""
    table = _SINGLE if dtype == torch.float32 else _HALF
    if 90 <= capability < 100:
        return table[90]
    return table[80 if capability >= 80 else 75]


def precision_of(capability: int, dtype: torch.dtype, tf32: bool) -> Precision:
    """How fp32 is multiplied; 16-bit numbers are multiplied exactly in any case.

    "tf32x3": the matrix units multiply upper and lower parts of each mantissa, 11 bits each, in
    three products; as measured on sm_90, 3.6 times as fast as "ieee" and five times closer to fp64.
    """
    if dtype != torch.float32 or capability < 80:
        return "ieee"
    return "tf32" if tf32 else "tf32x3"


@lru_cache(4096)  # asked at every call
def choose_plan(card: Card, problem: Problem) -> Plan:
    """The widest of the tiles that compute the fewest channels in vain, as deep as Cin allows."""

    def in_vain(tile: Tile) -> tuple[int, int]:
        return -problem.channels_out % tile.width, -tile.width

    tile = min(tiles_of(card.capability, problem.dtype), key=in_vain)
    tile = replace(tile, depth=_depth(tile.depth, problem.channels_in))
    return Plan(tile, choose_splits(tile, card.processors, problem), problem.precision)


def _depth(most: int, channels: int) -> int:
    """The largest power of two up to `most` that divides the channels; else few masked steps."""
    depth = most
    while depth > 16 and channels % depth:
        depth //= 2
    if channels % depth == 0:
        return depth
    return min(most, max(16, 1 << (channels - 1).bit_length()))


def choose_splits(tile: Tile, processors: int, problem: Problem) -> int:
    """More than 1 where tiles alone would leave multiprocessors idle.

    Counts steps of a tile: waves of programs times the steps of each, and what summing costs.
    """
    tiles = -(-problem.rows // tile.rows) * -(-problem.channels_out // tile.width)
    steps = -(-problem.channels_in // tile.depth)
    slots = processors * (2 if tile.warps == 4 else 1)
    if tiles > 2 * slots:
        return 1  # tiles take unequal time, so the last wave is no whole one

    def cost(splits: int) -> float:
        once = -(-tiles * splits // slots) * -(-problem.volume // splits) * steps
        traffic = splits * problem.rows * problem.channels_out / _SPLIT_TRAFFIC
        return once + (_SPLIT_COST + traffic if splits > 1 else 0)

    return min((splits for splits in _SPLITS if splits <= problem.volume), key=cost)
