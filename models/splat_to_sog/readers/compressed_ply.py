"""Reads PlayCanvas .compressed.ply: splats in chunks of 256, packed into four 32-bit words each.

Does not know the plain 3DGS .ply. Both ages of the format are read: 12 chunk columns (colours
between 0 and 1) and 18 (colours between the chunk's own bounds), with or without harmonics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.layout_compressed_ply import (
    BOUNDS,
    CHUNK,
    COLOUR_BOUNDS,
    MAX_LOG_SCALE,
    PACKED,
    SCALE_BOUNDS,
    SH_RANGE,
)
from models.splat_to_sog.readers.ply import model_of
from models.splat_to_sog.readers.ply_header import EXPORT_STEP, PlyHeader
from models.splat_to_sog.scratch import Scratch
from models.splat_to_sog.splats import COEFFICIENTS, SH_C0, Float32, Splats


def read_compressed_ply(header: PlyHeader, name: str, scratch: Scratch | None = None) -> Splats:
    count, degree = _checked(header, name)
    bounds, scale_bounds, colour_bounds = _bounds(header, name)
    splats = Splats.empty(count, degree, scratch=scratch, model=model_of(header.comments))

    def unpack(rows: slice, records: NDArray[Any]) -> None:
        chunk_of = np.arange(rows.start, rows.stop) // CHUNK
        position, rotation, scale, colour = (records[c].astype(np.uint32) for c in PACKED)
        splats.means[rows] = _lerp(bounds, chunk_of, _unpack(position, (11, 10, 11)))
        splats.scales[rows] = _lerp(scale_bounds, chunk_of, _unpack(scale, (11, 10, 11)))
        splats.quats[rows] = _unpack_quats(rotation)
        rgba = _unpack(colour, (8, 8, 8, 8))
        rgb = rgba[:, :3]
        if colour_bounds is not None:
            rgb = _lerp(colour_bounds, chunk_of, rgb)
        splats.sh0[rows] = (rgb - 0.5) / SH_C0
        with np.errstate(divide="ignore"):
            splats.opacities[rows] = -np.log(1 / rgba[:, 3] - 1)  # alpha 0 and 1: -inf and +inf

    header.each_block("vertex", unpack, name)
    if degree:
        flat = splats.shN.reshape(count, -1)
        table = _harmonics_table()

        def look_up(rows: slice, records: NDArray[Any]) -> None:
            flat[rows] = table[records.view(np.uint8).reshape(len(records), -1)]

        header.each_block("sh", look_up, name)
    return splats


def _checked(header: PlyHeader, name: str) -> tuple[int, int]:
    """Splats and spherical-harmonics degree."""
    chunk, vertex = header.elements["chunk"], header.elements.get("vertex")
    if vertex is None:
        raise _refuse(name, "element 'vertex' is missing")
    for element, wanted in ((chunk, BOUNDS + SCALE_BOUNDS), (vertex, list(PACKED))):
        have = element.properties
        missing = [column for column in wanted if column not in have]
        if element is chunk and have.keys() & set(COLOUR_BOUNDS):
            missing += [column for column in COLOUR_BOUNDS if column not in have]
        if missing:
            raise _refuse(name, f"element '{element.name}' lacks {', '.join(missing)}")
    wrong = [
        f"{column} ({kind[1:]})"
        for column, kind in vertex.properties.items()
        if column in PACKED and not kind.endswith("u4")
    ]
    if wrong:
        raise _refuse(name, f"packed properties must be of type uint, not {', '.join(wrong)}")
    needed = -(-vertex.count // CHUNK)
    if chunk.count != needed:
        raise _refuse(
            name,
            f"{vertex.count} splats need {needed} chunks of {CHUNK}, the file has {chunk.count}",
        )
    return vertex.count, _degree(header, vertex.count, name)


def _degree(header: PlyHeader, count: int, name: str) -> int:
    element = header.elements.get("sh")
    if element is None:
        return 0
    width = len(element.properties)
    allowed = [3 * k for k in COEFFICIENTS[1:4]]
    columns = {f"f_rest_{i}" for i in range(width)}
    bytes_only = all(kind.endswith("u1") for kind in element.properties.values())
    in_order = list(element.properties) == sorted(columns, key=lambda c: int(c[len("f_rest_") :]))
    if element.count != count or width not in allowed or not bytes_only or not in_order:
        raise _refuse(
            name,
            f"element 'sh' has {element.count} rows of {width} properties; expected {count} rows "
            "of uchar f_rest_0 .. f_rest_8, _23 or _44",
        )
    return COEFFICIENTS.index(width // 3)


def _bounds(
    header: PlyHeader, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
    """[C, 6] minimum and maximum of three columns for position, log scale and colour."""
    chunk = header.elements["chunk"]
    columns = BOUNDS + SCALE_BOUNDS
    if COLOUR_BOUNDS[0] in chunk.properties:
        columns = columns + COLOUR_BOUNDS
    table = np.empty((chunk.count, len(columns)))

    def pick(rows: slice, records: NDArray[Any]) -> None:
        for index, column in enumerate(columns):
            table[rows, index] = records[column]

    header.each_block("chunk", pick, name)
    colours = table[:, 12:] if table.shape[1] == 18 else None
    return table[:, :6], np.clip(table[:, 6:12], -MAX_LOG_SCALE, MAX_LOG_SCALE), colours


def _unpack(words: NDArray[np.uint32], bits: tuple[int, ...]) -> NDArray[np.float64]:
    """Fields of [N] words, the first one in the highest bits, as fractions 0..1: [N, len(bits)]."""
    out = np.empty((len(words), len(bits)))
    shift = 32
    for column, width in enumerate(bits):
        shift -= width
        mask = (1 << width) - 1
        out[:, column] = ((words >> np.uint32(shift)) & np.uint32(mask)) / mask
    return out


def _lerp(
    bounds: NDArray[np.float64],  # [C, 6] minimum and maximum of three columns
    chunk_of: NDArray[np.intp],  # [N]
    t: NDArray[np.float64],  # [N, 3] 0..1
) -> NDArray[np.float64]:
    low, high = bounds[chunk_of, :3], bounds[chunk_of, 3:]
    return low * (1 - t) + high * t


def _unpack_quats(words: NDArray[np.uint32]) -> NDArray[np.float64]:  # [N, 4] w, x, y, z
    """Two bits name the largest component, which is left out; the others follow in order."""
    fields = (_unpack(words << np.uint32(2), (10, 10, 10)) - 0.5) * np.sqrt(2)
    largest = (words >> np.uint32(30)).astype(np.intp)
    quats = np.empty((len(words), 4))
    left_out = np.sqrt(np.maximum(0, 1 - (fields**2).sum(axis=1)))
    for m in range(4):
        rows = largest == m
        quats[rows, m] = left_out[rows]
        for field, component in enumerate(c for c in range(4) if c != m):
            quats[rows, component] = fields[rows, field]
    return quats


def _harmonics_table() -> Float32:  # [256]
    """Writers truncate, so a byte stands for the middle of its step; the ends for themselves."""
    fraction = (np.arange(256, dtype=np.float32) + 0.5) / 256
    fraction[[0, 255]] = 0, 1
    return ((fraction - 0.5) * (2 * SH_RANGE)).astype(np.float32)


def _refuse(name: str, problem: str) -> InvalidInput:
    return InvalidInput(
        f"{name}: compressed PLY: {problem}.", code="splat_header", next_step=EXPORT_STEP
    )
