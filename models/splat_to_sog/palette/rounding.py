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

from models.splat_to_sog.palette.rounding_device import cheapest_on_device
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


def round_entries(entries: Float32, served: Float64, price: float, device: str = "cpu") -> Float32:
    """The entries [P, 3K] on at most 241 values, those that `price` pays for; see `rounded`."""
    return rounded(entries, served, price, device)[0]


def step_octaves(
    span: float,  # largest absolute value of all entries
    served: Float64,  # [P] >= 0, as for `rounded`
    price: float,
) -> tuple[float, NDArray[np.int64]]:
    """(base, octave [P]): an entry's values are rounded to multiples of base x 2^octave."""
    want = EARLY * np.sqrt(6 * price / (math.log(2) * _positive(served)))
    base = max(float(np.quantile(want, FINEST_SHARE)), span / HALF_LEVELS)
    octave = np.rint(np.log2(np.maximum(want / base, 1))).clip(0, COARSEST)
    return base, octave.astype(np.int64)


def _positive(served: Float64) -> Float64:
    return np.maximum(served, 1e-6 * float(served.mean()))


def rounded(
    entries: Float32,  # [P, 3K] channel-major, as f_rest is
    served: Float64,  # [P] >= 0: summed weight of the rows that an entry stands for
    price: float,  # weighted squared error per bit
    device: str = "cpu",
) -> tuple[Float32, float]:
    """(entries on at most 241 values, their bits with ideal codes): the same on every device."""
    peaks = np.abs(entries).max(axis=1)
    span = float(peaks.max())
    if span == 0:
        return entries.copy(), 0.0
    served = _positive(served)
    base, octave = step_octaves(span, served, price)
    octaves, group = np.unique(octave, return_inverse=True)
    step = base * np.exp2(octaves)
    bill = (price / (served * step[group] ** 2)).astype(np.float32)  # squared steps per bit
    highest = np.array([peaks[group == g].max() for g in range(len(step))])
    # Of a difference of two neighbours, in steps.
    reach = 2 * np.floor(highest / step.astype(np.float32)).astype(np.intp) + 5
    if device != "cpu":
        steps, counts = cheapest_on_device(
            entries, group, step.astype(np.float32), reach, bill, _codes, ROUNDS, device
        )
    else:
        steps, counts = np.empty(entries.shape, np.int32), []
        for g in range(len(step)):
            members = np.flatnonzero(group == g)
            values = (entries[members] / np.float32(step[g])).reshape(len(members), 3, -1)
            found, count = _cheapest(values, bill[members], int(reach[g]))
            steps[members] = found.reshape(len(members), -1)
            counts.append(count)
    bits = sum(float((each * _codes(each, smooth=0)).sum(dtype=np.float64)) for each in counts)
    return _at_means(entries, steps << octave[:, None].astype(np.int32), served), bits


def _cheapest(
    values: Float32,  # [M, 3, K] in steps
    price: Float32,  # [M] squared steps per bit
    reach: int,
) -> tuple[Steps, NDArray[np.intp]]:
    """(whole steps [M, 3, K]: of each value the lower or the upper neighbour; how often each symbol
    -reach..reach is green, red - green and blue - green [3, S])."""
    chosen = np.rint(values).astype(np.int32)
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
    return chosen, counts


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
