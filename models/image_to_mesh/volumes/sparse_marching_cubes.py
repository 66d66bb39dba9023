"""The surface of a field on sparse voxels, as triangles: marching cubes without a grid.

Lorensen and Cline, 1987, with the asymptotic decider of Nielson and Hamann, 1991, on faces where
the corners' signs leave a choice: neighbours choose alike, so a field with no gaps near its surface
gives a closed mesh. Knows nothing of where a field comes from; memory follows the surface.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.image_to_mesh.volumes.cube_cases import (
    CENTRE,
    CORNERS,
    EDGE_AXIS,
    EDGES,
    FACES,
    CubeCases,
    cube_cases,
)
from models.image_to_mesh.volumes.voxel_index import (
    ROOM,
    STEPS,
    VoxelIndex,
    coords_of,
    key_of,
)

MARGIN = 1e-3
"""Of an edge: a vertex stays this far from its ends, where it would meet those of other edges and
triangles would lose their area."""
AT_ONCE = 1 << 22
"""Voxels or cubes looked up together: bounds what is held beside the surface to some 500 MB."""


class Surface(NamedTuple):
    """vertices: fp32 [P, 3] in voxels, voxel (0, 0, 0) at the origin; faces: int64 [F, 3], counter-
    clockwise seen from where the field is above the level."""

    vertices: Tensor
    faces: Tensor


def sparse_marching_cubes(
    coords: Tensor,  # int [N, 3] in [0, resolution), each voxel once, in any order
    values: Tensor,  # [N] float; inside where < level
    level: float = 0.0,
    resolution: int = 1024,
    *,
    outside: float | None = None,
) -> Surface:
    """Where the field crosses `level`; no vertices where it does not.

    A voxel that is not given has no value: a cube with such a corner is left out, and the mesh
    ends there. With `outside`, a value not below the level, every such voxel has that value, beyond
    the grid too: the mesh is closed whatever is given. Vertices and faces do not depend on the
    order of the voxels. Raises ValueError for coordinates out of range or given twice.
    """
    _check(coords, values, level, resolution, outside)
    keys, order = key_of(coords).sort()
    if len(keys) > 1 and bool((keys[1:] == keys[:-1]).any()):
        raise ValueError("A voxel is given twice.")
    # Above the level, as fp32: what neighbours compare must be the same numbers.
    field = _Field(VoxelIndex(keys), values[order].float() - level, _above(outside, level))
    # 1. Edges that the surface crosses, and a vertex on each.
    edges, vertices = _crossed_edges(field)
    # 2. The triangles of the cubes around them.
    return _faces(field, edges, vertices)


def _check(
    coords: Tensor, values: Tensor, level: float, resolution: int, outside: float | None
) -> None:
    if coords.ndim != 2 or coords.shape[1] != 3 or values.shape != coords.shape[:1]:
        raise ValueError(
            f"coords must be [N, 3] and values [N], not {list(coords.shape)} and "
            f"{list(values.shape)}."
        )
    if not 0 < resolution <= ROOM:
        raise ValueError(f"resolution must be 1 to {ROOM}, not {resolution}.")
    if len(coords) and not 0 <= int(coords.amin()) <= int(coords.amax()) < resolution:
        raise ValueError(
            f"coords must be in [0, {resolution}), not {int(coords.amin())} to "
            f"{int(coords.amax())}."
        )
    if outside is not None and not level <= outside < float("inf"):
        raise ValueError(f"outside must be finite and at least {level}, not {outside}.")


def _above(outside: float | None, level: float) -> float | None:
    return None if outside is None else float(torch.tensor(outside, dtype=torch.float32) - level)


class _Field:
    """Values less the level at voxels, and what is elsewhere: a value, or nothing."""

    def __init__(self, index: VoxelIndex, values: Tensor, outside: float | None) -> None:
        self.index = index
        self.values = values
        self.outside = outside

    def at(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Values, and whether there is one, both in the shape of `keys`."""
        rows, known = self.index.find(keys)
        if self.outside is None:
            return self.values[rows], known
        if len(self.values) == 0:
            return torch.full_like(keys, self.outside, dtype=torch.float32), ~known
        return self.values[rows].masked_fill(~known, self.outside), torch.ones_like(known)


def _crossed_edges(field: _Field) -> tuple[Tensor, Tensor]:
    """Crossed edges as 4 * key of the lower end + axis, int64 [E] ascending; vertices fp32 [E, 3].

    Every crossed edge has one end inside, a voxel that is given: it is found once, from there.
    """
    names, places = [], []
    inside = (field.values < 0).nonzero().flatten()
    for rows in inside.split(AT_ONCE):
        own_keys, own = field.index.keys[rows], field.values[rows]
        for axis, step in enumerate(STEPS):
            for sign in (1, -1):
                other, known = field.at(own_keys + sign * step)
                crossed = (known & (other >= 0)).nonzero().flatten()
                start, a, b = own_keys[crossed], own[crossed], other[crossed]
                share = (a / (a - b)).clamp_(MARGIN, 1 - MARGIN)
                place = coords_of(start).float()
                place[:, axis] += sign * share
                names.append((start if sign > 0 else start - step) * 4 + axis)
                places.append(place)
    if not names:
        empty = field.values.new_empty(0)
        return empty.long(), empty.reshape(0, 3)
    edges, order = torch.cat(names).sort()
    return edges, torch.cat(places)[order]


def _faces(field: _Field, edges: Tensor, vertices: Tensor) -> Surface:
    """The triangles of all cubes at the edges whose corners all have a value."""
    tables = cube_cases().to(edges.device)
    corner_steps = torch.tensor([_step(corner) for corner in range(8)], device=edges.device)
    middles: list[Tensor] = []
    faces: list[Tensor] = []
    count = len(vertices)
    for keys in _around(edges).split(AT_ONCE // 8):
        values, known = field.at(keys[:, None] + corner_steps)
        whole = known.all(dim=1).nonzero().flatten()
        triangles, middle = _triangles(
            keys[whole], _rows(values[whole], tables), tables, edges, vertices, count
        )
        faces.append(triangles)
        middles.append(middle)
        count += len(middle)
    return Surface(torch.cat((vertices, *middles)), torch.cat((edges.new_empty(0, 3), *faces)))


def _step(corner: int) -> int:
    return sum(STEPS[axis] * CORNERS[corner][axis] for axis in range(3))


def _around(edges: Tensor) -> Tensor:
    """The four cubes at each edge, each cube once: int64 [M], ascending."""
    key, axis = edges >> 2, edges & 3
    steps = torch.tensor(STEPS, device=edges.device)
    u, v = steps[(axis + 1) % 3], steps[(axis + 2) % 3]
    cubes: Tensor = torch.cat((key, key - u, key - v, key - u - v)).unique()
    return cubes


def _rows(values: Tensor, tables: CubeCases) -> Tensor:  # fp32 [M, 8] -> int64 [M]
    """Rows of the tables: the case, and on ambiguous faces whether the inside is joined."""
    inside = values < 0
    case = torch.zeros_like(values[:, 0], dtype=torch.int64)
    for corner in range(8):
        case |= inside[:, corner].long() << corner
    row = case.clone()
    for number, (a, b, c, d) in enumerate(FACES):
        # The bilinear field of the face is inside at its saddle where this holds. A product does
        # not depend on the order of its factors, so both cubes of a face find the same.
        first, second = values[:, a] * values[:, c], values[:, b] * values[:, d]
        joined = torch.where(inside[:, a], first > second, second > first)
        row |= (joined & tables.ambiguous[case, number]).long() << 8 + number
    return row


def _triangles(
    keys: Tensor,  # int64 [M] of the cubes' lowest corners
    rows: Tensor,  # int64 [M] of the tables
    tables: CubeCases,
    edges: Tensor,  # int64 [E] ascending
    vertices: Tensor,  # fp32 [E, 3] on them
    first_middle: int,
) -> tuple[Tensor, Tensor]:
    """Faces int64 [T, 3], and fp32 [C, 3] the middles that some cubes need, as further vertices."""
    count = tables.count[rows]
    total = int(count.sum())
    cube = torch.arange(len(rows), device=rows.device).repeat_interleave(count, output_size=total)
    slot = torch.arange(total, device=rows.device) - (count.cumsum(0) - count)[cube]
    local = tables.triangles[rows[cube], slot]  # [T, 3]
    lower = torch.tensor([_step(edge[0]) * 4 for edge in EDGES], device=rows.device)
    name = lower + torch.tensor(EDGE_AXIS, device=rows.device)
    central = local == CENTRE
    wanted = keys[cube, None] * 4 + name[local.masked_fill(central, 0)]
    faces = torch.searchsorted(edges, wanted)
    with_middle = tables.centred[rows]
    if not bool(with_middle.any()):
        return faces, vertices[:0]
    number = with_middle.cumsum(0) - 1
    faces = torch.where(central, first_middle + number[cube, None], faces)
    # CENTRE is the third corner; the first ones pass each vertex of the loop once.
    centred = with_middle.nonzero().flatten()
    loop = tables.triangles[rows[centred]]  # [C, T, 3]
    member = (loop[..., 2] == CENTRE)[..., None]
    at = torch.searchsorted(edges, keys[centred, None] * 4 + name[loop[..., 0]])
    around = vertices[at.clamp_(max=len(vertices) - 1)].masked_fill(~member, 0)
    return faces, around.sum(dim=1) / member.sum(dim=1)
