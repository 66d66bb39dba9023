"""Bake a detailed surface into the texture of a simple one: its colours, and its normals.

Knows nothing of cameras (see `bake_views`). Each texel's point looks for the nearest point of the
detailed surface that faces the same way; colours and normals there are blended between corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.closest import Nearest, build_surface
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.texels import Texels, cover, interpolate
from models.image_to_mesh.finishing.uv import Unwrapped

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Painted:
    """What each texel shows.

    points, normals: (P, 3) float32 where the texel lies on the simple mesh, and that mesh's normal
    nearest: where that is on the detailed surface
    """

    texels: Texels
    points: Array
    normals: Array
    nearest: Nearest


def find_detail(
    detailed: ColouredMesh, positions: Array, normals: Array, unwrapped: Unwrapped, size: int,
    device: str = "cpu",
) -> Painted:  # fmt: skip
    """positions, normals: (V, 3) of the simple mesh that was unwrapped."""
    texels = cover(unwrapped.uv, unwrapped.faces, size)
    corners = unwrapped.source[unwrapped.faces].astype(np.int32)
    points = interpolate(texels.face, texels.weights, corners, positions)
    facing = interpolate(texels.face, texels.weights, corners, normals)
    surface = build_surface(detailed.vertices, detailed.faces)
    return Painted(texels, points, facing, surface.nearest(points, facing))


def sample(painted: Painted, values: Array, faces: npt.NDArray[np.int32]) -> Array:
    """Values of the detailed surface's vertices (V, C) at each texel: (P, C)."""
    return interpolate(painted.nearest.face, painted.nearest.weights, faces, values)
