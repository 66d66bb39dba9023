"""From 101 numbers of each voxel to a coloured mesh: shared corners, moved vertices, FlexiCubes.

It knows how the mesh decoder packs its output, and no network. The reference fills a dense grid of
257^3 vertices with ten features; here only voxels exist, and the cubes that touch the inside: what
stays dense is an int32 index of the grid, 70 MB at 256^3. A shell of 1.3 million voxels there (0.5
GB of features) takes 0.7 GB besides.
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
    sharing = voxels.sharing(vertices)
    field = _mean(sharing, sdf).squeeze(1) - 1 / resolution
    # 2. Cubes beside the voxels count too where they touch the inside.
    beside = voxels.cubes_beside(vertices[field < 0])
    vertices = torch.cat((vertices, _IndexGrid(beside, resolution).vertices(except_of=voxels)))
    field = torch.cat((field, field.new_full((len(vertices) - len(field),), OUTSIDE)))
    # 3. Cubes that the surface passes, and the vertices they need.
    cubes = _cubes(torch.cat((coords.long(), beside)), weights, vertices, resolution)
    inside = (field < 0)[cubes.corners]
    cubes = cubes.take((inside.any(dim=1) & ~inside.all(dim=1)).nonzero().flatten())
    needed = torch.zeros_like(field, dtype=torch.bool)
    needed[cubes.corners.flatten()] = True
    rows = needed[: len(sharing)].nonzero().flatten()  # others are of no voxel
    # 4. Their positions and colours; those of no voxel are not moved and have no colour.
    moves, colours = (
        feats.new_zeros(len(vertices), values.shape[1] // 8).index_copy_(
            0, rows, _mean(sharing[rows], values)
        )
        for values in (deformation, attributes)
    )
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

    def corners(self, cubes: Tensor) -> Tensor:
        """int64 [K, 3] -> int64 [K, 8]: rows of the vertices at each cube's corners."""
        flat = self._flat(cubes + 1)
        steps = [self._flat(cubes.new_tensor(corner)) for corner in CORNERS]
        return torch.stack([self.index[flat + step] for step in steps], dim=1).long()

    def sharing(self, vertices: Tensor) -> Tensor:
        """int64 [V, 3] -> int32 [V, 8]: the voxel that has each as its corner i, -1 for none."""
        flat = self._flat(vertices + 1)
        steps = [self._flat(vertices.new_tensor(corner)) for corner in CORNERS]
        return torch.stack([self.index[flat - step] for step in steps], dim=1)

    def _touched(self) -> Tensor:
        """bool [side^3]: vertices of voxels, at their place + 1."""
        places = (self.index >= 0).nonzero().flatten()
        touched = torch.zeros_like(self.index, dtype=torch.bool)
        for corner in CORNERS:
            touched[places + self._flat(places.new_tensor(corner))] = True
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


def _mean(sharing: Tensor, values: Tensor) -> Tensor:
    """Mean over the voxels at each vertex of what they say of it: [N, 8 * C] -> [V, C].

    Gathered corner by corner in a fixed order, so the result is the same on every run.
    """
    per_corner = values.unflatten(1, (8, -1))
    total = values.new_zeros(len(sharing), per_corner.shape[2])
    for i, rows in enumerate(sharing.unbind(1)):
        present = (rows >= 0).nonzero().flatten()
        total.index_add_(0, present, per_corner[rows[present].long(), i])
    return total / (sharing >= 0).sum(dim=1, keepdim=True)


def _cubes(
    coords: Tensor,  # int64 [M, 3]: the voxels, then cubes without weights
    weights: Tensor,  # [N, 21] of the voxels
    vertices: Tensor,  # int64 [V, 3]
    resolution: int,
) -> Cubes:
    """Cubes as rows of their corners; weights of those beside the voxels are zero."""
    corners = _IndexGrid(vertices, resolution + 1).corners(coords)
    beta, alpha, gamma = _padded(weights, len(coords)).split((12, 8, 1), dim=1)
    return Cubes(coords, corners, beta, alpha, gamma.squeeze(1))


def _padded(values: Tensor, length: int) -> Tensor:
    """[K, C] -> [length, C], zero behind the first K."""
    return torch.cat((values, values.new_zeros(length - len(values), values.shape[1])))
