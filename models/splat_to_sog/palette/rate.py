"""How many entries a scene is worth, and how coarsely they may be stored: rate against distortion.

Does not build a palette. k-means at a few sizes on a sample gives the curve
D(K) = c K^-a (1 - K/N)^b: a power law, times what is gained because the rows to be coded are the
rows it was trained on. With what labels and entries cost, the size of least
distortion + price x bits follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.layout import MAX_PALETTE, PALETTE_COLUMNS

Float32 = NDArray[np.float32]
Train = Callable[[Float32, NDArray[np.float32], int], tuple[Float32, float]]
"""(rows, weights, size) -> (entries, weighted mean squared error)."""

SAMPLE_ROWS = 1 << 14
SAMPLE_SIZES = (128, 32, 8, 4)  # rows per entry at which the curve is measured
RELATIVE_PRICE = 0.006
"""Of a row's mean energy, per bit: harmonics then take 3 to 7 bytes a splat in scenes of 1,000,000
to 20,000 (docs/benchmarks.md)."""
ROUNDED_ENTRIES = 2048  # of the curve's largest palette: what coarse steps cost is read off these


LABEL_SHARE = 0.97  # of log2 K: labels as coded, uses being uneven
ENTRY_SHARE = 0.7  # of the columns' entropies: as coded, the colours of a coefficient being alike


@dataclass(frozen=True)
class Curve:
    """Weighted mean squared error of K entries for N rows."""

    c: float
    a: float
    b: float

    def __call__(self, size: int, count: int) -> float:
        return self.c * math.pow(size, -self.a) * math.pow(max(1 - size / count, 0), self.b)


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


def entry_step(price: float, size: int, total_weight: float) -> float:
    """Step of stored entries at which a finer one costs more bits than it saves error.

    Each value adds step^2/12 to the error of all rows, and a bit each time the step halves:
    total_weight step / 6 = price size / (step ln 2).
    """
    return math.sqrt(6 * price * size / (total_weight * math.log(2)))


def choose_size(
    rows: Float32,  # [N, D]
    weights: NDArray[np.float32],  # [N]
    price: float,  # weighted squared error per bit
    train: Train,
    seed: int,
) -> int:
    """The size, a multiple of 64 above 64, of least error + price x (labels + entries) bits."""
    n = len(rows)
    largest: int = min(n, MAX_PALETTE)
    if n <= 2 * PALETTE_COLUMNS:
        return largest
    sample = np.random.default_rng(seed).choice(n, min(n, SAMPLE_ROWS), replace=False)
    sample.sort()
    part, w = rows[sample], weights[sample]
    points = []
    for ratio in SAMPLE_SIZES:
        size = len(part) // ratio
        entries, error = train(part, w, size)
        points.append((size, error))
    curve = fit(points, len(part))
    if curve is None:
        return min(largest, len(entries))
    total = float(weights.sum(dtype=np.float64))
    some = entries[:: -(-len(entries) // ROUNDED_ENTRIES)]
    best, least = largest, math.inf
    for size in sizes(largest):
        bits, error = rounding(some, entry_step(price, size, total))
        bits = n * LABEL_SHARE * math.log2(size) + size * ENTRY_SHARE * bits
        cost = total * (curve(size, n) + error) + price * bits
        if cost < least:
            best, least = size, cost
    return best


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


def rounding(entries: Float32, step: float) -> tuple[float, float]:
    """(bits, squared error) of a mean entry rounded to multiples of the step: the entropies and
    the errors of its columns, summed."""
    multiple = np.rint(entries / np.float32(max(step, 1e-12)))
    error = float(((entries - multiple * np.float32(step)) ** 2).sum(axis=1).mean())
    bits = 0.0
    for column in multiple.T:
        column = np.sort(column)
        ends = np.flatnonzero(np.append(column[1:] != column[:-1], True))
        share = np.diff(ends, prepend=-1) / len(column)
        bits -= float((share * np.log2(share)).sum())
    return bits, error
