"""k-means with thousands of entries on the CPU, in two levels.

Does not choose how many. About sqrt(size) cells, then entries inside each, make the work grow with
N sqrt(size) and not with N size; entries are then settled across the borders of neighbouring cells.
"""

from __future__ import annotations

import math
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.palette.cells import nearest_by_cells
from models.splat_to_sog.palette.k_means import (
    Weights,
    centroids,
    k_means,
    no_step,
    repair_empty,
)
from models.splat_to_sog.palette.nearest import FLAT_SIZE, Float32, Labels, members, nearest
from models.splat_to_sog.stages import OnStep

Float64 = NDArray[np.float64]

SETTLE_ITERATIONS = 2
SETTLE_REACH = 8  # cells searched while entries still move
SAMPLE_PER_CELL = 256  # rows an entry of the first level is trained on


def train(
    rows: Float32,
    weights: Weights,
    size: int,
    seed: int,
    pool: Executor,
    on_step: OnStep = no_step,
) -> tuple[Float32, Float64]:
    """(at most `size` entries [K, D] for weighted rows, the weight that each serves [K]), by
    whichever way suits the size."""
    if size <= FLAT_SIZE or size >= len(rows):
        rng = np.random.default_rng(seed)
        entries, labels = k_means(rows, weights, size, rng, pool, on_step=on_step)
        return entries, np.bincount(labels, weights, len(entries)).astype(np.float64)
    return two_level(rows, weights, size, seed, pool, on_step)


def two_level(
    rows: Float32,
    weights: Weights,
    size: int,
    seed: int,
    pool: Executor,
    on_step: OnStep = no_step,
) -> tuple[Float32, Float64]:
    # 1. cells: a coarse k-means on a sample
    rng = np.random.default_rng(seed)
    cells = max(2, int(math.sqrt(size)))
    sample = rng.choice(len(rows), min(len(rows), SAMPLE_PER_CELL * cells), replace=False)
    sample.sort()
    coarse, _ = k_means(rows[sample], weights[sample], cells, rng, pool)
    cell_of, distances = nearest(rows, coarse, pool)
    inside = members(cell_of, cells)
    on_step(0.1)

    # 2. entries inside each cell, as many as it deserves
    shares = share_out(
        size,
        np.array([len(m) for m in inside]),
        np.bincount(cell_of, weights * distances, cells).astype(np.float64),
        np.bincount(cell_of, weights, cells).astype(np.float64),
        rows.shape[1],
    )

    def entries_of(cell: int) -> Float32:
        own = np.random.default_rng([seed, cell])  # whichever thread comes first
        index = inside[cell]
        return k_means(rows[index], weights[index], int(shares[cell]), own)[0]

    filled = np.flatnonzero(shares).tolist()
    fine = []
    for done, part in enumerate(pool.map(entries_of, filled)):
        on_step(0.1 + 0.6 * done / len(filled))
        fine.append(part)
    entries = np.concatenate(fine)

    # 3. settle entries across the borders of cells
    for iteration in range(SETTLE_ITERATIONS):
        on_step(0.7 + 0.3 * iteration / SETTLE_ITERATIONS)
        labels, distances = nearest_by_cells(rows, entries, pool, SETTLE_REACH)
        entries = centroids(rows, weights, labels, entries)
        repair_empty(entries, labels, rows, distances * weights)
    return entries, np.bincount(labels, weights, len(entries)).astype(np.float64)


def share_out(
    size: int,
    members: Labels,  # [C] distinct rows of each cell: it can use no more entries
    error: NDArray[np.float64],  # [C] summed squared distance to the cell's centre
    weight: NDArray[np.float64],  # [C]
    dimensions: int,
) -> Labels:  # [C] summing to at most size
    """Entries for each cell: density to the power D/(D+2), as high-rate quantisation has it."""
    spread = error / np.maximum(weight, 1e-30)
    want = (weight * spread) ** (dimensions / (dimensions + 2))
    shares = np.minimum(members, 1)
    for _ in range(64):  # what full cells cannot take goes to the others
        left = size - int(shares.sum())
        open_ = shares < members
        if left <= 0 or not open_.any():
            break
        wish = np.where(open_, np.maximum(want, 1e-30), 0)
        extra = np.floor(left * wish / wish.sum()).astype(np.intp)
        if not extra.any():
            top = np.argsort(-wish, kind="stable")[: min(left, int(open_.sum()))]
            extra[top] = 1
        shares = np.minimum(shares + extra, members)
    return shares
