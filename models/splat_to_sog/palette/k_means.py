"""Seeded, weighted k-means on the CPU.

Does not choose how many entries, and compares every row with every entry: `two_level` does less.
"""

from __future__ import annotations

from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.palette.nearest import Float32, Labels, nearest
from models.splat_to_sog.stages import OnStep

Weights = NDArray[np.float32]

ITERATIONS = 10
SMALL_ROUND = 16  # entries that the last round of seeding draws at once
CHUNK_ROWS = 1 << 17  # rows summed at once


def no_step(fraction: float) -> None:
    """Nobody watches."""


def k_means(
    rows: Float32,  # [N, D]
    weights: Weights,  # [N] how much each row counts
    size: int,  # 1..N
    rng: np.random.Generator,
    pool: Executor | None = None,
    iterations: int = ITERATIONS,
    on_step: OnStep = no_step,
) -> tuple[Float32, Labels]:
    """Lloyd's algorithm; the labels belong to the entries returned.

    An entry left without rows moves onto the row that is served worst.
    """
    if size >= len(rows):
        return np.array(rows), np.arange(len(rows))
    entries = _first_entries(rows, weights, size, rng, pool)
    labels, distances = nearest(rows, entries, pool)
    for iteration in range(iterations):
        on_step(iteration / iterations)
        entries = centroids(rows, weights, labels, entries)
        repair_empty(entries, labels, rows, distances * weights)
        previous = labels
        labels, distances = nearest(rows, entries, pool)
        if np.array_equal(labels, previous):
            break
    return entries, labels


def _first_entries(
    rows: Float32, weights: Weights, size: int, rng: np.random.Generator, pool: Executor | None
) -> Float32:
    """Half of the entries drawn evenly, the others in rounds, in proportion to the squared error
    so far, so that rare vectors are not missed. Bahmani et al., "Scalable k-means++", 2012."""
    chosen = rng.choice(len(rows), -(-size // 2), replace=False)
    best = np.full(len(rows), np.inf, np.float32)
    fresh = chosen
    while (left := size - len(chosen)) > 0:
        best = np.minimum(best, nearest(rows, rows[fresh], pool)[1])
        best[fresh] = 0
        odds = weights.astype(np.float64) * best + 1e-30
        odds[chosen] = 0
        count = -(-left // 2) if left > SMALL_ROUND else left
        fresh = rng.choice(len(rows), count, replace=False, p=odds / odds.sum())
        chosen = np.concatenate([chosen, fresh])
    return rows[np.sort(chosen)]


def centroids(rows: Float32, weights: Weights, labels: Labels, entries: Float32) -> Float32:
    """Weighted mean of each entry's rows; entries without weight stay where they are.

    Sums are doubles, taken in the order of the rows: no copy of a scene, no change with cores.
    """
    size, d = entries.shape
    sums = np.zeros((d, size))
    total = np.zeros(size)
    for start in range(0, len(rows), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        columns = np.ascontiguousarray((rows[part] * weights[part, None]).T)
        total += np.bincount(labels[part], weights[part], size)
        for column in range(d):
            sums[column] += np.bincount(labels[part], columns[column], size)
    served = total > 0
    out = entries.copy()
    out[served] = (sums[:, served] / total[served]).T
    return out


def repair_empty(
    entries: Float32, labels: Labels, rows: Float32, errors: NDArray[np.floating]
) -> None:
    """Move each unused entry (in place) to one of the rows of largest weighted error."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(entries)) == 0)
    if len(empty):
        worst = np.argsort(-errors, kind="stable")[: len(empty)]
        entries[empty[: len(worst)]] = rows[worst]
