"""Number a mesh anew so that neighbours come one after another, as meshopt's streams want it.

Knows nothing of the streams. Triangles follow one another across shared edges, vertices stand in
the order in which triangles first meet them; the surface, its seams and its winding stay.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def in_order(faces: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], Indices]:
    """(F, 3) -> the triangles in their new order and numbers, and each new vertex's old number.

    Vertices that no triangle uses are left out.
    """
    from models.image_to_mesh.finishing.meshopt_order_compiled import walk

    faces = np.ascontiguousarray(faces)
    flat = faces.reshape(-1)
    left = np.bincount(flat)
    begin = np.concatenate(([0], np.cumsum(left)))
    order, done = np.empty(len(faces), np.int64), np.zeros(len(faces), bool)
    walk(faces, opposite(faces), np.argsort(flat, kind="stable"), begin, left, done, order)
    flat = faces[order].reshape(-1)
    old, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
    rank = np.argsort(first)
    number = np.empty(len(old), np.int32)
    number[rank] = np.arange(len(old))
    return number[inverse.reshape(-1)].reshape(-1, 3), old[rank].astype(np.int64)


def opposite(faces: npt.NDArray[np.int32]) -> Indices:
    """(F, 3) -> (3 F,): for side 3 f + k, from corner k on, the side that passes it back; -1: none.

    Where more than one does, any of them.
    """
    start = faces.reshape(-1).astype(np.int64)
    end = np.roll(faces, -1, axis=1).reshape(-1).astype(np.int64)
    count = int(faces.max(initial=0)) + 1
    there, back = start * count + end, end * count + start
    order = np.argsort(there, kind="stable")
    place = np.minimum(np.searchsorted(there, back, sorter=order), len(order) - 1)
    found = order[place]
    return np.where(there[found] == back, found, -1)
