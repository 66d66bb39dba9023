"""From a field to a mesh, and from the mesh of 512^3 to the cells that 1024^3 starts from.

It knows no network. Vertices are in units of the whole grid, -1 to 1, y up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.context import InvalidInput
from models.image_to_mesh.direct3d_s2.blocks import EDGE
from models.image_to_mesh.direct3d_s2.near_surface import Field
from models.image_to_mesh.volumes.sparse_marching_cubes import sparse_marching_cubes
from models.image_to_mesh.volumes.voxelise import voxelise
from models.nn.sites import pack, unpack

FILLS = 0.95
"""Share of the grid that the longest side of a mesh takes where it is voxelised."""
BAND_CELLS = 4
"""Voxels on either side of the surface that a token must be near, in voxels of 1 / resolution."""


@dataclass(frozen=True)
class Mesh:
    """vertices: fp32 [V, 3] in -1..1; faces: int64 [F, 3], counter-clockwise from outside."""

    vertices: Tensor
    faces: Tensor


def mesh_of(field: Field, level: float, resolution: int) -> Mesh:
    """The surface at `level`. Raises InvalidInput where there is none."""
    vertices, faces = sparse_marching_cubes(field.coords, field.values, level, resolution)
    if len(faces) == 0:
        raise InvalidInput(
            "The image gave no surface: the decoded field has one sign everywhere.",
            code="surface_empty",
            next_step="Try another seed, or an image that shows the object larger.",
        )
    return Mesh(vertices.float() / resolution * 2 - 1, faces.long())


def cells_of(
    mesh: Mesh,
    resolution: int,  # voxels along the grid: eight a cell
    on_part: Callable[[], None] = lambda: None,  # see `voxelise`
) -> Tensor:  # int32 [N, 4] of (0, x, y, z), ascending
    """The cells with a voxel near the surface, the mesh brought to `FILLS` of the grid."""
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    centred = (mesh.vertices - (low + high) / 2) * (2 * FILLS / (high - low).amax())
    last = resolution - 1  # the first and the last voxel lie on the grid's ends
    places = (centred / 2 + 0.5) * last
    band = BAND_CELLS * last / resolution
    coords, _ = voxelise(places, mesh.faces, resolution, band, on_part)
    cells = F.pad(torch.div(coords, EDGE, rounding_mode="floor"), (1, 0))
    return unpack(torch.unique(pack(cells)))
