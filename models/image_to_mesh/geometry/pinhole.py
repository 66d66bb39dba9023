"""A pinhole camera at any place, turned in any way: what `View` needs to know of a photo's camera.

Knows nothing of how the camera was found. Where `cameras.Camera` looks at the origin of its frame,
this one has six degrees of freedom, two focal lengths and a principal point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

AXES = np.diag([1.0, -1.0, -1.0])
"""From the axes of photogrammetry (y down, z ahead) to ours (y up, z towards the viewer)."""
NEAREST = 1e-3
"""Of the distance to the origin: what is nearer, or behind, is drawn as if it were here."""


@dataclass(frozen=True)
class Pinhole:
    """rotation: (3, 3), translation: (3,): from the object's frame to the camera's axes: x right,
    y up, z towards the viewer. focal: (2,), offset: (2,), the principal point: half-image units.

    The object lies around the origin of its frame, before the camera.
    """

    rotation: Array
    translation: Array
    focal: Array
    offset: Array

    @property
    def distance(self) -> float:
        """To the object's origin, along the view."""
        return float(-self.translation[2])

    @property
    def scale(self) -> float:
        """Half-image units per unit of length, at the object's origin."""
        return float(np.mean(self.focal)) / self.distance

    def project(self, points: Array) -> Array:  # (..., 3) -> (..., 2) half-image units, y up
        seen = points @ self.rotation.T + self.translation
        return np.asarray(seen[..., :2] / self._ahead(seen)[..., None] * self.focal + self.offset)

    def depth(self, points: Array) -> Array:  # (..., 3) -> (...)
        """Larger is nearer; a unit of it is one of length at the object's origin.

        It is the inverse of the distance, and so runs evenly over the picture of a face.
        """
        ahead = self._ahead(points @ self.rotation.T + self.translation)
        return np.asarray(self.distance**2 / ahead)

    def towards(self, points: Array) -> Array:  # (..., 3) -> (..., 3) unit vectors to the viewer
        away = -self.translation @ self.rotation - points
        return np.asarray(away / np.linalg.norm(away, axis=-1, keepdims=True))

    def _ahead(self, seen: Array) -> Array:
        return np.asarray(np.maximum(-seen[..., 2], NEAREST * self.distance))


def pinhole(
    to_camera: Array,  # (3, 4): x right, y down, z ahead
    intrinsics: Array,  # (3, 3), pixels; the image's corner is (0, 0)
    height: int,
    width: int,
) -> Pinhole:
    """The camera of an image of that size, from matrices as photogrammetry writes them."""
    half = max(height, width) / 2
    focal = np.array([intrinsics[0, 0], intrinsics[1, 1]]) / half
    offset = np.array([intrinsics[0, 2] - width / 2, height / 2 - intrinsics[1, 2]]) / half
    return Pinhole(AXES @ to_camera[:, :3], AXES @ to_camera[:, 3], focal, offset)
