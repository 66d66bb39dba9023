"""How many entries a scene is worth, and what they cost: rate against distortion.

Does not build a palette. k-means at a few sizes on a sample gives the curve
D(K) = c K^-a (1 - K/N)^b: a power law, times what is gained because the rows to be coded are the
rows it was trained on. With what labels and rounded entries cost (`rounding`), the size of least
distortion + price x bits follows, and what that size takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.layout import MAX_PALETTE, PALETTE_COLUMNS
from models.splat_to_sog.palette.rounding import rounded
from models.splat_to_sog.threads import in_threads

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Train = Callable[[Float32, NDArray[np.float32], int], tuple[Float32, Float64, float]]
"""(rows, weights, size) -> (entries, weight that each serves, weighted mean squared error)."""

SAMPLE_ROWS = 1 << 14
SAMPLE_SIZES = (128, 32, 8, 4)  # rows per entry at which the curve is measured
RELATIVE_PRICE = 0.006
"""Of a row's mean energy, per bit."""
ROUNDED_ENTRIES = 2048  # of the curve's largest palette: what coarse steps cost is read off these
ROUNDED_PRICES = np.exp2(np.arange(-26.0, 3.0, 2.0))  # per entry's energy, where it is read off

LABEL_SHARE = 0.97  # of log2 K: labels as coded, uses being uneven
ENTRY_SHARE = 1.22  # of ideal codes: entries as coded, those of one step together
OWN_ENTRY_SHARE = 1.2  # the same where every row has its own entry, in the order of the rows
OWN_LABEL_BITS = 0.1  # of a label that counts on from the one before


@dataclass(frozen=True)
class Curve:
    """Weighted mean squared error of K entries for N rows."""

    c: float
    a: float
    b: float

    def __call__(self, size: int, count: int) -> float:
        return self.c * math.pow(size, -self.a) * math.pow(max(1 - size / count, 0), self.b)


@dataclass(frozen=True)
class Choice:
    """The best size at a price; bits of labels and entries; weighted squared error of all rows."""

    size: int
    bits: float
    error: float


@dataclass(frozen=True)
class Trade:
    """What a scene's palettes cost and what they lose; measured once, asked at any price."""

    count: int  # N rows
    total: float  # summed weight of all rows
    curve: Curve | None  # None: no error is left at the sample's largest size
    entries: Float32  # [P, D] of a palette of the sample
    served: Float64  # [P] weight of each, 1 on average
    device: str = "cpu"

    def at(self, price: float, size: int | None = None) -> Choice:
        """Of least error + price x bits; of the size that is given, if one is."""
        largest = min(self.count, MAX_PALETTE)
        best, least = Choice(largest, 0.0, 0.0), math.inf
        for asked in [size] if size else sizes(largest):
            entries = min(asked, largest)
            bits, error = self._rounded(price * entries / self.total)
            lost = 0.0
            if entries < self.count:
                bits = entries * ENTRY_SHARE * bits + self.count * LABEL_SHARE * math.log2(entries)
                lost = self.curve(entries, self.count) if self.curve else 0.0
            else:
                bits = entries * (OWN_ENTRY_SHARE * bits + OWN_LABEL_BITS)
            error = self.total * (lost + error)
            if error + price * bits < least:
                best, least = Choice(entries, bits, error), error + price * bits
        return best

    def _rounded(self, price: float) -> tuple[float, float]:
        """(bits, squared error) of a mean entry at a price per unit of weight served."""
        at, bits, error = self._table
        x = math.log(max(price, 1e-300))
        return float(np.interp(x, at, bits)), float(np.exp(np.interp(x, at, error)))

    @cached_property
    def _table(self) -> tuple[Float64, Float64, Float64]:
        """(logarithms of prices, bits, logarithms of squared errors) of a mean entry."""
        energy = float((self.entries.astype(np.float64) ** 2).mean()) or 1.0
        prices = ROUNDED_PRICES * energy

        def one(price: float) -> tuple[float, float]:
            found, cost = rounded(self.entries, self.served, price, self.device)
            gap = ((self.entries - found).astype(np.float64) ** 2).sum(axis=1)
            lost = max(float((self.served * gap).mean()), 1e-30 * energy)
            return cost / len(self.entries), math.log(lost)

        most = None if self.device == "cpu" else 1  # a GPU takes one after the other anyway
        bits, error = zip(*in_threads(one, prices.tolist(), most), strict=True)
        return np.log(prices), np.array(bits), np.array(error)


def default_size(count: int) -> int:
    """Entries for N splats by splat-transform's table: N below 1024, from there between N/2 and
    N, at most 65,536."""
    if count < 1024:
        return count
    return 1024 * min(64, 1 << int(math.log2(count / 1024)))


def default_price(rows: Float32, weights: NDArray[np.float32]) -> float:
    """What a bit is worth in weighted squared error: RELATIVE_PRICE of the mean row's."""
    part = slice(None, None, -(-len(rows) // SAMPLE_ROWS))
    x, w = rows[part].astype(np.float64), weights[part]
    energy = np.average(((x - x.mean(axis=0)) ** 2).sum(axis=1), weights=w)
    return RELATIVE_PRICE * float(energy) * float(w.mean())


def measure(
    rows: Float32,  # [N, D], more than a few
    weights: NDArray[np.float32],  # [N]
    train: Train,
    seed: int,
    device: str = "cpu",
) -> Trade:
    """The trade of a scene from palettes of a sample."""
    n = len(rows)
    sample = np.random.default_rng(seed).choice(n, min(n, SAMPLE_ROWS), replace=False)
    sample.sort()
    part, w = rows[sample], weights[sample]
    points = []
    for ratio in SAMPLE_SIZES:
        size = max(1, len(part) // ratio)
        entries, served, error = train(part, w, size)
        points.append((size, error))
    some = slice(None, None, -(-len(entries) // ROUNDED_ENTRIES))
    total = float(weights.sum(dtype=np.float64))
    curve = fit(points, len(part))
    return Trade(n, total, curve, entries[some], served[some] / float(served.mean()), device)


def sizes(largest: int) -> list[int]:
    """Sizes to choose from: 8 to the octave, whole rows of the palette's texture."""
    steps = range(8 * 6, 8 * 16 + 1)
    rounded = {PALETTE_COLUMNS * round(2 ** (s / 8) / PALETTE_COLUMNS) for s in steps}
    return sorted(s for s in rounded if s < largest) + [largest]


def fit(points: list[tuple[int, float]], count: int) -> Curve | None:
    """Least squares in the logarithms; None where the error is already nothing."""
    if min(error for _, error in points) <= 0:
        return None
    size = np.array([s for s, _ in points], np.float64)
    target = np.log([e for _, e in points])
    columns = np.stack([np.ones_like(size), -np.log(size), np.log1p(-size / count)], axis=1)
    (log_c, a, b), *_ = np.linalg.lstsq(columns, target, rcond=None)
    return Curve(math.exp(log_c), max(float(a), 0.0), max(float(b), 0.0))
