"""A placement: the similarity that carries a mesh's frame into the world of the cameras.

Knows nothing of photos.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Placement:
    """p of the mesh lies at scale * rotation p + centre of the world. rotation: (3, 3)."""

    scale: float
    rotation: Doubles
    centre: Doubles

    def points(self, points: npt.NDArray[np.floating]) -> Doubles:  # (P, 3) -> (P, 3)
        return np.asarray(self.scale * (points @ self.rotation.T) + self.centre)

    def to_camera(self, world_to_camera: Doubles) -> Doubles:  # (3, 4) -> (3, 4)
        """From the mesh's frame to the camera's axes, in the mesh's unit of length."""
        turn, shift = world_to_camera[:, :3], world_to_camera[:, 3]
        moved = (turn @ self.centre + shift) / self.scale
        return np.concatenate([turn @ self.rotation, moved[:, None]], axis=1)

    def stepped(self, step: Doubles) -> Placement:
        """step: (7,): a turn about the centre, radians; a shift, in sizes; a growth, as a log."""
        return Placement(
            float(self.scale * np.exp(step[6])),
            turned(step[:3]) @ self.rotation,
            self.centre + self.scale * step[3:6],
        )


def turned(vector: Doubles) -> Doubles:  # (3,) radians -> (3, 3)
    """Rotation about the vector, by its length (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def all_around(count: int) -> Doubles:  # (count, 3, 3)
    """Rotations spread evenly. Alexa, "Super-Fibonacci Spirals" (CVPR 2022)."""
    at = np.arange(count) + 0.5
    inner, outer = np.sqrt(at / count), np.sqrt(1 - at / count)
    alpha, beta = 2 * np.pi * at / np.sqrt(2), 2 * np.pi * at / 1.533751168755204288118041
    x, y, z, w = (
        inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta),
    )  # fmt: skip
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def degrees_between(one: Doubles, other: Doubles) -> Doubles:  # (..., 3, 3) each -> (...)
    """The angle of the turn from one rotation to the other."""
    trace = np.einsum("...ij,...ij->...", one, other)
    return np.asarray(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))))
