"""The views' cameras as plain facts, in pixels of the photos as they were given.

It knows encoded poses and where each picture was cut from; not how either came about.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from models.context import JsonValue
from models.image_to_mesh.reconviagen.preprocess import Framed
from models.image_to_mesh.reconviagen.vggt.poses import decode_poses
from models.image_to_mesh.trellis.preprocess import SIDE_PX

DIGITS = 6


def camera_facts(
    poses: Tensor,  # fp32 [n, 9], encoded
    frames: Sequence[Framed],
) -> list[JsonValue]:
    """Of each view: from world to camera (3 rows of 4), and its intrinsics (3 rows of 3).

    Intrinsics refer to the whole photo, whose corner is pixel (0, 0), not to the square cut out.
    None in place of what the network found no answer to: a field of view of nothing, say.
    """
    to_camera, of_square = decode_poses(poses.double(), SIDE_PX, SIDE_PX)
    facts: list[JsonValue] = []
    for view, frame in enumerate(frames):
        intrinsics = of_square[view].clone()
        intrinsics[:2] *= frame.side_px / SIDE_PX
        intrinsics[0, 2] += frame.left_px
        intrinsics[1, 2] += frame.top_px
        facts.append(
            {"world_to_camera": _rows(to_camera[view]), "intrinsics_px": _rows(intrinsics)}
        )
    return facts


def _rows(matrix: Tensor) -> list[list[float]] | None:
    if not matrix.isfinite().all():
        return None
    return [[round(value, DIGITS) for value in row] for row in matrix.tolist()]
