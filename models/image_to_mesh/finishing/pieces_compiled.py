"""The loops of `pieces`, compiled: who hangs together, how large it is, and what is in front.

Knows nothing of thresholds. Import it inside functions only (see `models.compiled`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.compiled import f32, f64, filled, i32, i64, inlined, kernel, taken

SUBPIXELS = 256
"""Corners are rounded to this share of a pixel: then sides are tested in whole numbers, and two
faces that share an edge leave no gap between them."""


@inlined
def root_of(parent: npt.NDArray[np.int32], vertex: int) -> int:
    while parent[vertex] != vertex:
        parent[vertex] = parent[parent[vertex]]
        vertex = parent[vertex]
    return vertex


@kernel(taken(i32, 2), filled(i32, 1), filled(i32, 1), returns=i64)
def label_pieces(
    faces: npt.NDArray[np.int32],  # (F, 3)
    parent: npt.NDArray[np.int32],  # (V,) the number of each vertex
    label: npt.NDArray[np.int32],  # (F,) written
) -> int:
    """Numbers the pieces that share vertices, in the order of their first faces; how many."""
    for face in range(len(faces)):
        a = root_of(parent, faces[face, 0])
        for corner in range(1, 3):
            b = root_of(parent, faces[face, corner])
            if b < a:
                a, b = b, a
            parent[b] = a
    number = np.full(len(parent), -1, np.int32)
    count = 0
    for face in range(len(faces)):
        root = root_of(parent, faces[face, 0])
        if number[root] < 0:
            number[root] = count
            count += 1
        label[face] = number[root]
    return count


@kernel(taken(f32, 2), taken(i32, 2), taken(i32, 1), filled(f64, 1), filled(f64, 1))
def measure_pieces(
    vertices: npt.NDArray[np.float32],  # (V, 3)
    faces: npt.NDArray[np.int32],  # (F, 3)
    label: npt.NDArray[np.int32],  # (F,)
    area: npt.NDArray[np.float64],  # (pieces,) added to
    volume: npt.NDArray[np.float64],  # (pieces,) added to: signed, about the piece's first corner
) -> None:
    first = np.full(len(area), -1, np.int64)
    for face in range(len(faces)):
        piece = label[face]
        a, b, c = vertices[faces[face, 0]], vertices[faces[face, 1]], vertices[faces[face, 2]]
        if first[piece] < 0:
            first[piece] = faces[face, 0]
        origin = vertices[first[piece]]
        ux, uy, uz = f64(b[0] - a[0]), f64(b[1] - a[1]), f64(b[2] - a[2])
        vx, vy, vz = f64(c[0] - a[0]), f64(c[1] - a[1]), f64(c[2] - a[2])
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        area[piece] += np.sqrt(nx * nx + ny * ny + nz * nz) / 2
        height = nx * (a[0] - origin[0]) + ny * (a[1] - origin[1]) + nz * (a[2] - origin[2])
        volume[piece] += height / 6


@kernel(
    *(taken(f32, 2), taken(i32, 2), taken(i32, 1), taken(f64, 2)),
    *(filled(i32, 2), filled(f32, 1), filled(f32, 2), filled(i32, 2), filled(i64, 1)),
)
def draw(
    vertices: npt.NDArray[np.float32],  # (V, 3)
    faces: npt.NDArray[np.int32],  # (F, 3)
    label: npt.NDArray[np.int32],  # (F,)
    view: npt.NDArray[np.float64],  # (3, 4) to (column, row) in pixels and depth, nearer is larger
    place: npt.NDArray[np.int32],  # (V, 2) scratch: corners in subpixels
    depth: npt.NDArray[np.float32],  # (V,) written
    nearest: npt.NDArray[np.float32],  # (side, side) starts at -inf
    front: npt.NDArray[np.int32],  # (side, side) the piece in front; starts at -1
    drawn: npt.NDArray[np.int64],  # (pieces,) pixels covered, hidden or not; added to
) -> None:
    """Both sides of each face, at each pixel whose centre it covers; edges belong to both faces."""
    for vertex in range(len(vertices)):
        x, y, z = vertices[vertex, 0], vertices[vertex, 1], vertices[vertex, 2]
        for axis in range(2):
            at = view[axis, 0] * x + view[axis, 1] * y + view[axis, 2] * z + view[axis, 3]
            place[vertex, axis] = np.int32(np.rint(at * SUBPIXELS))
        depth[vertex] = view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3]
    for face in range(len(faces)):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        ax, ay = i64(place[a, 0]), i64(place[a, 1])
        bx, by = i64(place[b, 0]), i64(place[b, 1])
        cx, cy = i64(place[c, 0]), i64(place[c, 1])
        twice = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if twice == 0:
            continue
        if twice < 0:
            b, c, bx, by, cx, cy, twice = c, b, cx, cy, bx, by, -twice
        # Pixel centres are whole numbers; >> 8 divides by SUBPIXELS and rounds down.
        first_row = -(-min(ay, by, cy) >> 8)
        first_column = -(-min(ax, bx, cx) >> 8)
        for row in range(first_row, (max(ay, by, cy) >> 8) + 1):
            y = row * SUBPIXELS
            for column in range(first_column, (max(ax, bx, cx) >> 8) + 1):
                x = column * SUBPIXELS
                to_a = (bx - x) * (cy - y) - (by - y) * (cx - x)
                to_b = (cx - x) * (ay - y) - (cy - y) * (ax - x)
                to_c = twice - to_a - to_b
                if to_a < 0 or to_b < 0 or to_c < 0:
                    continue
                drawn[label[face]] += 1
                z = f32((to_a * depth[a] + to_b * depth[b] + to_c * depth[c]) / twice)
                if z > nearest[row, column]:
                    nearest[row, column] = z
                    front[row, column] = label[face]
