"""Rounds the entries of a palette so that they cost few bits, by rate and distortion.

Does not train entries or know how textures are compressed, beyond this: a lossless WebP codes green
and the differences of red and blue from it, with codes of their own for each part of the picture.
An entry's step is a power of two times one base, so that one codebook serves all: an entry that
stands for much is fine, one that stands for little is coarse. Entries of one step are one run of
the texture. Within its step each value takes the neighbour of least error + price x bits, the bits
being those of the values chosen in the round before (entropy-constrained scalar quantisation:
Chou, Lookabaugh, Gray, 1989).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.threads import in_threads

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Steps = NDArray[np.int32]

HALF_LEVELS = 120  # multiples of the base on each side of 0: 241 values fit a codebook of 256
FINEST_SHARE = 0.02  # of the entries: those whose step is rounded up to the base
COARSEST = 6  # octaves above the base
ROUNDS = 3
ROWS = 1 << 11  # entries a thread chooses at once: they stay in its cache
EARLY = 0.85
"""Of the best step of plain rounding: choosing neighbours by their bits wants finer ones. Measured
on 20,000 rows, 0.85 is 0.1 dB better than 1.2 and than 1."""


def round_entries(entries: Float32, served: Float64, price: float) -> Float32:
    """The entries [P, 3K] on at most 241 values, those that `price` pays for; see `rounded`."""
    return rounded(entries, served, price)[0]


def rounded(
    entries: Float32,  # [P, 3K] channel-major, as f_rest is
    served: Float64,  # [P] >= 0: summed weight of the rows that an entry stands for
    price: float,  # weighted squared error per bit
) -> tuple[Float32, float]:
    """(entries on at most 241 values, their bits with ideal codes)."""
    span = float(np.abs(entries).max())
    if span == 0:
        return entries.copy(), 0.0
    served = np.maximum(served, 1e-6 * float(served.mean()))
    want = EARLY * np.sqrt(6 * price / (math.log(2) * served))
    base = max(float(np.quantile(want, FINEST_SHARE)), span / HALF_LEVELS)
    octave = np.rint(np.log2(np.maximum(want / base, 1))).clip(0, COARSEST).astype(np.int64)
    multiples = np.empty(entries.shape, np.int32)
    bits = 0.0
    for each in np.unique(octave):
        members = np.flatnonzero(octave == each)
        step = base * 2.0**each
        values = (entries[members] / np.float32(step)).reshape(len(members), 3, -1)
        worth = served[members] * step**2  # of a squared step
        steps, cost = _cheapest(values, (price / worth).astype(np.float32))
        multiples[members] = steps.reshape(len(members), -1) << each
        bits += cost
    return _at_means(entries, multiples, served), bits


def _cheapest(
    values: Float32,  # [M, 3, K] in steps
    price: Float32,  # [M] squared steps per bit
) -> tuple[Steps, float]:
    """(whole steps [M, 3, K], their bits): of each value the lower or the upper neighbour."""
    chosen = np.rint(values).astype(np.int32)
    reach = 2 * math.floor(float(np.abs(values).max())) + 5  # of a difference of two neighbours
    parts = list(chunks(len(values), ROWS))

    def count(part: slice) -> NDArray[np.intp]:
        g = chosen[part, 1]
        symbols = (g, chosen[part, 0] - g, chosen[part, 2] - g)
        return np.stack([np.bincount(s.ravel() + reach, minlength=2 * reach + 1) for s in symbols])

    def choose(part: slice) -> NDArray[np.intp]:
        chosen[part] = neighbours(values[part], price[part], codes, reach)
        return count(part)

    counts = np.sum(in_threads(count, parts), axis=0)
    for _ in range(ROUNDS):
        codes = _codes(counts)
        counts = np.sum(in_threads(choose, parts), axis=0)
    return chosen, float((counts * _codes(counts, smooth=0)).sum(dtype=np.float64))


def neighbours(
    values: Float32,  # [M, 3, K] in steps
    price: Float32,  # [M] squared steps per bit
    codes: Float32,  # [3, 2 reach + 1] bits of green, red - green and blue - green
    reach: int,
) -> Steps:  # [M, 3, K]
    """The lower or upper neighbour of each value, those of a triple together, of least error +
    price x bits; of equals the lower ones, green first."""
    red, green, blue = np.ascontiguousarray(values.transpose(1, 0, 2))
    bill = price[:, None]
    low = [np.floor(channel) for channel in (red, green, blue)]
    gap = [channel - floor for channel, floor in zip((red, green, blue), low, strict=True)]
    below = [floor.astype(np.intp) for floor in low]
    wrong = [(g * g, (g - 1) * (g - 1)) for g in gap]  # squared error of either neighbour

    def with_green(up: int) -> tuple[Float32, list[NDArray[np.bool_]]]:
        """(cost, whether red and blue then go up)."""
        g = below[1] + up
        cost = wrong[1][up] + bill * codes[0].take(g + reach)
        picks = []
        for channel in (0, 2):
            at = below[channel] - g + reach
            code = codes[1 + channel // 2]
            down_cost = wrong[channel][0] + bill * code.take(at)
            up_cost = wrong[channel][1] + bill * code.take(at + 1)
            picks.append(up_cost < down_cost)
            cost += np.minimum(up_cost, down_cost)
        return cost, picks

    (lower, after_lower), (upper, after_upper) = with_green(0), with_green(1)
    up = upper < lower
    raised = (
        np.where(up, after_upper[0], after_lower[0]),
        up,
        np.where(up, after_upper[1], after_lower[1]),
    )
    steps = [floor + one for floor, one in zip(below, raised, strict=True)]
    return np.stack(steps, axis=1).astype(np.int32)


def _codes(counts: NDArray[np.intp], smooth: float = 0.3) -> Float32:  # [3, S] -> the same
    """Bits of each symbol."""
    count = counts + smooth
    share = np.maximum(count, 1e-9) / count.sum(axis=1, keepdims=True)
    return np.asarray(-np.log2(share), np.float32)


def _at_means(entries: Float32, multiples: Steps, served: Float64) -> Float32:
    """Each multiple at the weighted mean of the values that take it; 0 stays 0."""
    lowest = int(multiples.min())
    index = (multiples - lowest).ravel()
    weight = np.repeat(served, entries.shape[1])
    total = np.bincount(index, weight)
    levels = np.bincount(index, weight * entries.ravel()) / np.maximum(total, 1e-300)
    if lowest <= 0 <= lowest + len(levels) - 1:
        levels[-lowest] = 0.0
    return levels.astype(np.float32)[index].reshape(entries.shape)
