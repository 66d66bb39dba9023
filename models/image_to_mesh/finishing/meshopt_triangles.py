"""Triangles in about a byte each: mode 1, TRIANGLES, of EXT_meshopt_compression.

Knows nothing of positions. A triangle is told by an edge it shares with one of the last few and by
its third vertex, so both should lie near in their lists: see `meshopt_order`. Format: Khronos
EXT_meshopt_compression, appendix A, mode 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

HEADER = b"\xe1"
TABLE_SIZE, TABLE_USED = 16, 14
"""Of pairs that a code alone can tell; the format keeps the last two zero."""


def encode_triangles(faces: npt.NDArray[np.int32]) -> bytes:  # (F, 3)
    """The triangles as a stream: same order, same winding; which corner comes first may change."""
    from models.image_to_mesh.finishing.meshopt_triangles_compiled import encode

    faces = np.ascontiguousarray(faces)
    codes = np.empty(len(faces), np.uint8)
    data = np.empty(16 * len(faces), np.uint8)  # a pair and three numbers of five bytes
    pairs = np.zeros(256, np.int64)
    encode(faces, np.full(256, -1), codes, data, pairs)
    # Three new vertices without a place in the table would read as a restart: always the first.
    pairs[0] = len(faces) + 1
    often = np.argsort(-pairs, kind="stable")[:TABLE_USED]
    place = np.full(256, -1)
    place[often] = np.arange(TABLE_USED)
    used = encode(faces, place, codes, data, pairs)
    table = often.astype(np.uint8).tobytes() + bytes(TABLE_SIZE - TABLE_USED)
    return b"".join((HEADER, codes.tobytes(), data[:used].tobytes(), table))
