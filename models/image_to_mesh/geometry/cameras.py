"""Cameras of one object: where each image was taken from, in the frame of the first.

Knows nothing of pixels beyond the image's size. Frames: the object's own (glTF: +Y up, facing +Z)
and the first camera's (x right, y up, z towards the viewer), in half-image units of the first view.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def object_to_camera(azimuth: float, elevation: float) -> Array:  # degrees -> (3, 3)
    """Rotation into the frame of a camera that orbits +Y: azimuth 0 sees the front (+Z), 90 sees
    the side at +X; a positive elevation looks down."""
    a, e = np.radians(azimuth), np.radians(elevation)
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    return np.asarray(about_x @ about_y)


class Projection(Protocol):
    """What a picture's camera tells of points (..., 3) of the object's frame.

    scale: half-image units per unit of length, at the object's origin. project: (..., 2) half-image
    units, y up. depth: (...), larger is nearer, in units of length near the origin. towards:
    (..., 3) unit vectors to the viewer.
    """

    @property
    def scale(self) -> float: ...
    def project(self, points: Array) -> Array: ...
    def depth(self, points: Array) -> Array: ...
    def towards(self, points: Array) -> Array: ...


@dataclass(frozen=True)
class Camera:
    """One view: p of the first camera's frame is seen at scale * perspective(rotation p) + offset.

    rotation: (3, 3) from the first camera's frame to this one's
    tangent:  tan(field of view / 2); 0 is orthographic
    """

    rotation: Array = field(default_factory=lambda: np.eye(3))
    scale: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)
    tangent: float = 0.0

    def project(self, points: Array) -> Array:  # (..., 3) -> (..., 2) half-image units, y up
        return self.image_plane(points @ self.rotation.T)

    def image_plane(self, seen: Array) -> Array:  # (..., 3) in this camera's axes -> (..., 2)
        plane = seen[..., :2]
        if self.tangent:
            plane = plane / np.maximum(1.0 - seen[..., 2:] * self.tangent, 1e-3)
        return np.asarray(plane * self.scale + np.asarray(self.offset, plane.dtype))

    def depth(self, points: Array) -> Array:  # (..., 3) -> (...): larger is nearer the viewer
        return np.asarray(points @ self.rotation[2])

    def towards(self, points: Array) -> Array:  # (..., 3) -> (..., 3) unit vectors to the viewer
        if self.tangent == 0:
            return np.broadcast_to(self.rotation[2], points.shape)
        away = self.rotation[2] / self.tangent - points
        return np.asarray(away / np.linalg.norm(away, axis=-1, keepdims=True))


def to_pixels(plane: Array, height: int, width: int) -> Array:  # (..., 2) half-image units, y up
    """Pixel coordinates (..., 2) as (column, row), pixel centres at whole numbers."""
    half = max(height, width) / 2
    return np.stack(
        [plane[..., 0] * half + width / 2 - 0.5, height / 2 - plane[..., 1] * half - 0.5], -1
    )
