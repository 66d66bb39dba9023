"""Bake a detailed surface into the texture of a simple one: its colours, and its normals.

Knows nothing of cameras (see `bake_views`). Each texel's point looks for the nearest point of the
detailed surface that faces the same way; colours and normals there are blended between corners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.closest import Nearest, build_surface
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.texels import Texels, cover, interpolate
from models.image_to_mesh.finishing.uv import Unwrapped
from models.image_to_mesh.geometry.surface import Faces
from models.nn.backends import own_kernels

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Painted:
    """What each texel shows.

    points, normals: (P, 3) float32 where the texel lies on the simple mesh, and that mesh's normal
    nearest: where that is on the detailed surface; faces: (F, 3) int32 of that surface
    """

    texels: Texels
    points: Array
    normals: Array
    nearest: Nearest
    faces: Faces

    def sample(self, values: Array) -> Array:  # (V, C) of the detailed surface -> (P, C)
        return interpolate(self.nearest.face, self.nearest.weights, self.faces, values)


def find_detail(
    detailed: ColouredMesh,
    positions: Array,  # (V, 3) of the simple mesh that was unwrapped
    normals: Array,  # (V, 3)
    unwrapped: Unwrapped,
    size: int,
    device: str = "cpu",
    check: Callable[[], None] = lambda: None,  # called now and then; may raise to stop
) -> Painted:
    corners = unwrapped.source[unwrapped.faces].astype(np.int32)
    if device.startswith("cuda") and own_kernels():
        return _find_on_device(detailed, positions, normals, unwrapped, corners, size, device)
    texels = cover(unwrapped.uv, unwrapped.faces, size)
    points = interpolate(texels.face, texels.weights, corners, positions)
    facing = interpolate(texels.face, texels.weights, corners, normals)
    surface = build_surface(detailed.vertices, detailed.faces)
    nearest = surface.nearest(points, facing, check)
    return Painted(texels, points, facing, nearest, detailed.faces)


def _find_on_device(
    detailed: ColouredMesh,
    positions: Array,
    normals: Array,
    unwrapped: Unwrapped,
    corners: Faces,
    size: int,
    device: str,
) -> Painted:
    import torch

    from models.image_to_mesh.finishing import closest_device, rasterize_device

    def there(array: npt.NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device)
        return tensor if tensor.is_floating_point() else tensor.long()

    def here(tensor: torch.Tensor) -> npt.NDArray[Any]:
        tensor = tensor if tensor.is_floating_point() else tensor.int()
        return np.asarray(tensor.contiguous().cpu().numpy())

    index, face, weights = rasterize_device.cover(there(unwrapped.uv), there(unwrapped.faces), size)
    at = there(corners)[face]
    points, facing = (
        torch.einsum("pk,pkc->pc", weights, there(values)[at]) for values in (positions, normals)
    )
    found = closest_device.nearest(there(detailed.vertices), there(detailed.faces), points, facing)
    return Painted(
        Texels(here(index), here(face), here(weights), size),
        here(points),
        here(facing),
        Nearest(*map(here, found)),
        detailed.faces,
    )
