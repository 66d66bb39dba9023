"""Moves a scene: scale, then rotation, then translation, with its spherical harmonics.

Does not know why. Rotations are right-handed in the axes of the file (3DGS: y down, z forward).
Angles are degrees about the fixed x, y and z axes, applied in that order: R = Rz Ry Rx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.rotations import quaternions
from models.splat_to_sog.scene.sh_rotation import band_matrices, rotate_harmonics
from models.splat_to_sog.scratch import Scratch, chunks
from models.splat_to_sog.splats import Splats


@dataclass(frozen=True)
class Transform:
    """x -> scale * rotation @ x + translation."""

    rotation: NDArray[np.float64]  # [3, 3]
    scale: float
    translation: NDArray[np.float64]  # [3] scene units

    @classmethod
    def of(
        cls,
        translate: Sequence[float] = (0, 0, 0),
        rotate: Sequence[float] = (0, 0, 0),  # degrees about x, then y, then z
        scale: float = 1.0,
    ) -> Transform:
        return cls(euler_matrix(rotate), float(scale), np.array(translate, np.float64))

    def is_identity(self) -> bool:
        return (
            self.scale == 1
            and not self.translation.any()
            and bool(np.array_equal(self.rotation, np.eye(3)))
        )


def euler_matrix(degrees: Sequence[float]) -> NDArray[np.float64]:  # [3] -> [3, 3]
    """Rz Ry Rx; quarter turns are exact."""
    result = np.eye(3)
    for axis, angle in enumerate(degrees):
        cosine, sine = _cos_sin(angle)
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = cosine
        turn[b, a], turn[a, b] = sine, -sine
        result = turn @ result
    return result


def _cos_sin(degrees: float) -> tuple[float, float]:
    turn = degrees % 360
    if turn % 90 == 0:
        return [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)][int(turn // 90)]
    return float(np.cos(np.radians(turn))), float(np.sin(np.radians(turn)))


def transform(splats: Splats, change: Transform, scratch: Scratch | None = None) -> Splats:
    """The scene moved. The identity returns the same object; a part that is unchanged is shared."""
    if change.is_identity():
        return splats
    scratch = scratch or Scratch()
    means = scratch.empty(splats.means.shape)
    matrix = change.scale * change.rotation
    for rows in chunks(len(splats)):
        moved = splats.means[rows].astype(np.float64) @ matrix.T
        with np.errstate(over="ignore"):  # beyond float32: infinite, which the caller may refuse
            means[rows] = moved + change.translation
    moved_scene = replace(splats, means=means)
    if change.scale != 1:
        scales = scratch.empty(splats.scales.shape)
        for rows in chunks(len(splats)):
            scales[rows] = splats.scales[rows] + np.log(change.scale)
        moved_scene = replace(moved_scene, scales=scales)
    if not np.array_equal(change.rotation, np.eye(3)):
        moved_scene = _turned(moved_scene, change.rotation, scratch)
    return moved_scene


def _turned(splats: Splats, rotation: NDArray[np.float64], scratch: Scratch) -> Splats:
    """Rotations and harmonics of the splats, not their means."""
    w, x, y, z = quaternions(rotation[None])[0]
    left = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    bands = band_matrices(rotation, splats.degree)
    quats, harmonics = scratch.empty(splats.quats.shape), scratch.empty(splats.shN.shape)
    for rows in chunks(len(splats)):
        quats[rows] = splats.quats[rows].astype(np.float64) @ left.T
        rotate_harmonics(splats.shN[rows], bands, harmonics[rows])
    return replace(splats, quats=quats, shN=harmonics)
