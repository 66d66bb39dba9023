"""Directions as two numbers: the OCTAHEDRAL filter of EXT_meshopt_compression, there and back.

Knows nothing of streams. The unit sphere is drawn onto an octahedron and its lower half folded out
over the square of the upper. Format: Khronos EXT_meshopt_compression, appendix B, filter 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Kind = type[np.int8] | type[np.int16]


def encode_octahedral(
    vectors: npt.NDArray[np.float32],  # (N, 3) unit
    bits: int,  # of each number, 2 to those of the kind
    kind: Kind,
    fourth: npt.NDArray[np.float32] | float = 0,  # (N,) passed through
) -> npt.NDArray[Any]:
    """(N, 4): x and y on the square, what stands for one, and the fourth."""
    one = (1 << (bits - 1)) - 1
    flat = vectors / np.maximum(np.abs(vectors).sum(axis=1, keepdims=True), 1e-30)
    folded = np.copysign(1 - np.abs(flat[:, 1::-1]), flat[:, :2])
    square = np.where(flat[:, 2:] < 0, folded, flat[:, :2])
    rows = np.empty((len(vectors), 4), kind)
    rows[:, :2], rows[:, 2], rows[:, 3] = np.round(square * one), one, fourth
    return rows


def decode_octahedral(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:  # (N, 4) int8 or int16
    """(N, 4) of the same kind: a unit vector, normalised as glTF says, and the fourth."""
    one = rows[:, 2].astype(np.float32)
    x, y = rows[:, 0] / one, rows[:, 1] / one
    z = 1 - np.abs(x) - np.abs(y)
    below = np.minimum(z, 0)
    x, y = x - np.copysign(below, x), y - np.copysign(below, y)
    length = np.sqrt(x * x + y * y + z * z)
    vectors = np.stack((x, y, z), axis=1) / length[:, None] * np.iinfo(rows.dtype).max
    return np.hstack((np.round(vectors).astype(rows.dtype), rows[:, 3:]))
