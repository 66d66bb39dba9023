"""Cameras out of encoded poses: where each image was taken from, and how wide it sees.

They know no network. Cameras look as OpenCV's do: x to the right, y down, z ahead.
"""

from __future__ import annotations

import torch
from torch import Tensor


def decode_poses(
    poses: Tensor,  # [..., 9]: translation, quaternion (real part last), field of view in radians
    height_px: int,
    width_px: int,
) -> tuple[Tensor, Tensor]:
    """Of each camera: from world to camera [..., 3, 4], and its intrinsics in pixels [..., 3, 3].

    The principal point is the middle of the image.
    """
    to_camera = torch.cat((rotation_matrices(poses[..., 3:7]), poses[..., :3, None]), dim=-1)
    tangents = torch.tan(poses[..., 7:] / 2)
    intrinsics = poses.new_zeros(*poses.shape[:-1], 3, 3)
    intrinsics[..., 0, 0] = width_px / 2 / tangents[..., 1]
    intrinsics[..., 1, 1] = height_px / 2 / tangents[..., 0]
    intrinsics[..., 0, 2] = width_px / 2
    intrinsics[..., 1, 2] = height_px / 2
    intrinsics[..., 2, 2] = 1
    return to_camera, intrinsics


def rotation_matrices(quaternions: Tensor) -> Tensor:  # [..., 4], real part last -> [..., 3, 3]
    """Quaternions of any length but zero.

    R = I + 2 (w [q]x + [q]x^2) / |q|^2, where [q]x is the cross product with the vector part.
    """
    x, y, z, w = quaternions.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    double = 2 / quaternions.square().sum(-1)[..., None, None]
    turn: Tensor = double * (w[..., None, None] * cross + cross @ cross)
    return torch.eye(3).to(turn) + turn
