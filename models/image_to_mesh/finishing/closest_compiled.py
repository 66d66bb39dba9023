"""The loops of `closest`, compiled: fill a grid with triangles, and search it.

Knows nothing of colours. Import it inside functions only (see `models.compiled`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.compiled import f32, f64, filled, i32, i64, inlined, kernel, taken

Floats = npt.NDArray[np.float64]


@kernel(taken(f32, 2), taken(i32, 2), filled(f32, 2), filled(f64, 2), returns=f64)
def fill_table(
    vertices: npt.NDArray[np.float32],  # (V, 3)
    faces: npt.NDArray[np.int32],  # (F, 3)
    table: npt.NDArray[np.float32],  # (F, 12) filled: see `closest.Surface`
    bounds: Floats,  # (2, 3) filled: lowest and highest corner
) -> float:
    """Returns the area."""
    bounds[0], bounds[1] = math.inf, -math.inf
    area = 0.0
    first, second = np.empty(3), np.empty(3)
    for face in range(len(faces)):
        a, b, c = faces[face]
        for axis in range(3):
            x, y, z = vertices[a, axis], vertices[b, axis], vertices[c, axis]
            bounds[0, axis] = min(bounds[0, axis], x, y, z)
            bounds[1, axis] = max(bounds[1, axis], x, y, z)
            first[axis], second[axis] = y - x, z - x
            table[face, axis] = x
            table[face, 3 + axis], table[face, 6 + axis] = first[axis], second[axis]
        nx = first[1] * second[2] - first[2] * second[1]
        ny = first[2] * second[0] - first[0] * second[2]
        nz = first[0] * second[1] - first[1] * second[0]
        doubled = math.sqrt(nx * nx + ny * ny + nz * nz)
        scale = 1 / max(doubled, 1e-30)
        table[face, 9], table[face, 10], table[face, 11] = nx * scale, ny * scale, nz * scale
        area += 0.5 * doubled
    return area


@inlined
def cell_range(low: float, high: float, count: int) -> tuple[int, int]:
    """First and last cell between two coordinates in cells, clipped to the grid."""
    first = min(max(int(math.floor(low)), 0), count - 1)
    return first, min(max(int(math.floor(high)), 0), count - 1)


@kernel(taken(f32, 2), f64[::1], f64, i64[::1], filled(i32, 1), filled(i32, 1), i64)
def visit_cells(
    table: npt.NDArray[np.float32],  # (F, 12) see `closest.Surface`
    low: Floats,  # (3,) corner of the grid
    cell: float,  # side of a cell
    counts: npt.NDArray[np.int64],  # (3,) cells along each axis
    cursor: npt.NDArray[np.int32],  # (cells,) how many were counted, or where the next one goes
    items: npt.NDArray[np.int32],  # triangles by cell; written when `fill`
    fill: int,
) -> None:
    """Each triangle in every cell of its box that its plane crosses."""
    half = 0.5 * cell * (1 + 1e-5)
    for face in range(len(table)):
        row = table[face]
        if row[9] == 0 and row[10] == 0 and row[11] == 0:
            continue  # without area; its neighbours hold every point of it
        reach = half * (abs(row[9]) + abs(row[10]) + abs(row[11])) + 1e-9 * cell
        x0, x1 = cell_range(
            (row[0] + min(0.0, row[3], row[6]) - low[0]) / cell,
            (row[0] + max(0.0, row[3], row[6]) - low[0]) / cell,
            counts[0],
        )
        y0, y1 = cell_range(
            (row[1] + min(0.0, row[4], row[7]) - low[1]) / cell,
            (row[1] + max(0.0, row[4], row[7]) - low[1]) / cell,
            counts[1],
        )
        z0, z1 = cell_range(
            (row[2] + min(0.0, row[5], row[8]) - low[2]) / cell,
            (row[2] + max(0.0, row[5], row[8]) - low[2]) / cell,
            counts[2],
        )
        for x in range(x0, x1 + 1):
            along_x = (low[0] + (x + 0.5) * cell - row[0]) * row[9]
            for y in range(y0, y1 + 1):
                along_y = along_x + (low[1] + (y + 0.5) * cell - row[1]) * row[10]
                for z in range(z0, z1 + 1):
                    along = along_y + (low[2] + (z + 0.5) * cell - row[2]) * row[11]
                    if abs(along) <= reach:
                        index = (x * counts[1] + y) * counts[2] + z
                        if fill:
                            items[cursor[index]] = face
                        cursor[index] += 1


@inlined
def on_triangle(
    row: npt.NDArray[np.float32],  # (12,)
    px: float,  # from the triangle's first corner to the point
    py: float,
    pz: float,
) -> tuple[float, float, float]:
    """Weights of the second and third corner at the nearest point, and its squared distance.

    Ericson, Real-Time Collision Detection, 2005, section 5.1.5.
    """
    abx, aby, abz = row[3], row[4], row[5]
    acx, acy, acz = row[6], row[7], row[8]
    d1, d2 = abx * px + aby * py + abz * pz, acx * px + acy * py + acz * pz
    bb, cc = abx * abx + aby * aby + abz * abz, acx * acx + acy * acy + acz * acz
    bc = abx * acx + aby * acy + abz * acz
    d3, d4, d5, d6 = d1 - bb, d2 - bc, d1 - bc, d2 - cc
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if d1 <= 0 and d2 <= 0:
        v, w = 0.0, 0.0
    elif d3 >= 0 and d4 <= d3:
        v, w = 1.0, 0.0
    elif d6 >= 0 and d5 <= d6:
        v, w = 0.0, 1.0
    elif vc <= 0 and d1 >= 0 and d3 <= 0:
        v, w = d1 / (d1 - d3), 0.0
    elif vb <= 0 and d2 >= 0 and d6 <= 0:
        v, w = 0.0, d2 / (d2 - d6)
    elif va <= 0 and d4 - d3 >= 0 and d5 - d6 >= 0:
        w = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        v = 1.0 - w
    else:
        total = 1.0 / (va + vb + vc)
        v, w = vb * total, vc * total
    x, y, z = px - v * abx - w * acx, py - v * aby - w * acy, pz - v * abz - w * acz
    return v, w, x * x + y * y + z * z


@inlined
def beyond(at: float, cell: int, side: float) -> float:
    """How far a coordinate lies outside the cell."""
    return max(cell * side - at, at - (cell + 1) * side, 0.0)


@inlined
def search(
    p: Floats,  # (3,) the point, from the grid's corner
    n: Floats,  # (3,) a direction that the triangle must face, or zero: any may be found
    table: npt.NDArray[np.float32],
    starts: npt.NDArray[np.int32],
    items: npt.NDArray[np.int32],
    low: Floats,
    side: float,
    counts: npt.NDArray[np.int64],
    bound: float,  # squared distance beyond which nothing is looked for
    seed: int,  # a triangle to begin with, or -1
) -> tuple[int, float, float, float]:
    """Triangle or -1, weights of its second and third corner, squared distance.

    Rings of cells around the point's own, until the next ring is farther than what was found.
    """
    best, face, best_v, best_w = bound, -1, 0.0, 0.0
    gx, gy, gz = p[0] + low[0], p[1] + low[1], p[2] + low[2]
    if seed >= 0:
        row = table[seed]
        if row[9] * n[0] + row[10] * n[1] + row[11] * n[2] >= 0:
            v, w, d = on_triangle(row, gx - row[0], gy - row[1], gz - row[2])
            if d < best:
                best, face, best_v, best_w = d, seed, v, w
    cx = min(max(int(math.floor(p[0] / side)), 0), counts[0] - 1)
    cy = min(max(int(math.floor(p[1] / side)), 0), counts[1] - 1)
    cz = min(max(int(math.floor(p[2] / side)), 0), counts[2] - 1)
    for ring in range(max(counts[0], counts[1], counts[2])):
        for x in range(max(cx - ring, 0), min(cx + ring, counts[0] - 1) + 1):
            far_x = beyond(p[0], x, side) ** 2
            if far_x >= best:
                continue
            for y in range(max(cy - ring, 0), min(cy + ring, counts[1] - 1) + 1):
                far_y = far_x + beyond(p[1], y, side) ** 2
                if far_y >= best:
                    continue
                inner = abs(x - cx) < ring and abs(y - cy) < ring
                step = max(2 * ring, 1) if inner else 1  # inside the ring: its two ends
                for z in range(cz - ring, cz + ring + 1, step):
                    if z < 0 or z >= counts[2] or far_y + beyond(p[2], z, side) ** 2 >= best:
                        continue
                    index = (x * counts[1] + y) * counts[2] + z
                    for place in range(starts[index], starts[index + 1]):
                        row = table[items[place]]
                        if row[9] * n[0] + row[10] * n[1] + row[11] * n[2] < 0:
                            continue
                        px, py, pz = gx - row[0], gy - row[1], gz - row[2]
                        height = row[9] * px + row[10] * py + row[11] * pz
                        if height * height >= best:
                            continue
                        v, w, d = on_triangle(row, px, py, pz)
                        if d < best:
                            best, face, best_v, best_w = d, items[place], v, w
        margin = math.inf  # to the nearest cell not looked at yet
        for axis, middle in enumerate((cx, cy, cz)):
            if middle - ring > 0:
                margin = min(margin, p[axis] - (middle - ring) * side)
            if middle + ring < counts[axis] - 1:
                margin = min(margin, (middle + ring + 1) * side - p[axis])
        if margin == math.inf or margin * margin >= best:
            break
    return face, best_v, best_w, best


@kernel(
    taken(f32, 2), taken(f32, 2), taken(f32, 2), taken(i32, 1), taken(i32, 1), f64[::1], f64,
    i64[::1], f64, i64, i64, filled(i32, 1), filled(f32, 2), filled(f32, 1),
)  # fmt: skip
def nearest(
    points: npt.NDArray[np.float32],  # (P, 3)
    normals: npt.NDArray[np.float32],  # (P, 3)
    table: npt.NDArray[np.float32],  # (F, 12)
    starts: npt.NDArray[np.int32],  # (cells + 1,)
    items: npt.NDArray[np.int32],
    low: Floats,
    side: float,
    counts: npt.NDArray[np.int64],
    reach: float,  # how far a triangle that faces the normal is looked for
    begin: int,
    end: int,
    faces: npt.NDArray[np.int32],  # (P,) filled
    weights: npt.NDArray[np.float32],  # (P, 3) filled
    distances: npt.NDArray[np.float32],  # (P,) filled
) -> None:
    p, n, nothing = np.empty(3), np.empty(3), np.zeros(3)
    face = -1
    for index in range(begin, end):
        for axis in range(3):
            p[axis], n[axis] = points[index, axis] - low[axis], normals[index, axis]
        # Points come in the order of texels: the last one's triangle is near this one's.
        face, v, w, d = search(p, n, table, starts, items, low, side, counts, reach * reach, face)
        if face < 0:
            face, v, w, d = search(
                p, nothing, table, starts, items, low, side, counts, math.inf, -1
            )
        faces[index], distances[index] = face, math.sqrt(d)
        weights[index, 0], weights[index, 1], weights[index, 2] = 1 - v - w, v, w
