"""Builds the palette: rows in, entries and the nearest one of every row out, on CPU or GPU.

Does not know splats or textures. The page below is the whole way; `rate` chooses the size,
`k_means` and `device` do the work, `entries` makes the result small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from models.splat_to_sog.layout import MAX_PALETTE
from models.splat_to_sog.palette import rate
from models.splat_to_sog.palette.cells import nearest_by_cells
from models.splat_to_sog.palette.distinct import mostly_distinct, unique_rows
from models.splat_to_sog.palette.entries import on_levels, storing_order
from models.splat_to_sog.palette.k_means import no_step
from models.splat_to_sog.palette.nearest import FLAT_SIZE, nearest, threads
from models.splat_to_sog.palette.two_level import train
from models.splat_to_sog.scratch import chunks

Float32 = NDArray[np.float32]
Labels = NDArray[np.intp]
OnStep = Callable[[float], None]

TRAIN_ROWS = 1 << 20
"""Rows that entries are trained on; of more, an even draw."""

SMALLEST, LARGEST = 1e-12, 1e12


@dataclass(frozen=True)
class Palette:
    """step: entries lie on at most 256 values about this far apart; 0 where they were not moved."""

    entries: Float32  # [P, D]
    labels: Labels  # [N] nearest entry of each row
    step: float = 0.0


def build_palette(
    rows: Float32,  # [N, D] finite; may be a memory map
    size: int | None = None,
    seed: int = 0,
    on_step: OnStep = no_step,
    *,
    weights: NDArray[np.floating] | None = None,  # [N] >= 0, how much each row's error counts
    price: float | None = None,
    device: str = "cpu",
) -> Palette:
    """At most `size` entries of least weighted squared error, and the nearest one for every row.

    price: weighted squared error that one bit of the file is worth. Without a size, the one of
    least error + price x bits is taken (no price: `rate.default_price`). With a price or without
    a size, entries are also rounded to the step that the price pays for.
    A scene with no more distinct rows than entries is kept exactly.
    on_step is called with the fraction done, often enough to stop by raising. Same rows, weights,
    size, price, seed and kind of device: same palette, on any number of cores.
    Raises Unavailable for a device that is missing or lacks its libraries.
    """
    w = np.ones(len(rows), np.float32) if weights is None else _positive(weights)
    if exponent := _exponent(rows):
        rows = np.ldexp(rows, -exponent)
        price = None if price is None else math.ldexp(price, -2 * exponent)
        found = build_palette(
            rows, size, seed, on_step, weights=weights, price=price, device=device
        )
        step = math.ldexp(found.step, exponent)
        return Palette(np.ldexp(found.entries, exponent), found.labels, step)
    engine = _Cpu() if device == "cpu" else _Gpu(device)
    rounded = size is None or price is not None
    with engine:
        # 1. size
        if price is None:
            price = rate.default_price(rows, w)
        if size is None:
            size = rate.choose_size(rows, w, price, engine.trained(seed), seed)
        size = min(size, MAX_PALETTE, len(rows))
        on_step(0.1)

        # 2. few distinct rows are kept
        if not mostly_distinct(rows):
            distinct, inverse, _ = unique_rows(rows)
            if len(distinct) <= size and (not rounded or len(np.unique(distinct)) <= 256):
                return _ordered(distinct, inverse, 0.0)
            w_distinct = np.bincount(inverse, w, len(distinct)).astype(np.float32)
            rows, w = distinct, w_distinct
        else:
            inverse = None

        # 3. entries, trained on all rows or on a draw, then rounded
        entries = engine.train(*_draw(rows, w, seed), size, seed, lambda f: on_step(0.1 + 0.6 * f))
        step = 0.0
        if rounded:
            step = rate.entry_step(price, len(entries), float(w.sum(dtype=np.float64)))
            entries = on_levels(entries, step)
        on_step(0.8)

        # 4. labels of the entries as they are now
        labels = engine.label(rows, entries)
    return _ordered(entries, labels if inverse is None else labels[inverse], step)


def relabel(rows: Float32, entries: Float32, device: str = "cpu") -> Labels:
    """Nearest of `entries` ([P, D]) for each row: [N]. Exact up to 256 entries on the CPU; above,
    and on a GPU, the squared error is about 0.1 % above the least (`cells.REACH`) or less."""
    if exponent := _exponent(rows):
        rows, entries = np.ldexp(rows, -exponent), np.ldexp(entries, -exponent)
    with _Cpu() if device == "cpu" else _Gpu(device) as engine:
        return engine.label(rows, entries)


class _Cpu:
    def __enter__(self) -> _Cpu:
        self.limits = threadpool_limits(1, "blas")
        self.pool = threads()
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.limits.restore_original_limits()

    def train(
        self, rows: Float32, weights: Float32, size: int, seed: int, on_step: OnStep = no_step
    ) -> Float32:
        return train(rows, weights, size, seed, self.pool, on_step)

    def trained(self, seed: int) -> rate.Train:
        def run(rows: Float32, weights: Float32, size: int) -> tuple[Float32, float]:
            entries = self.train(rows, weights, size, seed)
            _, distance = self._search(rows, entries)
            return entries, float(np.average(distance, weights=weights))

        return run

    def _search(self, rows: Float32, entries: Float32) -> tuple[Labels, Float32]:
        if len(entries) <= FLAT_SIZE:
            return nearest(rows, entries, self.pool)
        return nearest_by_cells(rows, entries, self.pool)

    def label(self, rows: Float32, entries: Float32) -> Labels:
        return self._search(rows, entries)[0]


class _Gpu:
    def __init__(self, device: str) -> None:
        from models.splat_to_sog.palette import device as gpu

        self.gpu, self.device = gpu, device
        gpu.import_cupy(device)

    def __enter__(self) -> _Gpu:
        return self

    def __exit__(self, *error: object) -> None:
        """Its arrays die with their names."""

    def train(
        self, rows: Float32, weights: Float32, size: int, seed: int, on_step: OnStep = no_step
    ) -> Float32:
        entries, _ = self.gpu.train(rows, weights, size, seed, self.device, on_step)
        return entries

    def trained(self, seed: int) -> rate.Train:
        def run(rows: Float32, weights: Float32, size: int) -> tuple[Float32, float]:
            found: tuple[Float32, float] = self.gpu.train(rows, weights, size, seed, self.device)
            return found

        return run

    def label(self, rows: Float32, entries: Float32) -> Labels:
        return self.gpu.relabel(rows, entries, self.device)


def _exponent(rows: Float32) -> int:
    """Power of two to take out of rows whose squares single precision cannot hold; 0 for others,
    which is every real scene."""
    peak = max((float(np.abs(rows[part]).max()) for part in chunks(len(rows))), default=0.0)
    return 0 if peak == 0 or SMALLEST < peak < LARGEST else math.frexp(peak)[1]


def _positive(weights: NDArray[np.floating]) -> Float32:
    """Weights as floats; a row of no weight still counts for a millionth of the mean, so that no
    entry is without weight."""
    w = weights.astype(np.float32)
    mean = float(w.mean())
    return np.maximum(w, np.float32(1e-6 * mean)) if mean > 0 else np.ones_like(w)


def _draw(rows: Float32, weights: Float32, seed: int) -> tuple[Float32, Float32]:
    if len(rows) <= TRAIN_ROWS:
        return rows, weights
    index = np.random.default_rng(seed).choice(len(rows), TRAIN_ROWS, replace=False)
    index.sort()
    return rows[index], weights[index]


def _ordered(entries: Float32, labels: Labels, step: float) -> Palette:
    """Without entries that no row uses, in the order that compresses."""
    uses = np.bincount(labels, minlength=len(entries))
    kept = np.flatnonzero(uses)
    order = kept[storing_order(entries[kept], uses[kept])]
    renumbered = np.empty(len(entries), np.intp)
    renumbered[order] = np.arange(len(order))
    return Palette(entries[order], renumbered[labels], step)
