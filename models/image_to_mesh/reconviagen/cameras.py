"""The views' cameras as plain facts, in pixels of the photos as they were given.

It knows encoded poses and where each picture was cut from; not how either came about.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from models.context import JsonValue
from models.image_to_mesh.preprocess.mask import Cutout
from models.image_to_mesh.reconviagen.preprocess import Framed
from models.image_to_mesh.reconviagen.registration.photos import Photo
from models.image_to_mesh.reconviagen.vggt.poses import decode_poses
from models.image_to_mesh.trellis.preprocess import SIDE_PX

DIGITS = 6


def camera_matrices(
    poses: Tensor,  # fp32 [n, 9], encoded
    frames: Sequence[Framed],
) -> list[tuple[Tensor, Tensor]]:
    """Of each view: from world to camera fp64 [3, 4], and its intrinsics fp64 [3, 3].

    Intrinsics refer to the whole photo, whose corner is pixel (0, 0), not to the square cut out.
    Not finite where the network found no answer: a field of view of nothing, say.
    """
    to_camera, of_square = decode_poses(poses.double(), SIDE_PX, SIDE_PX)
    found = []
    for view, frame in enumerate(frames):
        intrinsics = of_square[view].clone()
        intrinsics[:2] *= frame.side_px / SIDE_PX
        intrinsics[0, 2] += frame.left_px
        intrinsics[1, 2] += frame.top_px
        found.append((to_camera[view], intrinsics))
    return found


def camera_facts(
    poses: Tensor,  # fp32 [n, 9], encoded
    frames: Sequence[Framed],
) -> list[JsonValue]:
    """`camera_matrices` in rows of rounded numbers; None in place of what is not finite."""
    return [
        {"world_to_camera": _rows(to_camera), "intrinsics_px": _rows(intrinsics)}
        for to_camera, intrinsics in camera_matrices(poses, frames)
    ]


def photos_of(
    poses: Tensor,  # fp32 [n, 9], encoded
    frames: Sequence[Framed],
    cutouts: Sequence[Cutout],
) -> list[Photo | None]:
    """The photos with their cameras as plain arrays; None where a camera is not finite, or sees
    half of the world or more."""
    return [
        Photo(cutout.rgba, to_camera.numpy(), intrinsics.numpy())
        if to_camera.isfinite().all()
        and intrinsics.isfinite().all()
        and (intrinsics.diagonal() > 0).all()
        else None
        for cutout, (to_camera, intrinsics) in zip(
            cutouts, camera_matrices(poses, frames), strict=True
        )
    ]


def _rows(matrix: Tensor) -> list[list[float]] | None:
    if not matrix.isfinite().all():
        return None
    return [[round(value, DIGITS) for value in row] for row in matrix.tolist()]
