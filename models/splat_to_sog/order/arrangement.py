"""Chooses an order from all that splats store, in the currency of coded bytes.

Does not quantise or write: it is given the bytes as they will be coded. A lossless WebP codes a
texel as its difference from the one on its left, channel by channel, so an order in which those
differences are small is a small file. The order to start from follows a Hilbert curve; within
blocks of it a walk goes from splat to the most similar splat (`walk`). A channel weighs what a
difference of one costs there; a texture whose bytes resemble nobody's (it is coded as it is) weighs
nothing and is left out. Which to leave out is tried on a sample of blocks, and the order stays if
nothing pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.context import JsonValue
from models.splat_to_sog import layout
from models.splat_to_sog.order.device import walk_on_device
from models.splat_to_sog.order.walk import FARTHEST, walk
from models.splat_to_sog.threads import in_threads
from models.splat_to_sog.webp import QUICKEST, encode_webp

Bytes = NDArray[np.uint8]
Selection = tuple[str, ...]

SPAN = 256
"""Splats a block. Twice as many take twice the time and 0.2 to 0.4 % off the file."""

SAMPLE_PLACES = 8
PLACE_BLOCKS = 4
"""Neighbouring blocks of one place share a code: a WebP's codes change from place to place too."""

UNITS_PER_BIT = 64.0  # of the walk's whole-number coordinates
BITS_PER_MEAN = 1.0 / np.log(2)
"""A Laplacian difference costs |d| / mean|d| nats above a constant."""

LEAST_MEAN = 0.5  # a channel that hardly moves must not outweigh all others
MAX_REWEIGHTS = 2
LEAST_GAIN = 0.002  # of the estimated bits; below, the curve's order is kept
NOISE = 0.99  # of eight bits a byte


@dataclass(frozen=True)
class Arrangement:
    """order: [N] rows of the input; report: what it is and what it is estimated to gain."""

    order: NDArray[np.intp]
    report: dict[str, JsonValue]


def arrange(
    textures: Mapping[str, Bytes],  # name -> [N, 3 or 4] bytes as coded
    order: NDArray[np.intp],  # [N] rows in the order to start from: along the curve
    span: int = SPAN,
    device: str = "cpu",
) -> Arrangement:
    """The best order found. span: splats a block, 0 to keep `order`; device "cuda:0" walks there,
    with the same result. Textures of whole blocks a row (`layout.texture_size`) take least.

    The report has `method` ("given" or "walk"), `sorted_by` (the textures that count),
    `saved_bits_per_splat` (estimated against `order`, from a sample of blocks of at most SPAN
    splats) and, where the walk was kept, `saved_bytes`, measured on all splats.
    """
    kept: dict[str, JsonValue] = {"method": "given", "sorted_by": [], "saved_bits_per_splat": 0.0}
    if span < 3 or len(order) < 3:
        return Arrangement(order, kept)
    table = Table(textures)
    sample = _sample(order, min(span, SPAN))
    before = table.total_bits(sample)
    best = _best_attempt(table, sample, min(span, SPAN))
    if best is None or best.bits > before * (1 - LEAST_GAIN):
        return Arrangement(order, kept)
    report: dict[str, JsonValue] = {
        "method": "walk",
        "sorted_by": list(best.coordinates.selection),
        "saved_bits_per_splat": round(float(before - best.bits) / len(sample), 3),
    }
    if device == "cpu":
        walked = walk(best.coordinates, order, span)
    else:
        walked = walk_on_device(best.coordinates, order, span, device)
    bytes_before = coded_bytes(textures, order, span)
    saved_bytes = bytes_before - coded_bytes(textures, walked, span)
    if saved_bytes <= 0:
        return Arrangement(order, kept)
    return Arrangement(walked, {**report, "saved_bytes": saved_bytes})


def coded_bytes(textures: Mapping[str, Bytes], order: NDArray[np.intp], span: int) -> int:
    """What the textures take in this order, by the quickest coder."""
    width, height = layout.texture_size(len(order), span)

    def size(values: Bytes) -> int:
        return len(encode_webp(layout.to_texture(values[order], width, height), QUICKEST))

    return sum(in_threads(size, textures.values()))


@dataclass(frozen=True)
class _Attempt:
    coordinates: Coordinates
    walked: NDArray[np.intp]  # the sample
    bits: float  # it takes


def _best_attempt(table: Table, sample: NDArray[np.intp], span: int) -> _Attempt | None:
    """The texture whose neighbours are most alike (the positions') with each other texture, then
    with more and more of them, the best first. None: every texture is noise or constant."""

    def attempt(selection: Selection, weighed_on: NDArray[np.intp]) -> _Attempt:
        coordinates = Coordinates(table, selection, weighed_on)
        walked = walk(coordinates, sample, span)
        return _Attempt(coordinates, walked, table.total_bits(walked))

    names = [name for name in table.textures if table.says_something(name, sample)]
    if not names:
        return None
    names.sort(key=lambda name: table.likeness(name, sample))
    anchor, *others = names
    alone = {name: attempt((anchor, name), sample) for name in others}
    by_gain = sorted(alone, key=lambda name: alone[name].bits)
    tried = [attempt((anchor,), sample), *alone.values()]
    for count in range(2, len(by_gain) + 1):
        tried.append(attempt((anchor, *by_gain[:count]), sample))
    best = min(tried, key=lambda one: one.bits)
    # Differences are smaller now, and not of every channel alike: weigh them again.
    for _ in range(MAX_REWEIGHTS):
        again = attempt(best.coordinates.selection, best.walked)
        if again.bits >= best.bits:
            break
        best = again
    return best


def _sample(order: NDArray[np.intp], span: int) -> NDArray[np.intp]:
    """Whole blocks at a few places along the order."""
    length = PLACE_BLOCKS * span
    places = len(order) // length
    if places <= SAMPLE_PLACES:
        return order
    first = np.arange(SAMPLE_PLACES) * places // SAMPLE_PLACES
    return order[: places * length].reshape(places, length)[first].ravel()


class Table:
    """The coded bytes of every texture, looked up by row."""

    def __init__(self, textures: Mapping[str, Bytes]) -> None:
        self.textures = textures

    def total_bits(self, rows: NDArray[np.intp]) -> float:
        return sum(self.bits(name, rows) for name in self.textures)

    def bits(self, name: str, rows: NDArray[np.intp]) -> float:
        """What these rows take in this order: as they are, or as differences, whichever is less."""
        values = self.textures[name][rows]
        return sum(
            min(coded_bits(part), coded_bits(part[1:] - part[:-1]))
            for part in np.array_split(values, SAMPLE_PLACES)
        )

    def bits_of_differences(self, name: str, rows: NDArray[np.intp]) -> float:
        values = self.textures[name][rows]
        return coded_bits(values[1:] - values[:-1])

    def says_something(self, name: str, rows: NDArray[np.intp]) -> bool:
        """Whether these rows are neither all alike nor noise, which no order makes smaller."""
        values = self.textures[name][rows]
        return 0 < coded_bits(values) < NOISE * 8 * values.size

    def likeness(self, name: str, rows: NDArray[np.intp]) -> float:
        """Bits of differences over bits of the values as they are: small for neighbours alike."""
        return self.bits_of_differences(name, rows) / coded_bits(self.textures[name][rows])

    def green_is_common(self, name: str, rows: NDArray[np.intp]) -> bool:
        """Whether red and blue follow green (colours do)."""
        values = self.textures[name][rows]
        values = values[1:] - values[:-1]
        return _entropy_bits(without_green(values)) < _entropy_bits(values)


class Coordinates:
    """A walk's coordinates: every channel of the selected textures, times what a step costs."""

    def __init__(self, table: Table, selection: Selection, rows: NDArray[np.intp]) -> None:
        """rows: a list of splats whose differences tell the weights."""
        self.table, self.selection = table, selection
        self.less_green = {name for name in selection if table.green_is_common(name, rows)}
        self.weights = np.ones(0, np.float32)
        values = self._values(rows).astype(np.int16)
        mean = np.abs(np.diff(values, axis=1)).mean(axis=1)
        weights = BITS_PER_MEAN / np.maximum(mean, LEAST_MEAN)
        units = min(UNITS_PER_BIT, (FARTHEST - len(weights)) / (255 * weights.sum()))
        self.weights = (weights * units).astype(np.float32)

    def __call__(self, rows: NDArray[np.intp]) -> NDArray[np.int16]:  # [M] -> [C, M]
        scaled: NDArray[np.float32] = self._values(rows) * self.weights[:, None]
        return np.rint(scaled).astype(np.int16)

    def _values(self, rows: NDArray[np.intp]) -> Bytes:  # [C, M]
        parts = []
        for name in self.selection:
            values = self.table.textures[name][rows]
            if name in self.less_green:
                values = without_green(values)
                values[:, [0, 2]] += 128  # small differences of either sign lie side by side
            parts.append(values.T)
        return np.concatenate(parts)


def without_green(values: Bytes) -> Bytes:  # [M, 3 or 4] -> the same, a copy
    out = values.copy()
    out[:, 0] -= values[:, 1]
    out[:, 2] -= values[:, 1]
    return out


def coded_bits(values: Bytes) -> float:  # [M, C]
    """Bits of these texels with one prefix code a channel, with or without green taken out."""
    return min(_entropy_bits(values), _entropy_bits(without_green(values)))


def _entropy_bits(values: Bytes) -> float:
    """Entropy of each channel, but at least a bit a texel where a channel is not constant, and
    corrected for the size of the sample (Miller, 1955)."""
    total = 0.0
    for channel in values.T:
        counts = np.bincount(channel, minlength=256)
        counts = counts[counts > 0].astype(np.float64)
        if len(counts) > 1:
            entropy = -(counts * np.log2(counts / len(values))).sum()
            total += max(len(values), entropy + (len(counts) - 1) / 2 * BITS_PER_MEAN)
    return total
