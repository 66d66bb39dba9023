"""Reads PlayCanvas .compressed.ply: splats in chunks of 256, packed into four 32-bit words each.

Does not know the plain 3DGS .ply. Both ages of the format are read: 12 chunk columns (colours
between 0 and 1) and 18 (colours between the chunk's own bounds), with or without harmonics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.readers.ply import model_of
from models.splat_to_sog.readers.ply_header import EXPORT_STEP, PlyHeader
from models.splat_to_sog.splats import COEFFICIENTS, SH_C0, Splats

CHUNK = 256
PACKED = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
BOUNDS = [f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"]
SCALE_BOUNDS = [f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"]
COLOUR_BOUNDS = [f"{end}_{channel}" for end in ("min", "max") for channel in "rgb"]
MAX_LOG_SCALE = 20.0


def read_compressed_ply(header: PlyHeader, name: str) -> Splats:
    chunks, packed = _checked(header, name)
    n = len(packed)
    chunk_of = np.arange(n) // CHUNK
    words = {column: np.array(packed[column]) for column in PACKED}  # [N] uint32 each

    scale_bounds = np.clip(_columns(chunks, SCALE_BOUNDS), -MAX_LOG_SCALE, MAX_LOG_SCALE)
    colours = _unpack(words["packed_color"], (8, 8, 8, 8))
    rgb = colours[:, :3]
    if "min_r" in (chunks.dtype.names or ()):
        rgb = _lerp(_columns(chunks, COLOUR_BOUNDS), chunk_of, rgb)
    with np.errstate(divide="ignore"):
        opacities = -np.log(1 / colours[:, 3] - 1)  # alpha 0 and 1 become -inf and +inf
    return Splats(
        means=_lerp(
            _columns(chunks, BOUNDS), chunk_of, _unpack(words["packed_position"], (11, 10, 11))
        ).astype(np.float32),
        scales=_lerp(scale_bounds, chunk_of, _unpack(words["packed_scale"], (11, 10, 11))).astype(
            np.float32
        ),
        quats=_unpack_quats(words["packed_rotation"]),
        opacities=opacities.astype(np.float32),
        sh0=((rgb - 0.5) / SH_C0).astype(np.float32),
        shN=_harmonics(header, n, name),
        model=model_of(header.comments),
    )


def _checked(header: PlyHeader, name: str) -> tuple[np.memmap[Any, Any], np.memmap[Any, Any]]:
    chunk, vertex = header.elements["chunk"], header.elements.get("vertex")
    if vertex is None:
        raise _refuse(name, "element 'vertex' is missing")
    for element, wanted in ((chunk, BOUNDS + SCALE_BOUNDS), (vertex, list(PACKED))):
        have = {column for column, _ in element.properties}
        missing = [column for column in wanted if column not in have]
        if element is chunk and have & set(COLOUR_BOUNDS):
            missing += [column for column in COLOUR_BOUNDS if column not in have]
        if missing:
            raise _refuse(name, f"element '{element.name}' lacks {', '.join(missing)}")
    wrong = [
        f"{column} ({kind})"
        for column, kind in vertex.properties
        if column in PACKED and kind != "<u4"
    ]
    if wrong:
        raise _refuse(name, f"packed properties must be of type uint, not {', '.join(wrong)}")
    needed = -(-vertex.count // CHUNK)
    if chunk.count != needed:
        raise _refuse(
            name,
            f"{vertex.count} splats need {needed} chunks of {CHUNK}, the file has {chunk.count}",
        )
    return header.records("chunk"), header.records("vertex")


def _columns(records: np.memmap[Any, Any], names: list[str]) -> NDArray[np.float64]:  # [C, len]
    return np.stack([np.asarray(records[column], np.float64) for column in names], axis=1)


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


def _unpack_quats(words: NDArray[np.uint32]) -> NDArray[np.float32]:  # [N, 4] w, x, y, z
    """Two bits name the largest component, which is left out; the others follow in order."""
    fields = (_unpack(words << np.uint32(2), (10, 10, 10)) - 0.5) * np.sqrt(2)
    largest = (words >> np.uint32(30)).astype(np.intp)
    quats = np.empty((len(words), 4), np.float32)
    left_out = np.sqrt(np.maximum(0, 1 - (fields**2).sum(axis=1)))
    for m in range(4):
        rows = largest == m
        quats[rows, m] = left_out[rows]
        for field, component in enumerate(c for c in range(4) if c != m):
            quats[rows, component] = fields[rows, field]
    return quats


def _harmonics(header: PlyHeader, n: int, name: str) -> NDArray[np.float32]:  # [N, 3, K]
    element = header.elements.get("sh")
    if element is None:
        return np.zeros((n, 3, 0), np.float32)
    count = len(element.properties)
    wanted = [(f"f_rest_{i}", "u1") for i in range(count)]
    if (
        element.count != n
        or element.properties != wanted
        or count not in [3 * k for k in COEFFICIENTS[1:4]]
    ):
        raise _refuse(
            name,
            f"element 'sh' has {element.count} rows of {count} properties; expected {n} rows of "
            "uchar f_rest_0 .. f_rest_8, _23 or _44",
        )
    bytes_ = header.records("sh").view(np.uint8).reshape(n, 3, count // 3)
    # Writers truncate, so a byte stands for the middle of its step; the ends stand for themselves.
    fraction = (np.arange(256, dtype=np.float32) + 0.5) / 256
    fraction[[0, 255]] = 0, 1
    return ((fraction - 0.5) * 8).astype(np.float32)[bytes_]


def _refuse(name: str, problem: str) -> InvalidInput:
    return InvalidInput(
        f"{name}: compressed PLY: {problem}.", code="splat_header", next_step=EXPORT_STEP
    )
