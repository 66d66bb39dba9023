"""Builds the palette: rows in, entries and the nearest one of every row out, on CPU or GPU.

Does not know splats or textures. The page below is the whole way; `rate` chooses the size,
`engines` do the work on either device, `rounding` and `entries` make the result small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.layout import BOOK as LEVELS
from models.splat_to_sog.layout import MAX_PALETTE, PALETTE_COLUMNS
from models.splat_to_sog.palette import rate
from models.splat_to_sog.palette.distinct import mostly_distinct, unique_rows
from models.splat_to_sog.palette.engines import Engine, engine_of
from models.splat_to_sog.palette.entries import storing_order
from models.splat_to_sog.palette.k_means import no_step
from models.splat_to_sog.palette.rounding import round_entries
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.stages import OnStep
from models.splat_to_sog.threads import in_threads

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Labels = NDArray[np.intp]

TRAIN_ROWS = 1 << 20
"""Rows that entries are trained on; of more, an even draw."""

FEW_ROWS = 2 * PALETTE_COLUMNS  # so few may all have their own entry

SMALLEST, LARGEST = 1e-12, 1e12
PART_ROWS = 1 << 14  # that a thread passes over at once

NEAR_SIZE, NEAR_PRICE = 1.5, 1.5
"""Factors within which entries and labels are kept from one price to the next. Labels of a price
1.5 times as high or low cost under 0.01 dB."""


@dataclass(frozen=True)
class Palette:
    """own: every distinct row has its entry, in the order of the rows, and none was searched."""

    entries: Float32  # [P, D]
    labels: Labels  # [N] nearest entry of each row
    own: bool = False


def build_palette(
    rows: Float32,  # [N, 3K] finite, channel-major as f_rest is; may be a memory map
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
    least error + price x bits is taken (no price: `rate.default_price`). With a price or without a
    size, entries are also rounded as far as the price pays for it (`rounding`).
    A scene with no more distinct rows than entries is kept exactly.
    on_step is called with the fraction done, often enough to stop by raising. Same rows, weights,
    size, price, seed and kind of device: same palette, on any number of cores.
    Raises Unavailable for a device that is missing or lacks its libraries.
    """
    return Palettes(rows, size, seed, weights=weights, device=device).at(price, on_step)


@dataclass
class _Trained:
    """Entries before rounding; labels of them as rounded at `price`, once those were searched."""

    size: int  # that was asked for
    entries: Float32
    served: Float64  # [P] weight of all rows that each stands for
    labels: Labels | None = None
    price: float = 0.0


class Palettes:
    """The palettes of the same rows at one price after another; the first is `build_palette`'s.

    What sizes cost and lose is measured once. Entries are trained again where a price deserves a
    size that is not within NEAR_SIZE of theirs, and labels searched again where it is not within
    NEAR_PRICE of the one they were searched at; rounding is always the price's own.
    """

    def __init__(
        self,
        rows: Float32,  # as `build_palette`'s
        size: int | None = None,
        seed: int = 0,
        *,
        weights: NDArray[np.floating] | None = None,
        device: str = "cpu",
    ) -> None:
        self.size, self.seed, self.device = size, seed, device
        self._exponent = _exponent(rows)
        self.rows = np.ldexp(rows, -self._exponent) if self._exponent else rows
        self.weights = np.ones(len(rows), np.float32) if weights is None else _positive(weights)
        self._kept: _Trained | None = None

    @cached_property
    def trade(self) -> rate.Trade | None:
        """What sizes cost and lose; None for rows so few that it does not matter."""
        few = len(self.rows) <= FEW_ROWS
        return None if few else measure(self.rows, self.weights, self.seed, self.device)

    def predicted(self, price: float) -> rate.Choice | None:
        """What the palette at this price takes and loses, about; None where no one knows."""
        if self.trade is None:
            return None
        found = self.trade.at(math.ldexp(price, -2 * self._exponent), self.size)
        return replace(found, error=math.ldexp(found.error, 2 * self._exponent))

    def at(self, price: float | None, on_step: OnStep = no_step) -> Palette:
        """The palette at this price; see `build_palette`."""
        exponent = self._exponent
        found = self._at(None if price is None else math.ldexp(price, -2 * exponent), on_step)
        return replace(found, entries=np.ldexp(found.entries, exponent)) if exponent else found

    def _at(self, price: float | None, on_step: OnStep) -> Palette:
        rows, w, size = self.rows, self.weights, self.size
        rounded = size is None or price is not None

        # 1. size
        if price is None:
            price = rate.default_price(rows, w)
        if size is None and self.trade is not None:
            size = self.trade.at(price).size
        size = min(size or MAX_PALETTE, MAX_PALETTE, len(rows))
        on_step(0.1)

        # 2. few distinct rows are kept, and exactly if their values fit a codebook
        inverse = None
        if self._distinct is not None:
            rows, inverse = self._distinct
            if len(rows) <= size and (not rounded or len(np.unique(rows)) <= LEVELS):
                return _ordered(rows, inverse, w)
            w = np.bincount(inverse, w, len(rows)).astype(np.float32)
        if rounded and size >= len(rows):
            entries = round_entries(rows, w.astype(np.float64), price, self.device)
            return Palette(entries, np.arange(len(rows)) if inverse is None else inverse, True)

        with engine_of(self.device) as engine:
            # 3. entries, trained on all rows or on a draw, then rounded
            kept = self._trained(engine, rows, w, size, lambda f: on_step(0.1 + 0.6 * f))
            entries = kept.entries
            if rounded:
                entries = round_entries(entries, kept.served, price, self.device)
            on_step(0.8)

            # 4. labels of the entries as they are now, or as they were at nearly this price
            if kept.labels is None or not _near(price, kept.price, NEAR_PRICE):
                kept.labels, kept.price = engine.label(rows, entries), price
        labels = kept.labels
        return _ordered(entries, labels if inverse is None else labels[inverse], self.weights)

    @cached_property
    def _distinct(self) -> tuple[Float32, Labels] | None:
        """(distinct rows, the one of each row) where rows repeat, else None."""
        if mostly_distinct(self.rows):
            return None
        distinct, inverse, _ = unique_rows(self.rows)
        return distinct, inverse

    def _trained(
        self, engine: Engine, rows: Float32, weights: Float32, size: int, on_step: OnStep
    ) -> _Trained:
        if self._kept is None or not _near(size, self._kept.size, NEAR_SIZE):
            self._kept = None  # frees what it holds before more is needed
            part, part_weights = _draw(rows, weights, self.seed)
            entries, served = engine.train(part, part_weights, size, self.seed, on_step)
            self._kept = _Trained(size, entries, served * (len(rows) / len(part)))
        return self._kept


def _near(one: float, other: float, factor: float) -> bool:
    return max(one, other) <= factor * min(one, other)


def measure(
    rows: Float32, weights: NDArray[np.floating], seed: int = 0, device: str = "cpu"
) -> rate.Trade:
    """What palettes of these rows cost and lose, at any price: from a sample."""
    with engine_of(device) as engine:
        return rate.measure(rows, _positive(weights), engine.trained(seed), seed, device)


def relabel(rows: Float32, entries: Float32, device: str = "cpu") -> Labels:
    """Nearest of `entries` ([P, D]) for each row: [N]. Exact up to 256 entries on the CPU; above,
    and on a GPU, the squared error is about 0.1 % above the least (`cells.REACH`) or less."""
    if exponent := _exponent(rows):
        rows, entries = np.ldexp(rows, -exponent), np.ldexp(entries, -exponent)
    with engine_of(device) as engine:
        return engine.label(rows, entries)


def _exponent(rows: Float32) -> int:
    """Power of two to take out of rows whose squares single precision cannot hold; 0 for others,
    which is every real scene."""

    def peak_of(part: slice) -> float:
        return max(float(rows[part].max()), -float(rows[part].min()))

    peak = max(in_threads(peak_of, chunks(len(rows), PART_ROWS)), default=0.0)
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
    drawn = np.empty((TRAIN_ROWS, rows.shape[1]), np.float32)

    def take(part: slice) -> None:
        drawn[part] = rows[index[part]]

    in_threads(take, chunks(TRAIN_ROWS, PART_ROWS))
    return drawn, weights[index]


def _ordered(entries: Float32, labels: Labels, weights: Float32) -> Palette:
    """Without entries that no row uses, in the order that compresses."""
    served = np.bincount(labels, weights, len(entries)).astype(np.float64)
    kept = np.flatnonzero(np.bincount(labels, minlength=len(entries)))
    order = kept[storing_order(entries[kept], served[kept])]
    renumbered = np.empty(len(entries), np.intp)
    renumbered[order] = np.arange(len(order))
    return Palette(entries[order], renumbered[labels])
