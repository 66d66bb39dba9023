"""Writes PlayCanvas .compressed.ply: splats along a curve in chunks of 256, packed to 16 bytes.

Does not know the plain 3DGS .ply. Every field is rounded to the code that decodes nearest;
18 chunk columns, so that colours are fractions of their chunk's own range.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.layout_compressed_ply import (
    BOUNDS,
    CHUNK,
    COLOUR_BOUNDS,
    MAX_LOG_SCALE,
    PACKED,
    SCALE_BOUNDS,
    SH_RANGE,
)
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import COEFFICIENTS, SH_C0, Splats
from models.splat_to_sog.stages import OnStage
from models.splat_to_sog.writers.curve import curve_order
from models.splat_to_sog.writers.formats import CompressedPlyOptions
from models.splat_to_sog.writers.ply import MODEL_COMMENTS, header
from models.splat_to_sog.writers.smallest_three import smallest_three
from models.splat_to_sog.writers.written import (
    STAGE,
    Written,
    new_file,
    require_finite,
    within_degree,
)

BLOCK_ROWS = CHUNK * 128
MAX_DEGREE = 3

CHUNK_COLUMNS = BOUNDS + SCALE_BOUNDS + COLOUR_BOUNDS


def write_compressed_ply(
    splats: Splats, path: Path, options: CompressedPlyOptions, on_stage: OnStage
) -> Written:
    require_finite(splats, path.name)
    splats, lost = within_degree(splats, MAX_DEGREE)
    n, rest = len(splats), 3 * COEFFICIENTS[splats.degree]
    chunk_count = -(-n // CHUNK)
    elements = [
        ("chunk", chunk_count, [("float", column) for column in CHUNK_COLUMNS]),
        ("vertex", n, [("uint", column) for column in PACKED]),
    ]
    if rest:
        elements.append(("sh", n, [("uchar", f"f_rest_{i}") for i in range(rest)]))
    on_stage(STAGE, 0.0)
    order = curve_order(splats.means)
    with new_file(path) as file:
        file.write(header(MODEL_COMMENTS[splats.model], elements))
        chunks_at = file.tell()
        vertices_at = chunks_at + chunk_count * 4 * len(CHUNK_COLUMNS)
        sh_at = vertices_at + n * 4 * len(PACKED)
        for rows in chunks(n, BLOCK_ROWS):
            on_stage(STAGE, 0.1 + 0.9 * rows.start / n)
            block = splats.take(order[rows])
            bounds, words = pack(block)
            _put(file, chunks_at + rows.start // CHUNK * 4 * len(CHUNK_COLUMNS), bounds)
            _put(file, vertices_at + rows.start * 4 * len(PACKED), words)
            if rest:
                _put(file, sh_at + rows.start * rest, pack_harmonics(block.shN.reshape(-1, rest)))
            _count_clamped(block, lost)
    return Written((path,), {what: count for what, count in lost.items() if count})


def pack(
    block: Splats,  # M splats, whole chunks of 256 but for the scene's last
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """(bounds of each chunk [C, 18], packed words [M, 4])."""
    scales = np.clip(block.scales, -MAX_LOG_SCALE, MAX_LOG_SCALE)
    colours = (block.sh0.astype(np.float64) * SH_C0 + 0.5).astype(np.float32)
    bounds, words = [], np.empty((len(block), 4), np.uint32)
    for column, values, bits in (
        (0, block.means, (11, 10, 11)),
        (2, scales, (11, 10, 11)),
        (3, colours, (8, 8, 8)),
    ):
        low, high, fractions = _within_chunks(values)
        bounds += [low, high]
        words[:, column] = _join(fractions, bits)
    with np.errstate(over="ignore"):
        alpha = 1 / (1 + np.exp(-block.opacities.astype(np.float64)))  # +-inf: exactly 1 and 0
    words[:, 3] = words[:, 3] << np.uint32(8) | np.rint(alpha * 255).astype(np.uint32)
    largest, others = smallest_three(block.quats)
    words[:, 1] = largest.astype(np.uint32) << np.uint32(30) | _join(
        others * np.sqrt(0.5) + 0.5, (10, 10, 10)
    )
    return np.concatenate(bounds, axis=1).astype("<f4"), words.astype("<u4")


def pack_harmonics(values: NDArray[np.float32]) -> NDArray[np.uint8]:  # [M, 3K]
    """Byte b decodes to the middle of its step, (b + 0.5) / 32 - 4, but 0 and 255 to -4 and 4."""
    steps = (values.astype(np.float64) / (2 * SH_RANGE) + 0.5) * 256
    inner = np.clip(np.floor(steps), 1, 254)
    return np.select([steps < 0.75, steps > 255.25], [0, 255], inner).astype(np.uint8)


def _within_chunks(
    values: NDArray[np.float32],  # [M, 3]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """(minimum [C, 3] and maximum of each chunk, where each value lies between them [M, 3])."""
    starts = np.arange(0, len(values), CHUNK)
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    chunk_of = np.arange(len(values)) // CHUNK
    base = low.astype(np.float64)
    span = high - base
    span[span == 0] = 1
    return low, high, (values - base[chunk_of]) / span[chunk_of]


def _join(fractions: NDArray[np.float64], bits: tuple[int, ...]) -> NDArray[np.uint32]:
    """Fractions 0..1 [M, len(bits)] as fields of one word each, the first one highest: [M]."""
    words = np.zeros(len(fractions), np.uint32)
    for column, width in enumerate(bits):
        top = (1 << width) - 1
        field = np.rint(np.clip(fractions[:, column], 0, 1) * top).astype(np.uint32)
        words = words << np.uint32(width) | field
    return words


def _put(file: BinaryIO, offset: int, array: NDArray[np.generic]) -> None:
    file.seek(offset)
    file.write(np.ascontiguousarray(array).data)


def _count_clamped(block: Splats, lost: dict[str, int]) -> None:
    for what, outside in (
        (f"scales beyond e^+-{MAX_LOG_SCALE:g}, clamped", np.abs(block.scales) > MAX_LOG_SCALE),
        (f"harmonics beyond +-{SH_RANGE:g}, clamped", np.abs(block.shN) > SH_RANGE),
    ):
        lost[what] = lost.get(what, 0) + int(outside.sum())
