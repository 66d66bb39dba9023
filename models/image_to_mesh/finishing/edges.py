"""Edges of a triangle mesh: which of them bound a hole, and whether the mesh is closed.

Knows nothing of positions. An edge that one face passes from a to b must be passed by one other
face, from b to a; what breaks that rule is a border or, with more than two faces, irregular.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Faces = npt.NDArray[np.int32]
Indices = npt.NDArray[np.int64]


class Edges(NamedTuple):
    """Edges that do not have one face on each side.

    border:    (B, 2) int64, from a to b as the only face at the edge passes it
    irregular: (I, 2) int64, lower vertex first: more than two faces, or two that pass it alike
    """

    border: Indices
    irregular: Indices


def unpaired(faces: Faces) -> Edges:  # (F, 3)
    """Both kinds in ascending order, whatever the order of the faces."""
    if len(faces) == 0:
        return Edges(np.empty((0, 2), np.int64), np.empty((0, 2), np.int64))
    keys, count = _keys(faces)
    edge = keys >> 1
    first = np.flatnonzero(np.concatenate(([True], edge[1:] != edge[:-1])))
    length = np.diff(first, append=len(edge))
    alone = first[length == 1]
    pairs = first[length == 2]
    alike = pairs[keys[pairs] == keys[pairs + 1]]
    several = np.sort(np.concatenate((first[length > 2], alike)))
    return Edges(_ends(keys[alone], count), _ends(keys[several] & ~1, count))


def is_closed(faces: Faces) -> bool:  # (F, 3)
    """Every edge has exactly two faces, which pass it in opposite directions."""
    if len(faces) == 0:
        return False
    keys, _ = _keys(faces)
    if len(keys) % 2:
        return False
    first, second = keys[0::2], keys[1::2]
    # Sorted, an edge's two faces lie side by side: passed upwards (even), then downwards.
    paired = ((first & 1) == 0) & (second == first + 1)
    return bool(paired.all() and (first[1:] != first[:-1]).all())


def compact(
    vertices: npt.NDArray[np.floating], faces: Faces, *attributes: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.floating], Faces, tuple[npt.NDArray[np.floating], ...]]:
    """Leave out the vertices (and rows of attributes) that no face uses; their order stays."""
    used = np.zeros(len(vertices), bool)
    used[faces.reshape(-1)] = True
    number = np.cumsum(used, dtype=np.int32) - 1
    return vertices[used], number[faces], tuple(rows[used] for rows in attributes)


def _keys(faces: Faces) -> tuple[Indices, int]:
    """Sorted, for each side of each face: (lower vertex, upper vertex, 1 if passed downwards)."""
    start = faces.astype(np.int64)
    end = np.roll(start, -1, axis=1)
    count = int(start.max()) + 1
    lower, upper = np.minimum(start, end), np.maximum(start, end)
    keys = ((lower * count + upper) * 2 + (start > end)).reshape(-1)
    keys.sort()
    return keys, count


def _ends(keys: Indices, count: int) -> Indices:
    """(E,) keys -> (E, 2) vertices, in the direction the key says."""
    lower, upper = np.divmod(keys >> 1, count)
    down = (keys & 1) == 1
    return np.stack((np.where(down, upper, lower), np.where(down, lower, upper)), axis=1)
