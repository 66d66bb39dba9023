"""The palette of spherical harmonics: few whole vectors that stand for the scene's many.

Does not know splats or textures: rows in, entries and labels out. Seeded k-means in two levels
(about sqrt(size) cells, then entries inside each cell), so that the work grows with N sqrt(size)
and not with N size; entries are then settled across the borders of neighbouring cells. A scene
with no more distinct vectors than entries is kept exactly.

The work is spread over threads here and not inside BLAS, which runs with one: the products are
small, and their sums must not depend on how many cores a machine has.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.splat_to_sog.layout import MAX_PALETTE

Float32 = NDArray[np.float32]
Labels = NDArray[np.intp]

CHUNK_FLOATS = 1 << 19  # distances a thread holds at once: 2 MB stay in its cache
ITERATIONS = 10
SETTLE_ITERATIONS = 2
NEIGHBOURS = 6  # cells searched for a row's entry: its own and the nearest others
SMALL_ROUND = 16  # entries that the last round of seeding draws at once
FLAT_SIZE = 256  # up to this many entries one level is as fast as two
SAMPLE_PER_CELL = 256  # rows an entry of the first level is trained on


@dataclass(frozen=True)
class Palette:
    entries: Float32  # [P, D]
    labels: Labels  # [N] nearest entry of each row


def default_size(count: int) -> int:
    """Entries for N splats: N below 1024, from there between N/2 and N, at most 65,536."""
    if count < 1024:
        return count
    return 1024 * min(64, 1 << int(math.log2(count / 1024)))


def build_palette(
    rows: Float32,  # [N, D] finite
    size: int,
    seed: int = 0,
    on_step: Callable[[float], None] = lambda fraction: None,
) -> Palette:
    """At most `size` entries of least squared error, and the nearest one for every row.

    on_step is called with the fraction done, often enough to stop by raising. Same rows, size and
    seed give the same palette.
    """
    size = min(size, MAX_PALETTE, len(rows))
    distinct, inverse, counts = unique_rows(rows)
    if len(distinct) <= size:
        return Palette(distinct, inverse)
    weights = counts.astype(np.float64)
    with threadpool_limits(1, "blas"), _threads() as pool:
        if size <= FLAT_SIZE:
            rng = np.random.default_rng(seed)
            entries, labels = k_means(distinct, weights, size, rng, pool, on_step=on_step)
        else:
            entries, labels = _two_level(distinct, weights, size, seed, pool, on_step)
    return _without_unused(entries, labels[inverse])


def relabel(rows: Float32, entries: Float32) -> Labels:
    """Nearest of `entries` ([P, D]) for each row: [N]. Exact up to 256 entries; above, among those
    of the cells closest to the row, which misses about one in a hundred by a little."""
    with threadpool_limits(1, "blas"), _threads() as pool:
        if len(entries) <= FLAT_SIZE:
            return nearest(rows, entries, pool)[0]
        return _nearest_by_cells(rows, entries, pool)


def unique_rows(rows: Float32) -> tuple[Float32, Labels, Labels]:
    """(distinct rows in order of first appearance, index of each row's, how often each occurs).

    By a 64-bit hash of the bits, verified: a collision falls back to sorting whole rows.
    """
    bits = np.ascontiguousarray(rows + np.float32(0)).view(np.uint32)  # -0 becomes +0
    keys = np.zeros(len(rows), np.uint64)
    for column in range(rows.shape[1]):
        keys = (keys ^ bits[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    _, first, inverse, counts = np.unique(
        keys, return_index=True, return_inverse=True, return_counts=True
    )
    if not np.array_equal(bits[first][inverse], bits):
        _, first, inverse, counts = np.unique(
            bits, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
    appearance = np.argsort(first, kind="stable")
    rank = np.empty_like(appearance)
    rank[appearance] = np.arange(len(appearance))
    return rows[first[appearance]], rank[inverse.ravel()], counts[appearance]


def nearest(
    rows: Float32, entries: Float32, pool: Executor | None = None
) -> tuple[Labels, Float32]:
    """(nearest entry, its squared distance) of each row, by chunked matrix products."""
    half = (entries**2).sum(axis=1) / 2  # [K]; |x-e|^2 = |x|^2 - 2 (x.e - |e|^2 / 2)
    labels = np.empty(len(rows), np.intp)
    score = np.empty(len(rows), np.float32)
    step = max(1, CHUNK_FLOATS // len(entries))

    def one(start: int) -> None:
        products = rows[start : start + step] @ entries.T
        products -= half
        chosen = products.argmax(axis=1)
        labels[start : start + step] = chosen
        score[start : start + step] = products[np.arange(len(chosen)), chosen]

    _each(one, range(0, len(rows), step), pool)
    return labels, np.maximum((rows**2).sum(axis=1) - 2 * score, 0)


def _threads() -> ThreadPoolExecutor:
    """One thread for each core this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux; elsewhere every core
    return ThreadPoolExecutor(len(affinity(0)) if affinity else os.cpu_count())


def _each(function: Callable[[int], None], items: range, pool: Executor | None) -> None:
    """function(item) for every item; each writes to a place of its own."""
    for _ in map(function, items) if pool is None else pool.map(function, items):
        pass


def nearest_reference(rows: Float32, entries: Float32) -> Labels:
    """The same labels from plain differences in double precision. For tests."""
    difference = rows[:, None, :].astype(np.float64) - entries[None, :, :]
    labels: Labels = (difference**2).sum(axis=2).argmin(axis=1)
    return labels


def k_means(
    rows: Float32,  # [N, D]
    weights: NDArray[np.float64],  # [N] how often each row counts
    size: int,  # 1..N
    rng: np.random.Generator,
    pool: Executor | None = None,
    iterations: int = ITERATIONS,
    on_step: Callable[[float], None] = lambda fraction: None,
) -> tuple[Float32, Labels]:
    """Lloyd's algorithm; the labels belong to the entries returned.

    An entry left without rows moves onto the row that is served worst.
    """
    if size >= len(rows):
        return rows.copy(), np.arange(len(rows))
    entries = _first_entries(rows, weights, size, rng, pool)
    labels, distances = nearest(rows, entries, pool)
    for iteration in range(iterations):
        on_step(iteration / iterations)
        entries = centroids(rows, weights, labels, entries)
        _repair_empty(entries, labels, rows, distances * weights)
        previous = labels
        labels, distances = nearest(rows, entries, pool)
        if np.array_equal(labels, previous):
            break
    return entries, labels


def _first_entries(
    rows: Float32,
    weights: NDArray[np.float64],
    size: int,
    rng: np.random.Generator,
    pool: Executor | None,
) -> Float32:
    """Half of the entries drawn evenly, the others in rounds, in proportion to the squared error
    so far, so that rare vectors are not missed. Bahmani et al., "Scalable k-means++", 2012."""
    chosen = rng.choice(len(rows), -(-size // 2), replace=False)
    best = np.full(len(rows), np.inf, np.float32)
    fresh = chosen
    while (left := size - len(chosen)) > 0:
        best = np.minimum(best, nearest(rows, rows[fresh], pool)[1])
        best[fresh] = 0
        odds = weights * best + 1e-30
        odds[chosen] = 0
        count = -(-left // 2) if left > SMALL_ROUND else left
        fresh = rng.choice(len(rows), count, replace=False, p=odds / odds.sum())
        chosen = np.concatenate([chosen, fresh])
    return rows[np.sort(chosen)]


def centroids(
    rows: Float32, weights: NDArray[np.float64], labels: Labels, entries: Float32
) -> Float32:
    """Weighted mean of each entry's rows; entries without rows stay where they are."""
    order = np.argsort(labels, kind="stable")
    sorted_labels = labels[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_labels[1:] != sorted_labels[:-1]]))
    w = weights[order]
    sums = np.add.reduceat(rows[order] * w[:, None], starts)
    out = entries.copy()
    out[sorted_labels[starts]] = sums / np.add.reduceat(w, starts)[:, None]
    return out


def _repair_empty(
    entries: Float32, labels: Labels, rows: Float32, errors: NDArray[np.floating]
) -> None:
    """Move each unused entry (in place) to one of the rows of largest weighted error."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(entries)) == 0)
    if len(empty):
        worst = np.argsort(-errors, kind="stable")[: len(empty)]
        entries[empty[: len(worst)]] = rows[worst]


def _two_level(
    rows: Float32,
    weights: NDArray[np.float64],
    size: int,
    seed: int,
    pool: Executor,
    on_step: Callable[[float], None],
) -> tuple[Float32, Labels]:
    # 1. cells: a coarse k-means on a sample
    rng = np.random.default_rng(seed)
    cells = max(2, int(math.sqrt(size)))
    sample = rng.choice(len(rows), min(len(rows), SAMPLE_PER_CELL * cells), replace=False)
    sample.sort()
    coarse, _ = k_means(rows[sample], weights[sample], cells, rng, pool)
    cell_of, distances = nearest(rows, coarse, pool)
    members = _members(cell_of, cells)
    on_step(0.1)

    # 2. entries inside each cell, as many as it deserves
    shares = _share_out(
        size,
        np.array([len(m) for m in members]),
        np.bincount(cell_of, weights * distances, minlength=cells).astype(np.float64),
        np.bincount(cell_of, weights, minlength=cells).astype(np.float64),
        rows.shape[1],
    )

    def entries_of(cell: int) -> Float32:
        member = members[cell]
        own = np.random.default_rng([seed, cell])  # whichever thread comes first
        return k_means(rows[member], weights[member], int(shares[cell]), own)[0]

    filled = np.flatnonzero(shares).tolist()
    fine = []
    for done, part in enumerate(pool.map(entries_of, filled)):
        on_step(0.1 + 0.6 * done / len(filled))
        fine.append(part)
    entries = np.concatenate(fine)

    # 3. settle entries across the borders of cells; the labels are those of the last entries
    labels = _nearest_by_cells(rows, entries, pool)
    for iteration in range(SETTLE_ITERATIONS):
        on_step(0.7 + 0.3 * iteration / SETTLE_ITERATIONS)
        entries = centroids(rows, weights, labels, entries)
        error = ((rows - entries[labels]) ** 2).sum(axis=1) * weights
        _repair_empty(entries, labels, rows, error)
        labels = _nearest_by_cells(rows, entries, pool)
    return entries, labels


def _share_out(
    size: int,
    members: Labels,  # [C] distinct rows of each cell: it can use no more entries
    error: NDArray[np.float64],  # [C] summed squared distance to the cell's centre
    weight: NDArray[np.float64],  # [C]
    dimensions: int,
) -> Labels:  # [C] summing to at most size
    """Entries for each cell: density to the power D/(D+2), as high-rate quantisation has it."""
    spread = np.sqrt(np.maximum(error / np.maximum(weight, 1), 1e-30))
    want = (weight * spread**2) ** (dimensions / (dimensions + 2))
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


def _nearest_by_cells(rows: Float32, entries: Float32, pool: Executor) -> Labels:
    """Nearest entry of each row among those in the NEIGHBOURS cells closest to it."""
    count = max(2, int(math.sqrt(len(entries))))
    rng = np.random.default_rng(len(entries))
    centres, cell_of = k_means(entries, np.ones(len(entries)), count, rng, pool, iterations=3)
    members = _members(cell_of, count)
    asked = _closest_cells(rows, centres, min(NEIGHBOURS, count), pool)

    def one(cell: int) -> tuple[Labels, Float32]:
        return nearest(rows[asked[cell]], entries[members[cell]])

    best = np.full(len(rows), np.inf, np.float32)
    labels = np.zeros(len(rows), np.intp)
    filled = [cell for cell in range(count) if len(asked[cell]) and len(members[cell])]
    for cell, (local, distance) in zip(filled, pool.map(one, filled), strict=True):
        closer = distance < best[asked[cell]]
        row = asked[cell][closer]
        best[row] = distance[closer]
        labels[row] = members[cell][local[closer]]
    return labels


def _closest_cells(
    rows: Float32, centres: Float32, reach: int, pool: Executor
) -> list[Labels]:  # for each centre: the rows that have it among their `reach` closest
    half = (centres**2).sum(axis=1) / 2
    close = np.empty((len(rows), reach), np.int32)
    step = max(1, CHUNK_FLOATS // len(centres))

    def one(start: int) -> None:
        products = half - rows[start : start + step] @ centres.T
        close[start : start + step] = np.argpartition(products, reach - 1, axis=1)[:, :reach]

    _each(one, range(0, len(rows), step), pool)
    return [pairs // reach for pairs in _members(close.ravel(), len(centres))]


def _members(labels: NDArray[np.integer], count: int) -> list[Labels]:
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.searchsorted(labels[order], np.arange(1, count)))


def _without_unused(entries: Float32, labels: Labels) -> Palette:
    used = np.unique(labels)
    return Palette(entries[used], np.searchsorted(used, labels))
