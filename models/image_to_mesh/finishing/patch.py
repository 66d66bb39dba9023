"""A patch over one loop of points: triangles as fine as the loop, that use no edge twice.

Knows nothing of the mesh but the edges it already has between points of the loop. Liepa, Filling
holes in meshes, 2003: triangulate, then refine; where the vertices go is for `holes` to say.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LONGEST_FOR_AREA = 96
"""Points up to which the smallest area is searched for, in cubic time."""
ROUNDS = 12
MOST_NEW = 100_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


class Patch(NamedTuple):
    """points: (P, 3) the loop first, then new ones; triangles: (T, 3) int32, in the loop's sense"""

    points: Floats
    triangles: Ints


def patch(loop: Floats, taken_edge: npt.NDArray[np.bool_]) -> Patch:
    """loop (n, 3), n >= 3; taken_edge (n, n): the mesh already joins these two points.

    Every side of the loop gets one triangle and every other edge two; no edge is a taken one.
    """
    from models.image_to_mesh.finishing.patch_compiled import (
        refine,
        shortest_ears,
        smallest_area,
    )

    count = len(loop)
    if count == 3:  # one face is missing: by far the most frequent, and never too coarse
        return Patch(loop, np.array([[0, 1, 2]], np.int32))
    triangles = np.empty((count - 2, 3), np.int32)
    triangulate = smallest_area if count <= LONGEST_FOR_AREA else shortest_ears
    loop = np.ascontiguousarray(loop, np.float64)
    steps = np.linalg.norm(np.roll(loop, -1, axis=0) - loop, axis=1)
    points, spacing = loop, (steps + np.roll(steps, 1)) / 2
    if not triangulate(loop, taken_edge, triangles):
        # All its diagonals exist elsewhere: a point in the middle needs none.
        ring = np.arange(count, dtype=np.int32)
        triangles = np.stack((ring, np.roll(ring, -1), np.full_like(ring, count)), axis=1)
        points = np.concatenate((loop, loop.mean(axis=0, keepdims=True)))
        spacing = np.append(spacing, spacing.mean())
    fresh = min(MOST_NEW, count * count // 4 + 8)
    points = np.concatenate((points, np.zeros((fresh, 3))))
    spacing = np.concatenate((spacing, np.zeros(fresh)))
    room = np.full((len(triangles) + 2 * fresh, 3), -1, np.int32)
    room[: len(triangles)] = triangles
    beyond = np.full_like(room, -1)
    beyond[: len(triangles)] = _beyond(triangles)
    start, made = len(points) - fresh, len(triangles)
    total = int(refine(points, spacing, start, taken_edge, room, beyond, made, ROUNDS))
    return Patch(points[:total], room[: made + 2 * (total - start)])


def _beyond(triangles: Ints) -> Ints:
    """Across the side from corner k to k + 1 of each triangle: the other one with it, or -1."""
    sides = {
        (int(row[k]), int(row[(k + 1) % 3])): t for t, row in enumerate(triangles) for k in range(3)
    }
    return np.array(
        [
            [sides.get((int(row[(k + 1) % 3]), int(row[k])), -1) for k in range(3)]
            for row in triangles
        ],
        np.int32,
    )
