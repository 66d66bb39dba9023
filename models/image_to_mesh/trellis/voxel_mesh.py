"""From 101 numbers of each voxel to a coloured mesh: shared corners, moved vertices, FlexiCubes.

It knows how the mesh decoder packs its output, and no network. The reference fills a dense grid of
257^3 vertices with ten features; here only voxels exist, and the cubes that touch the inside: what
stays dense is one int32 index a voxel (70 MB at 256^3).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.image_to_mesh.trellis.dual_cases import CORNERS
from models.image_to_mesh.trellis.flexicubes import Cubes, Grid, flexicubes

LAYOUT = {"sdf": 8 * 1, "deformation": 8 * 3, "weights": 21, "attributes": 8 * 6}
"""Columns of the decoder's output: corner by corner, but the weights (beta 12, alpha 8, gamma)."""
CHANNELS = sum(LAYOUT.values())
OUTSIDE = 1.0
"""The field at vertices no voxel knows."""


@dataclass(frozen=True)
class DecodedMesh:
    """vertices: fp32 [P, 3] in -0.5..0.5, z up; faces: int64 [F, 3], counter-clockwise outside;
    colours: fp32 [P, 3] sRGB 0..1; normals: fp32 [P, 3] 0..1, as predicted (n/2 + 1/2)."""

    vertices: Tensor
    faces: Tensor
    colours: Tensor
    normals: Tensor


def mesh_from_voxels(
    coords: Tensor,  # int [N, 3] in [0, resolution), each voxel once
    feats: Tensor,  # fp32 [N, 101], as LAYOUT
    resolution: int,
) -> DecodedMesh:
    """The mesh of one batch item."""
    sdf, deformation, weights, attributes = feats.split(tuple(LAYOUT.values()), dim=1)
    voxels = _IndexGrid(coords.long(), resolution)
    # 1. Vertices of the voxels: the mean over the voxels that share one.
    vertices = voxels.vertices()
    field = _shared(voxels, vertices, sdf).squeeze(1) - 1 / resolution
    # 2. Cubes beside the voxels count too where they touch the inside.
    beside = voxels.cubes_beside(vertices[field < 0])
    known = len(vertices)
    vertices = torch.cat((vertices, _IndexGrid(beside, resolution).vertices(except_of=voxels)))
    field = torch.cat((field, field.new_full((len(vertices) - known,), OUTSIDE)))
    cubes = _cubes(torch.cat((coords.long(), beside)), weights, vertices, resolution)
    # 3. Positions and colours of the vertices; those of no voxel are not moved and have no colour.
    moves = _padded(_shared(voxels, vertices[:known], deformation), len(vertices))
    colours = _padded(_shared(voxels, vertices[:known], attributes), len(vertices))
    reach = (1 - 1e-8) / (2 * resolution)
    positions = vertices / resolution - 0.5 + reach * torch.tanh(moves)
    surface = flexicubes(Grid(positions, field, torch.sigmoid(colours)), cubes)
    rgb, normals = surface.attributes.split(3, dim=1)
    return DecodedMesh(surface.vertices, surface.faces, rgb, normals)


class _IndexGrid:
    """Rows of voxels by place, with a border of one voxel around: int32, -1 where none is."""

    def __init__(self, coords: Tensor, resolution: int) -> None:
        self.side = resolution + 2
        self.index = torch.full((self.side**3,), -1, dtype=torch.int32, device=coords.device)
        self.index[self._flat(coords + 1)] = torch.arange(
            len(coords), dtype=torch.int32, device=coords.device
        )

    def _flat(self, place: Tensor) -> Tensor:  # int64 [..., 3] -> int64 [...]
        x, y, z = place.unbind(-1)
        return (x * self.side + y) * self.side + z

    def _places(self, flat: Tensor) -> Tensor:  # int64 [K] -> int64 [K, 3]
        return torch.stack(
            (flat // self.side**2, flat // self.side % self.side, flat % self.side), 1
        )

    def rows(self, coords: Tensor) -> Tensor:
        """int64 [K, 3] in [-1, resolution] -> int64 [K], -1 where no voxel is."""
        return self.index[self._flat(coords + 1)].long()

    def _touched(self) -> Tensor:
        """bool [side^3]: vertices of voxels, at their place + 1."""
        places = (self.index >= 0).nonzero().flatten()
        touched = torch.zeros_like(self.index, dtype=torch.bool)
        for corner in CORNERS:
            touched[places + self._flat(torch.tensor(corner)).item()] = True
        return touched

    def vertices(self, except_of: _IndexGrid | None = None) -> Tensor:
        """int64 [V, 3]: each vertex of a voxel once, x-major; without those of another grid."""
        touched = self._touched()
        if except_of is not None:
            touched &= ~except_of._touched()
        return self._places(touched.nonzero().flatten()) - 1

    def cubes_beside(self, vertices: Tensor) -> Tensor:
        """int64 [K, 3]: cubes of the grid that touch one of these vertices and are no voxel."""
        touching = torch.zeros_like(self.index, dtype=torch.bool)
        for corner in CORNERS:
            touching[self._flat(vertices + 1 - vertices.new_tensor(corner))] = True
        touching &= self.index < 0
        places = self._places(touching.nonzero().flatten()) - 1
        return places[((places >= 0) & (places < self.side - 2)).all(dim=1)]


def _shared(voxels: _IndexGrid, vertices: Tensor, values: Tensor) -> Tensor:
    """Mean over the voxels at each vertex of what they say of it: [N, 8 * C] -> [V, C].

    Gathered corner by corner in a fixed order, so the result is the same on every run.
    """
    per_corner = values.unflatten(1, (8, -1))
    total = values.new_zeros(len(vertices), per_corner.shape[2])
    count = values.new_zeros(len(vertices), 1)
    for i, corner in enumerate(CORNERS):
        rows = voxels.rows(vertices - vertices.new_tensor(corner))
        present = (rows >= 0).unsqueeze(1)
        total += per_corner[rows.clamp_(min=0), i] * present
        count += present
    return total / count


def _cubes(
    coords: Tensor,  # int64 [M, 3]: the voxels, then cubes without weights
    weights: Tensor,  # [N, 21] of the voxels
    vertices: Tensor,  # int64 [V, 3]
    resolution: int,
) -> Cubes:
    """Cubes as rows of their corners; weights of those beside the voxels are zero."""
    row_of = _IndexGrid(vertices, resolution + 1)
    corners = [row_of.rows(coords + coords.new_tensor(corner)) for corner in CORNERS]
    beta, alpha, gamma = _padded(weights, len(coords)).split((12, 8, 1), dim=1)
    return Cubes(coords, torch.stack(corners, dim=1), beta, alpha, gamma.squeeze(1))


def _padded(values: Tensor, length: int) -> Tensor:
    """[K, C] -> [length, C], zero behind the first K."""
    return torch.cat((values, values.new_zeros(length - len(values), values.shape[1])))
