"""For points near a surface, the nearest point of the surface that faces the same way.

Knows nothing of textures. Exact on triangles: a uniform grid says which of them can be nearest.
`nearest_plain` is the reference: every point against every triangle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.cores import in_ranges
from models.image_to_mesh.geometry.surface import Faces

Array = npt.NDArray[np.float32]

CELL_SIDE = 2.5
"""Of a square of the mean triangle's area: some thirty triangles then touch a cell."""
MAX_CELLS = 1 << 24
REACH_SHARE = 0.02
"""How far the facing surface is looked for, as a share of the object's size. Beyond it the nearest
point counts, whichever way it faces: a sheet's other side is better than the far side of a room."""


@dataclass(frozen=True)
class Nearest:
    """Of each point: face (P,) int32; weights (P, 3) float32 barycentric; distance (P,) float32."""

    face: npt.NDArray[np.int32]
    weights: Array
    distance: Array

    def interpolate(self, values: Array, faces: Faces) -> Array:  # (V, C), (F, 3) -> (P, C)
        result = np.zeros((len(self.face), values.shape[1]), np.float32)
        for corner in range(3):
            result += self.weights[:, corner, None] * values[faces[self.face, corner]]
        return result


@dataclass(frozen=True)
class Surface:
    """Triangles, and which of them each cell of a grid holds.

    table:  (F, 12) float32: first corner, edges to the second and third, unit normal
    starts: (cells + 1,) int32: a cell's triangles are items[starts[cell] : starts[cell + 1]]
    items:  int32
    low:    (3,) corner of the grid; side: of a cell; counts: (3,) cells along each axis
    reach:  how far a facing triangle is looked for
    """

    table: Array
    starts: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    low: npt.NDArray[np.float64]
    side: float
    counts: npt.NDArray[np.int64]
    reach: float

    def nearest(
        self,
        points: Array,  # (P, 3)
        normals: Array,  # (P, 3)
        check: Callable[[], None] = lambda: None,  # called now and then; may raise to stop
    ) -> Nearest:
        from models.image_to_mesh.finishing import closest_compiled as loops

        face = np.empty(len(points), np.int32)
        weights = np.empty((len(points), 3), np.float32)
        distance = np.empty(len(points), np.float32)

        def some(begin: int, end: int) -> None:
            loops.nearest(
                points, normals, self.table, self.starts, self.items, self.low, self.side,
                self.counts, self.reach, begin, end, face, weights, distance,
            )  # fmt: skip

        in_ranges(some, len(points), check)
        return Nearest(face, weights, distance)


def build_surface(vertices: Array, faces: Faces) -> Surface:  # (V, 3), (F, 3)
    from models.image_to_mesh.finishing import closest_compiled as loops

    table, bounds = np.empty((len(faces), 12), np.float32), np.empty((2, 3))
    area = loops.fill_table(
        np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces), table, bounds
    )
    low, high = bounds
    side, counts = grid_of(low, high, area, len(faces))
    cursor = np.zeros(int(counts.prod()), np.int32)
    loops.visit_cells(table, low, side, counts, cursor, np.empty(0, np.int32), 0)
    starts = np.zeros(len(cursor) + 1, np.int32)
    np.cumsum(cursor, out=starts[1:])
    items = np.empty(int(starts[-1]), np.int32)
    loops.visit_cells(table, low, side, counts, starts[:-1].copy(), items, 1)
    return Surface(table, starts, items, low, side, counts, REACH_SHARE * float((high - low).max()))


def grid_of(
    low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], area: float, faces: int
) -> tuple[float, npt.NDArray[np.int64]]:  # (3,), (3,) -> side of a cell, cells along each axis
    extent = high - low
    side = max(CELL_SIDE * (area / faces) ** 0.5, 1e-3 * float(extent.max()), 1e-12)
    while np.prod(np.floor(extent / side) + 1) > MAX_CELLS:
        side *= 1.1
    return side, (np.floor(extent / side) + 1).astype(np.int64)
