"""Exact 1-D codebooks: the 256 levels that represent a list of numbers best.

Does not know what the numbers mean. The levels minimise the squared error over a histogram in
which a bin weighs the square root of its count, or of the worth of its values where that is known:
rare values at the ends of a distribution (large splats, saturated colours) are seen more than their
number says, so the tails get their levels. Numbers that deserve a coarse step use some of the
levels only (`Codebook.coarse`): fewer different bytes in the texture.
Optimal partitions of sorted points: Wu, "Optimal quantization by matrix searching", 1991; the
cost is Monge, so the best split moves monotonically and divide and conquer finds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.codebook_device import splits_on_device
from models.splat_to_sog.layout import BOOK

BINS = 1024
SAMPLE = 1 << 17  # values a histogram is made of
TABLE = 1 << 14  # slots of a table that narrows the search for many values
SHORT = 24  # from this many intervals on, all last ones together are few points to search
SENTINEL_DISTANCE = 20.0
"""How far beyond the finite values an infinity's level lies: e^-20 times a scale is nothing."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Codebook:
    """levels: ascending, at most 256, as the file's reader will see them."""

    levels: NDArray[np.float32]  # [L]

    def encode(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Index of the nearest level, any shape; ties go to the lower one."""
        levels = self.levels.astype(np.float64)
        middles = (levels[1:] + levels[:-1]) / 2
        values = np.asarray(values)
        if values.size < TABLE or not 1e-30 < levels[-1] - levels[0] < 1e30:  # else not of float32
            return np.searchsorted(middles, values, side="left").astype(np.uint8)
        return _by_table(middles, levels[0], levels[-1], values)

    def coarse(self, step: float) -> NDArray[np.uint8]:
        """Indices of levels about `step` apart, or as far as the book has them."""
        if not self.uniform_below(step):
            return np.arange(len(self.levels), dtype=np.uint8)
        levels = self.levels.astype(np.float64)
        slots = np.rint((levels - levels[0]) / step)
        distance = np.abs(levels - levels[0] - slots * step)
        order = np.lexsort((distance, slots))  # of the levels nearest to one multiple, the nearest
        first = np.concatenate([[True], slots[order][1:] != slots[order][:-1]])
        return np.sort(order[first]).astype(np.uint8)

    def uniform_below(self, step: float) -> bool:
        """Whether some neighbours are closer than `step`, so that leaving levels out saves bits."""
        return len(self.levels) > 1 and float(np.diff(self.levels).min()) < step

    def encode_coarse(self, values: NDArray[np.floating], step: float) -> NDArray[np.uint8]:
        """Index of the nearest level among those of `coarse`."""
        chosen = self.coarse(step)
        return chosen[Codebook(self.levels[chosen]).encode(values)]

    def decode(self, indices: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.levels[indices]

    def padded(self) -> NDArray[np.float32]:  # [256]
        """As SOG stores it: the last level repeated up to 256 entries."""
        return np.concatenate([self.levels, np.repeat(self.levels[-1:], BOOK - len(self.levels))])


def _by_table(
    middles: Float64, low: float, high: float, values: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """`searchsorted(middles, values)`, several times as fast: a table over equal slots of the range
    gives the answer wherever a slot lies between two middles, which is nearly everywhere."""
    flat = values.ravel()
    out = np.empty(flat.size, np.uint8)
    edges = low + (high - low) * np.arange(TABLE + 1) / TABLE
    margin = (high - low) * 1e-6  # rounding may put a value into the slot beside its own
    first = np.searchsorted(middles, edges[:-1] - margin, side="left")
    last = np.searchsorted(middles, edges[1:] + margin, side="left")
    answer, sure = first.astype(np.uint8), first == last
    sure[[0, -1]] = False  # what lies outside is clipped into these
    scale = np.float32(TABLE / (high - low))
    for start in range(0, flat.size, TABLE):
        part = flat[start : start + TABLE]
        slot = np.clip((part - np.float32(low)) * scale, 0, TABLE - 1).astype(np.int32)
        found = answer[slot]
        unsure = np.flatnonzero(~sure[slot])
        found[unsure] = np.searchsorted(middles, part[unsure], side="left")
        out[start : start + TABLE] = found
    return out.reshape(values.shape)


def build_codebook(
    values: NDArray[np.floating],  # any shape, at least one; +-inf allowed, NaN not
    size: int = BOOK,
    worth: NDArray[np.floating] | None = None,  # [N] of the rows of `values`
    device: str = "cpu",
) -> Codebook:
    """The best `size` levels. Values that take at most `size` distinct levels are kept exactly.
    The same on every device."""
    flat = np.asarray(values, np.float32).ravel()
    keep = np.isfinite(flat)
    finite = flat[keep]
    weights = None
    if worth is not None:
        weights = np.repeat(worth, flat.size // len(worth))[keep]
    low, high = bool((flat == -np.inf).any()), bool((flat == np.inf).any())
    if not finite.size:
        finite, weights = np.zeros(1, np.float32), None
    levels = _finite_levels(finite, size - low - high, weights, device)
    ends = (
        [levels[:1] - SENTINEL_DISTANCE] if low else [],
        [levels[-1:] + SENTINEL_DISTANCE] if high else [],
    )
    return Codebook(np.concatenate([*ends[0], levels, *ends[1]]).astype(np.float32))


def _finite_levels(
    finite: NDArray[np.float32],
    size: int,
    worth: NDArray[np.floating] | None = None,
    device: str = "cpu",
) -> Float64:
    points, counts = _sampled_histogram(finite, worth)
    if len(points) <= size:
        return points
    starts = optimal_partition(points, np.sqrt(counts), size, device)
    # Inside an interval every value counts by its worth: the plain mean has the least error.
    return np.add.reduceat(points * counts, starts) / np.add.reduceat(counts, starts)


def _sampled_histogram(
    finite: NDArray[np.float32], worth: NDArray[np.floating] | None
) -> tuple[Float64, Float64]:
    """Of every k-th value and the extremes; of all where the sample looks like few values."""
    stride = len(finite) // SAMPLE
    if stride > 1:
        stride += stride % 3 == 0  # or only one of three axes would be seen
        rows = np.arange(0, len(finite), stride)
        rows = np.concatenate([rows, [finite.argmin(), finite.argmax()]])
        sample = finite[rows]
        if len(np.unique(sample)) > BINS:
            return histogram(sample, worth=None if worth is None else worth[rows])
    return histogram(finite, worth=worth)


def histogram(
    finite: NDArray[np.float32],
    bins: int = BINS,
    worth: NDArray[np.floating] | None = None,
) -> tuple[Float64, Float64]:
    """(points, counts or summed worths): the distinct values if they are few, else the means of the
    filled bins.

    Bin edges are equally spaced on the average of the value's share of the range and its rank:
    dense regions are resolved finely, and so are sparse tails.
    """
    if worth is None:
        ordered = np.sort(finite).astype(np.float64)
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        points, counts = ordered[first], np.diff(first, append=len(ordered)).astype(np.float64)
    else:
        order = np.argsort(finite)
        ordered = finite[order].astype(np.float64)
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        points = ordered[first]
        counts = np.add.reduceat(worth[order].astype(np.float64), first)
        counts = np.maximum(counts / max(counts.sum(), 1e-300), 1e-12)  # all of it may be unseen
    if len(points) <= bins:
        return points, counts
    span = points[-1] - points[0]
    total = counts.sum()
    rank = (np.cumsum(counts) - counts / 2) / total
    blend = (points - points[0]) / span / 2 + rank / 2
    bin_of = np.minimum((blend * bins).astype(np.intp), bins - 1)
    starts = np.flatnonzero(np.concatenate([[True], bin_of[1:] != bin_of[:-1]]))
    totals = np.add.reduceat(counts, starts)
    return np.add.reduceat(points * counts, starts) / totals, totals


class _Cost:
    """Weighted squared error of representing points i..j by their mean, for arrays of i and j."""

    def __init__(self, points: Float64, weights: Float64) -> None:
        centred = points - np.average(points, weights=weights)  # keeps the differences exact
        self.w = np.concatenate([[0.0], np.cumsum(weights)])
        self.wx = np.concatenate([[0.0], np.cumsum(weights * centred)])
        self.wxx = np.concatenate([[0.0], np.cumsum(weights * centred**2)])

    def __call__(self, i: NDArray[np.intp], j: NDArray[np.intp]) -> Float64:
        w = self.w[j + 1] - self.w[i]
        wx = self.wx[j + 1] - self.wx[i]
        error: Float64 = np.maximum(self.wxx[j + 1] - self.wxx[i] - wx * wx / w, 0)
        return error


def optimal_partition(
    points: Float64,  # [M] ascending
    weights: Float64,  # [M] positive
    size: int,  # 1..M
    device: str = "cpu",
) -> NDArray[np.intp]:
    """First point of each of the `size` intervals of least weighted squared error: [size].

    O(size M log M): many splits at once, the search bounded by neighbours and the layer before
    (Knuth, "Optimum binary search trees", 1971).
    """
    m = len(points)
    cost = _Cost(points, weights)
    if device != "cpu":
        sums = np.stack([cost.w, cost.wx, cost.wxx])
        return _trace_back(splits_on_device(sums, size, device), m, size)
    every = np.arange(m)
    best = cost(np.zeros(m, np.intp), every)  # [j]: points 0..j in one interval
    splits = np.zeros((size, m), np.intp)
    levels = _bisection_order(m)
    for k in range(1, size):
        best, splits[k] = _next_layer(best, splits[k - 1], cost, levels, k)
    return _trace_back(splits, m, size)


def optimal_partition_reference(points: Float64, weights: Float64, size: int) -> NDArray[np.intp]:
    """The same, by trying every split: O(size * M^2). For tests."""
    m = len(points)
    cost = _Cost(points, weights)
    best = cost(np.zeros(m, np.intp), np.arange(m))
    splits = np.zeros((size, m), np.intp)
    for k in range(1, size):
        previous, best = best, np.full(m, np.inf)
        for j in range(k, m):
            i = np.arange(k, j + 1)
            totals = previous[i - 1] + cost(i, np.full(len(i), j))
            splits[k, j] = i[np.argmin(totals)]
            best[j] = totals.min()
    return _trace_back(splits, m, size)


def _bisection_order(m: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]]:
    """Depth by depth: the indices to solve, and the solved neighbours of each (-1, m: none)."""
    levels = []
    step = 1 << max(m - 1, 1).bit_length()
    while step:
        j = np.arange(step - 1, m, 2 * step)
        if len(j):
            levels.append((j, j - step, np.minimum(j + step, m)))
        step >>= 1
    return levels


def _next_layer(
    previous: Float64,  # [M] least error of points 0..j in k intervals
    before: NDArray[np.intp],  # [M] first point of the last of those
    cost: _Cost,
    levels: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]],
    k: int,
) -> tuple[Float64, NDArray[np.intp]]:
    """(error, first point of the last interval) of points 0..j in k+1 intervals, for every j."""
    m = len(previous)
    best, first = np.full(m, np.inf), np.full(m, k)
    if k >= SHORT:  # the last of k intervals is short, and that of k + 1 begins within it
        j = np.arange(k, m)
        best[k:], first[k:] = _least(previous, cost, j, np.maximum(before[k:], k), j)
        return best, first
    split = np.full(m + 2, k)  # shifted by one: [0] and [m + 1] bound the search
    split[m + 1] = m - 1
    for depth in levels:
        j, left, right = (indices[depth[0] >= k] for indices in depth)
        if len(j):
            low = np.maximum(split[left + 1], before[j])
            high = np.maximum(np.minimum(split[right + 1], j), low)
            best[j], split[j + 1] = _least(previous, cost, j, low, high)
    return best, split[1 : m + 1]


def _least(
    previous: Float64,
    cost: _Cost,
    j: NDArray[np.intp],
    low: NDArray[np.intp],
    high: NDArray[np.intp],
) -> tuple[Float64, NDArray[np.intp]]:
    """Of points 0..j with the last interval beginning at low..high: (least error, its first such
    beginning)."""
    lengths = high - low + 1
    starts = np.cumsum(lengths) - lengths
    row = np.repeat(np.arange(len(j)), lengths)
    i = np.arange(len(row)) + (low - starts)[row]
    totals = previous[i - 1] + cost(i, j[row])
    least = np.minimum.reduceat(totals, starts)
    hits = np.flatnonzero(totals == least[row])[::-1]  # reversed: the first hit wins
    first = np.empty_like(j)
    first[row[hits]] = i[hits]
    return least, first


def _trace_back(splits: NDArray[np.intp], m: int, size: int) -> NDArray[np.intp]:
    starts = np.zeros(size, np.intp)
    end = m - 1
    for k in range(size - 1, 0, -1):
        starts[k] = splits[k, end]
        end = starts[k] - 1
    return starts
