"""The nearest of thousands of entries for every row: only those of the closest cells are compared.

Does not move entries. Cells are a k-means of the entries themselves, about sqrt(K) of them.
"""

from __future__ import annotations

import math
from concurrent.futures import Executor

import numpy as np

from models.splat_to_sog.palette.k_means import k_means
from models.splat_to_sog.palette.nearest import (
    CHUNK_FLOATS,
    Float32,
    Labels,
    each,
    members,
    nearest,
)

CHUNK_ROWS = 1 << 18  # rows searched at once: bounds the lists of which cell asks what
REACH = 16
"""Cells searched for a row's entry: its own and the nearest others.

Measured, 200,000 rows and 65,514 entries in 255 cells: 8 cells miss 2.1 % of the rows and 0.85 % of
the squared error, 16 cells 0.4 % and 0.10 %, 24 cells 0.08 % and 0.05 %."""


def nearest_by_cells(
    rows: Float32, entries: Float32, pool: Executor, reach: int = REACH
) -> tuple[Labels, Float32]:
    """As `nearest`, among the entries of the `reach` cells whose centres are closest to the row."""
    count = max(2, int(math.sqrt(len(entries))))
    rng = np.random.default_rng(len(entries))
    ones = np.ones(len(entries), np.float32)
    centres, cell_of = k_means(entries, ones, count, rng, pool, iterations=3)
    inside = members(cell_of, count)
    of_cell = [entries[index] for index in inside]
    labels = np.zeros(len(rows), np.intp)
    distance = np.full(len(rows), np.inf, np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        part = rows[start : start + CHUNK_ROWS]
        asked = _asked(part, centres, min(reach, count), pool)
        best, found = distance[start : start + len(part)], labels[start : start + len(part)]

        def one(
            cell: int, part: Float32 = part, asked: list[Labels] = asked
        ) -> tuple[Labels, Float32]:
            return nearest(part[asked[cell]], of_cell[cell])

        filled = [cell for cell in range(count) if len(asked[cell]) and len(inside[cell])]
        for cell, (local, gap) in zip(filled, pool.map(one, filled), strict=True):
            closer = gap < best[asked[cell]]
            row = asked[cell][closer]
            best[row] = gap[closer]
            found[row] = inside[cell][local[closer]]
    return labels, distance


def _asked(
    rows: Float32, centres: Float32, reach: int, pool: Executor
) -> list[Labels]:  # for each centre: the rows that have it among their `reach` closest
    half = (centres**2).sum(axis=1) / 2
    close = np.empty((len(rows), reach), np.int32)
    step = max(1, CHUNK_FLOATS // len(centres))

    def one(start: int) -> None:
        products = half - rows[start : start + step] @ centres.T
        close[start : start + step] = np.argpartition(products, reach - 1, axis=1)[:, :reach]

    each(one, range(0, len(rows), step), pool)
    return [pairs // reach for pairs in members(close.ravel(), len(centres))]
