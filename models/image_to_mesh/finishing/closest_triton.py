"""The search of `closest` as a Triton kernel: many points side by side, each with its own cells.

Knows nothing of textures. Needs no matrix units and no shared memory to speak of: it runs from
sm_75 up. `closest_compiled.search` is the same for one point.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _beyond(at, cell, side):
    """How far a coordinate lies outside the cell."""
    low = cell.to(tl.float32) * side
    return tl.maximum(tl.maximum(low - at, at - (low + side)), 0.0)


@triton.jit
def _margin(at, middle, ring, count, side):
    """To the nearest cell along one axis that no ring up to this one holds."""
    below = tl.where(middle - ring > 0, at - (middle - ring).to(tl.float32) * side, float("inf"))
    above = (middle + ring + 1).to(tl.float32) * side - at
    return tl.minimum(below, tl.where(middle + ring < count - 1, above, float("inf")))


@triton.jit
def _on_triangle(abx, aby, abz, acx, acy, acz, px, py, pz):
    """Weights of the second and third corner at the nearest point, and its squared distance.

    Ericson, Real-Time Collision Detection, 2005, section 5.1.5.
    """
    d1, d2 = abx * px + aby * py + abz * pz, acx * px + acy * py + acz * pz
    bb, cc = abx * abx + aby * aby + abz * abz, acx * acx + acy * acy + acz * acz
    bc = abx * acx + aby * acy + abz * acz
    d3, d4, d5, d6 = d1 - bb, d2 - bc, d1 - bc, d2 - cc
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    total = va + vb + vc
    v, w = vb / total, vc / total
    edge = (va <= 0) & (d4 - d3 >= 0) & (d5 - d6 >= 0)
    share = (d4 - d3) / ((d4 - d3) + (d5 - d6))
    v, w = tl.where(edge, 1 - share, v), tl.where(edge, share, w)
    edge = (vb <= 0) & (d2 >= 0) & (d6 <= 0)
    v, w = tl.where(edge, 0.0, v), tl.where(edge, d2 / (d2 - d6), w)
    edge = (vc <= 0) & (d1 >= 0) & (d3 <= 0)
    v, w = tl.where(edge, d1 / (d1 - d3), v), tl.where(edge, 0.0, w)
    corner = (d6 >= 0) & (d5 <= d6)
    v, w = tl.where(corner, 0.0, v), tl.where(corner, 1.0, w)
    corner = (d3 >= 0) & (d4 <= d3)
    v, w = tl.where(corner, 1.0, v), tl.where(corner, 0.0, w)
    corner = (d1 <= 0) & (d2 <= 0)
    v, w = tl.where(corner, 0.0, v), tl.where(corner, 0.0, w)
    x, y, z = px - v * abx - w * acx, py - v * aby - w * acy, pz - v * abz - w * acz
    return v, w, x * x + y * y + z * z


@triton.jit
def nearest(
    points,  # [P, 3] float32, from the grid's corner
    normals,  # [P, 3] float32; zero: any triangle may be found
    table,  # [F, 12] float32: first corner from the grid's corner, two edges, unit normal
    starts,  # [cells + 1] int32
    items,  # int32: triangles by cell
    side,  # of a cell
    count_x,
    count_y,
    count_z,
    bound,  # squared distance beyond which nothing is looked for
    size,  # P
    faces,  # [P] int32, -1 where nothing is near
    weights,  # [P, 3] float32
    squares,  # [P] float32, squared distance
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = row < size
    px = tl.load(points + 3 * row, mask=valid, other=0.0)
    py = tl.load(points + 3 * row + 1, mask=valid, other=0.0)
    pz = tl.load(points + 3 * row + 2, mask=valid, other=0.0)
    nx = tl.load(normals + 3 * row, mask=valid, other=0.0)
    ny = tl.load(normals + 3 * row + 1, mask=valid, other=0.0)
    nz = tl.load(normals + 3 * row + 2, mask=valid, other=0.0)
    cx = tl.minimum(tl.maximum(tl.floor(px / side).to(tl.int32), 0), count_x - 1)
    cy = tl.minimum(tl.maximum(tl.floor(py / side).to(tl.int32), 0), count_y - 1)
    cz = tl.minimum(tl.maximum(tl.floor(pz / side).to(tl.int32), 0), count_z - 1)
    best = tl.zeros([BLOCK], tl.float32) + bound
    face = tl.full([BLOCK], -1, tl.int32)
    best_v = tl.zeros([BLOCK], tl.float32)
    best_w = tl.zeros([BLOCK], tl.float32)
    looking = valid.to(tl.int32)
    ring = tl.program_id(0) * 0
    while tl.max(looking, 0) > 0:
        width = 2 * ring + 1
        for step in range(0, width * width * width):
            dx, dy, dz = (
                step // (width * width) - ring,
                step // width % width - ring,
                step % width - ring,
            )
            away = tl.maximum(tl.maximum(tl.abs(dx), tl.abs(dy)), tl.abs(dz))
            here = tl.where(away == ring, looking, 0)
            x, y, z = cx + dx, cy + dy, cz + dz
            inside = (x >= 0) & (x < count_x) & (y >= 0) & (y < count_y)
            inside = inside & (z >= 0) & (z < count_z) & (here > 0)
            far_x, far_y = _beyond(px, x, side), _beyond(py, y, side)
            far_z = _beyond(pz, z, side)
            inside = inside & (far_x * far_x + far_y * far_y + far_z * far_z < best)
            cell = (x * count_y + y) * count_z + z
            place = tl.load(starts + cell, mask=inside, other=0)
            stop = tl.load(starts + cell + 1, mask=inside, other=0)
            while tl.max(stop - place, 0) > 0:
                there = place < stop
                item = tl.load(items + place, mask=there, other=0)
                entry = table + 12 * item
                tx = tl.load(entry + 9, mask=there, other=0.0)
                ty = tl.load(entry + 10, mask=there, other=0.0)
                tz = tl.load(entry + 11, mask=there, other=0.0)
                faced = there & (tx * nx + ty * ny + tz * nz >= 0)
                qx = px - tl.load(entry, mask=faced, other=0.0)
                qy = py - tl.load(entry + 1, mask=faced, other=0.0)
                qz = pz - tl.load(entry + 2, mask=faced, other=0.0)
                height = tx * qx + ty * qy + tz * qz
                near = faced & (height * height < best)
                v, w, square = _on_triangle(
                    tl.load(entry + 3, mask=near, other=0.0),
                    tl.load(entry + 4, mask=near, other=0.0),
                    tl.load(entry + 5, mask=near, other=0.0),
                    tl.load(entry + 6, mask=near, other=0.0),
                    tl.load(entry + 7, mask=near, other=0.0),
                    tl.load(entry + 8, mask=near, other=0.0),
                    qx, qy, qz,
                )  # fmt: skip
                better = near & (square < best)
                best = tl.where(better, square, best)
                face = tl.where(better, item, face)
                best_v = tl.where(better, v, best_v)
                best_w = tl.where(better, w, best_w)
                place += 1
        margin = tl.minimum(
            _margin(px, cx, ring, count_x, side),
            tl.minimum(_margin(py, cy, ring, count_y, side), _margin(pz, cz, ring, count_z, side)),
        )
        looking = ((margin < float("inf")) & (margin * margin < best)).to(tl.int32) * looking
        ring += 1
    tl.store(faces + row, face, mask=valid)
    tl.store(weights + 3 * row, 1 - best_v - best_w, mask=valid)
    tl.store(weights + 3 * row + 1, best_v, mask=valid)
    tl.store(weights + 3 * row + 2, best_w, mask=valid)
    tl.store(squares + row, best, mask=valid)
