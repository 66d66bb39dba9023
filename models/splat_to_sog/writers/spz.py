"""Writes Niantic .spz: version 3 as one gzip stream, version 4 as one zstd stream an attribute.

Does not turn axes: the file holds the coordinates of the .ply, as the tools of PlayCanvas write
and read them. Tools that follow the format's own page take it to be y up and may show it upside
down. Arrays lie attribute by attribute, so the scene is passed once for each. Splats keep their
order: along a curve, real scenes take 0.0 to 0.2 % less, which is not worth the permutation.
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import zstandard
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.layout_spz import COLOUR_SCALE, FLAG_ANTIALIASED, MAGIC
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import COEFFICIENTS, Splats
from models.splat_to_sog.stages import OnStage
from models.splat_to_sog.writers.formats import SpzOptions
from models.splat_to_sog.writers.smallest_three import smallest_three
from models.splat_to_sog.writers.written import (
    STAGE,
    Written,
    new_file,
    require_finite,
    within_degree,
)

MAX_FIXED = (1 << 23) - 1  # positions are 24-bit integers
USUAL_BITS = 12
MIN_CELLS = 1 << 14  # steps across the scene below which 12 fractional bits are too coarse
MAX_BITS = 23
BUCKETS = {"5/4": (8, 16), "8": (1, 1)}  # width of a code in band 1 and above, of 256

GZIP_LEVEL = 6
ZSTD_LEVEL = 12
"""As far as time buys bytes: gzip 9 takes 6.5 times as long for 2.3 % less, zstd 19 13 times as
long for 5.6 % less (200,000 splats of degree 3)."""

BLOCK_ROWS = 1 << 16  # 24 MB of float64 harmonics at degree 3


def write_spz(splats: Splats, path: Path, options: SpzOptions, on_stage: OnStage) -> Written:
    require_finite(splats, path.name)
    highest = 4 if options.version == 4 else 3  # readers of version 3 know no degree above
    splats, lost = within_degree(splats, highest)
    low, high = _bounds(splats.means)
    bits = _fractional_bits(low, high, options.fractional_bits, path.name)
    flags = FLAG_ANTIALIASED if splats.model == "antialiased" else 0
    head = struct.pack("<4sIIBBB", MAGIC, options.version, len(splats), splats.degree, bits, flags)
    streams = _streams(splats, bits, BUCKETS[options.sh_bits], on_stage)
    with new_file(path) as file:
        (_write_v4 if options.version == 4 else _write_v3)(file, head, streams)
    return Written((path,), lost | _clamped(splats))


def _write_v3(file: BinaryIO, head: bytes, streams: list[Iterator[NDArray[np.uint8]]]) -> None:
    with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
        packed.write(head + b"\0")
        for stream in streams:
            for block in stream:
                packed.write(block.data)


def _write_v4(file: BinaryIO, head: bytes, streams: list[Iterator[NDArray[np.uint8]]]) -> None:
    """A plain header of 32 bytes, a table of (packed, unpacked) sizes, then the streams."""
    table_at = 32
    file.write(head + struct.pack("<BI12x", len(streams), table_at) + bytes(16 * len(streams)))
    sizes = []
    for stream in streams:
        start, size = file.tell(), 0
        with zstandard.ZstdCompressor(ZSTD_LEVEL).stream_writer(file, closefd=False) as packed:
            for block in stream:
                size += packed.write(block.data)
        sizes.append((file.tell() - start, size))
    file.seek(table_at)
    file.write(b"".join(struct.pack("<QQ", *pair) for pair in sizes))


def _streams(
    splats: Splats,
    fractional_bits: int,
    buckets: tuple[int, int],
    on_stage: OnStage,
) -> list[Iterator[NDArray[np.uint8]]]:
    """Each attribute's array in blocks, in file order; nothing is computed before it is asked."""
    attributes: list[tuple[NDArray[np.float32], Callable[..., NDArray[np.uint8]]]] = [
        (splats.means, lambda values: pack_positions(values, fractional_bits)),
        (splats.opacities, pack_opacities),
        (splats.sh0, lambda values: _bytes((values * COLOUR_SCALE + 0.5) * 255)),
        (splats.scales, lambda values: _bytes((values + 10) * 16)),
        (splats.quats, pack_quats),
    ]
    if splats.degree:
        attributes.append((splats.shN, lambda values: pack_harmonics(values, buckets)))

    def blocks(index: int) -> Iterator[NDArray[np.uint8]]:
        values, pack = attributes[index]
        for rows in chunks(len(splats), BLOCK_ROWS):
            on_stage(STAGE, (index + rows.start / len(splats)) / len(attributes))
            yield np.ascontiguousarray(pack(values[rows].astype(np.float64)))

    return [blocks(index) for index in range(len(attributes))]


def pack_positions(means: NDArray[np.float64], fractional_bits: int) -> NDArray[np.uint8]:
    """24-bit two's complement, little endian: [N, 3] -> [N, 9]."""
    fixed = np.rint(means * 2.0**fractional_bits).astype("<i4")
    return fixed.view(np.uint8).reshape(-1, 3, 4)[..., :3].reshape(-1, 9)


def pack_opacities(logits: NDArray[np.float64]) -> NDArray[np.uint8]:  # [N]
    with np.errstate(over="ignore"):
        return _bytes(255 / (1 + np.exp(-logits)))


def pack_quats(quats: NDArray[np.float64]) -> NDArray[np.uint8]:  # [N, 4] wxyz -> [N, 4]
    """Two bits name the largest of x, y, z, w; the others are a sign and nine bits each."""
    largest, others = smallest_three(quats[:, [1, 2, 3, 0]])
    # A zero quaternion means no rotation: w is the one that is left out.
    largest[~quats.any(axis=1)] = 3
    magnitude = np.rint(np.abs(others) * (math.sqrt(2) * 511)).astype(np.uint32)
    fields = magnitude | ((others < 0) & (magnitude > 0)).astype(np.uint32) << np.uint32(9)
    words = largest.astype(np.uint32) << np.uint32(30)
    for column, shift in enumerate((20, 10, 0)):
        words |= fields[:, column] << np.uint32(shift)
    return words.astype("<u4").view(np.uint8).reshape(-1, 4)


def pack_harmonics(
    values: NDArray[np.float64],  # [N, 3, K]
    buckets: tuple[int, int],
) -> NDArray[np.uint8]:
    """Coefficient by coefficient, colour fastest: [N, 3K]. Codes are multiples of their bucket."""
    width = np.full((values.shape[2], 1), buckets[1])
    width[: COEFFICIENTS[1]] = buckets[0]
    steps = (values.transpose(0, 2, 1) + 1) * 128
    return _bytes(np.rint(steps / width) * width).reshape(len(values), -1)


def _bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def _bounds(means: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for rows in chunks(len(means)):
        low = np.minimum(low, means[rows].min(axis=0))
        high = np.maximum(high, means[rows].max(axis=0))
    return low, high


def _fractional_bits(
    low: NDArray[np.float64], high: NDArray[np.float64], wanted: int | None, name: str
) -> int:
    """12 where that fits, more for a scene so small that 12 would show, fewer for a large one."""
    reach = float(np.maximum(np.abs(low), np.abs(high)).max())
    most = MAX_BITS
    while most >= 0 and np.rint(reach * 2.0**most) > MAX_FIXED:
        most -= 1
    if wanted is None:
        wanted = USUAL_BITS
        extent = float((high - low).max())
        while 0 < extent * 2.0**wanted < MIN_CELLS and wanted < MAX_BITS:
            wanted += 1
        wanted = min(wanted, max(most, 0))
    if most < wanted:
        raise InvalidInput(
            f"{name}: a position lies {reach:g} units from the origin; .spz holds "
            f"{MAX_FIXED / 2.0**wanted:g} with {wanted} fractional bits.",
            code="splat_limits",
            next_step="Crop or scale the scene, or write a format that holds any position (.sog).",
        )
    return wanted


def _clamped(splats: Splats) -> dict[str, int]:
    """Values outside of what the bytes can say, which were moved to the nearest they can."""
    lost = {"flat splats (2DGS) as thin ones": len(splats)} if splats.model == "2dgs" else {}
    limits = (
        ("scales outside e^-10 .. e^5.94, clamped", splats.scales, -10.03125, 5.96875),
        ("colours outside +-3.33, clamped", splats.sh0, -3.34641, 3.34641),
        ("harmonics outside -1 .. 0.992, clamped", splats.shN, -1.00390625, 0.99609375),
    )
    for what, values, low, high in limits:
        count = 0
        for rows in chunks(len(splats)):
            count += int(((values[rows] < low) | (values[rows] > high)).sum())
        if count:
            lost[what] = count
    return lost
