"""Dual surface of a signed field on cubes, shaped by weights that a network predicts: FlexiCubes.

Shen et al., Flexible Isosurface Extraction for Gradient-Based Mesh Optimization, SIGGRAPH 2023.
Inference only, and only on the cubes given: nothing here knows of a dense grid or of a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.image_to_mesh.trellis.dual_cases import EDGE_AXIS, EDGES, DualCases, dual_cases

WEIGHT_SCALE = 0.99
"""Weights stay this share inside their range (0, 2), or (0, 1) for gamma: no division by zero."""


@dataclass(frozen=True)
class Grid:
    """The field at the grid's vertices, as a cube's corners name them.

    positions:  [V, 3]  moved corners, any unit
    sdf:        [V]     negative inside
    attributes: [V, A]  interpolated along with the positions
    """

    positions: Tensor
    sdf: Tensor
    attributes: Tensor


@dataclass(frozen=True)
class Cubes:
    """Cubes of a grid, and their raw weights (before tanh and sigmoid).

    coords:  int64 [M, 3], each cube once, 0 <= coords < 2^20
    corners: int64 [M, 8] into the grid's vertices, corner i at bits (x, y, z) of i
    beta:    [M, 12] of edges; alpha: [M, 8] of corners; gamma: [M] of the cube
    """

    coords: Tensor
    corners: Tensor
    beta: Tensor
    alpha: Tensor
    gamma: Tensor

    def __len__(self) -> int:
        return self.coords.shape[0]

    def take(self, rows: Tensor) -> Cubes:
        return Cubes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Surface:
    """vertices: [P, 3] in the grid's unit; attributes: [P, A]; faces: int64 [F, 3] over vertices,
    counter-clockwise seen from where the field is positive."""

    vertices: Tensor
    attributes: Tensor
    faces: Tensor


def flexicubes(grid: Grid, cubes: Cubes) -> Surface:
    """The surface where the field is zero; empty where it has one sign.

    An edge gives a face only where all four cubes around it are given.
    """
    tables = dual_cases().to(grid.sdf.device)
    # 1. Cubes that the surface passes, and how.
    inside = grid.sdf < 0
    case = _cases(inside, cubes.corners)
    crossing = ((case > 0) & (case < 255)).nonzero().flatten()
    cubes, case = cubes.take(crossing), case[crossing]
    partition = _without_four_sided_edges(case, cubes.coords, tables)
    # 2. One to four vertices in each.
    patch = tables.patch[partition].long()  # [M, 12]
    count = tables.count[partition].long()
    first = count.cumsum(0) - count
    total = int(count.sum())
    vertices, attributes = _dual_vertices(grid, cubes, patch, first, total)
    gamma = torch.sigmoid(cubes.gamma) * WEIGHT_SCALE + (1 - WEIGHT_SCALE) / 2
    gamma = gamma.repeat_interleave(count, output_size=total)  # [P]
    # 3. A quad around each crossed edge, as two triangles.
    faces = _faces(inside, cubes.corners, patch, first, gamma)
    return Surface(vertices, attributes, faces)


def _cases(inside: Tensor, corners: Tensor) -> Tensor:
    """bool [V], int64 [M, 8] -> int64 [M]: bit i says whether corner i is inside."""
    case = torch.zeros_like(corners[:, 0])
    for i in range(8):
        case += inside[corners[:, i]].long() << i
    return case


def _without_four_sided_edges(case: Tensor, coords: Tensor, tables: DualCases) -> Tensor:
    """The case whose partition each cube takes: the complement's for pairs of ambiguous cubes."""
    rows = tables.ambiguous[case].nonzero().flatten()
    place = coords[rows].long()
    known = _key(place).sort().values
    wanted = _key(place + tables.partner[case[rows]])
    if len(rows) == 0:
        return case
    found = known[torch.searchsorted(known, wanted).clamp_(max=len(known) - 1)] == wanted
    swapped = rows[found]
    return case.index_put((swapped,), 255 - case[swapped])


def _key(coords: Tensor) -> Tensor:
    """int64 [M, 3] of -1 to 2^20 -> int64 [M], another for each place."""
    x, y, z = (coords + 1).unbind(1)
    return (x << 42) | (y << 21) | z


def _dual_vertices(
    grid: Grid, cubes: Cubes, patch: Tensor, first: Tensor, total: int
) -> tuple[Tensor, Tensor]:
    """Positions [P, 3] and attributes [P, A] of all dual vertices.

    A vertex is the mean, weighted by beta, of where its edges are crossed; where an edge is crossed
    follows from the field at its ends weighted by alpha (equations 3 to 5). Edge by edge, no vertex
    comes twice in one sum, so the order of additions is the same on every run and device.
    """
    values = torch.cat((grid.positions, grid.attributes), dim=1)  # [V, 3 + A]
    sums = values.new_zeros(total, values.shape[1])
    weights = values.new_zeros(total, 1)

    def scaled(raw: Tensor) -> Tensor:
        return (torch.tanh(raw) * WEIGHT_SCALE + 1).unsqueeze(1)

    for edge, ends in enumerate(EDGES):
        cube = (patch[:, edge] >= 0).nonzero().flatten()
        vertex = first[cube] + patch[cube, edge]
        a, b = (cubes.corners[cube, end] for end in ends)
        field_a, field_b = (
            grid.sdf[corner].unsqueeze(1) * scaled(cubes.alpha[cube, end])
            for corner, end in zip((a, b), ends, strict=True)
        )
        crossed = (field_b * values[a] - field_a * values[b]) / (field_b - field_a)
        beta = scaled(cubes.beta[cube, edge])
        sums.index_add_(0, vertex, crossed * beta)
        weights.index_add_(0, vertex, beta)
    sums /= weights
    return sums[:, :3], sums[:, 3:]


def _faces(inside: Tensor, corners: Tensor, patch: Tensor, first: Tensor, gamma: Tensor) -> Tensor:
    """int64 [F, 3]: two triangles for each edge with four cubes around it."""
    quads, axis, lower_inside = _quads(inside, corners, patch, first)
    # The diagonal with the larger product of gammas splits a quad; in a tie, that of the reference.
    same, mixed = gamma[quads[:, [0, 2]]].prod(1), gamma[quads[:, [1, 3]]].prod(1)
    tie_to_same = lower_inside != (axis == 1)
    along_same = (same > mixed) | ((same == mixed) & tie_to_same)
    quads = torch.where(lower_inside.unsqueeze(1), quads, quads.flip(1))
    # Reversing moved the diagonal 0-2 to 1-3; rotate those quads whose diagonal is not 0-2.
    rotate = along_same != lower_inside
    quads = torch.where(rotate.unsqueeze(1), quads.roll(1, 1), quads)
    return torch.cat((quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]))


def _quads(
    inside: Tensor, corners: Tensor, patch: Tensor, first: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Dual vertices int64 [Q, 4] around each whole edge, counter-clockwise seen from its upper end.

    With it: the edge's axis [Q], and whether its lower end is inside [Q].
    """
    device = patch.device
    cube, edge = (patch >= 0).nonzero().unbind(1)
    vertex = first[cube] + patch[cube, edge]
    axes = torch.tensor(EDGE_AXIS, device=device)[edge]
    lower = corners[cube, torch.tensor([a for a, _ in EDGES], device=device)[edge]]
    turn = torch.tensor([_turn(e) for e in range(len(EDGES))], device=device)[edge]
    order = ((lower * 3 + axes) * 4 + turn).sort()
    same_edge = order.values >> 2
    starts = (same_edge[3:] == same_edge[:-3]).nonzero().flatten()  # four cubes in a run
    rows = order.indices[starts]
    around = order.indices[starts.unsqueeze(1) + torch.arange(4, device=device)]
    return vertex[around], axes[rows], inside[lower[rows]]


def _turn(edge: int) -> int:
    """Where the cube with this edge lies around it, counter-clockwise: ++, -+, --, +-."""
    corner, axis = EDGES[edge][0], EDGE_AXIS[edge]
    after, before = corner >> (axis + 1) % 3 & 1, corner >> (axis + 2) % 3 & 1
    return {(0, 0): 0, (1, 0): 1, (1, 1): 2, (0, 1): 3}[after, before]
