"""A photo as registration compares it: the square around its object, small, and how far each pixel
is from the outline.

Knows nothing of meshes. Cameras are photogrammetry's: x right, y down, z ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.image_to_mesh.geometry.silhouette import bounds

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

LARGEST_PX = 2048
"""Of the cut-out object's longer side: a texture shows no more of it."""
BORDER_PX = 8
MARGIN = 1.5
"""Side of the square, in units of the object's longer side: room for what does not fit yet."""


@dataclass(frozen=True)
class Photo:
    """rgba: (H, W, 4) 0..1, straight alpha. to_camera: (3, 4), from the world of all cameras.
    intrinsics: (3, 3), pixels of the photo, whose corner is (0, 0)."""

    rgba: Array
    to_camera: Doubles
    intrinsics: Doubles

    @property
    def outline(self) -> tuple[Doubles, Doubles]:
        """Low and high corner (2,) of the object's box, on the plane one unit before the camera."""
        top, bottom, left, right = bounds(self.rgba[..., 3])
        corners = np.array([[left, top], [right, bottom]], float)
        plane = (corners - self.intrinsics[:2, 2]) / self.intrinsics[[0, 1], [0, 1]]
        return plane[0], plane[1]

    def cropped(self) -> Photo:
        """The object and a border around it, made smaller where it is larger than LARGEST_PX."""
        top, bottom, left, right = bounds(self.rgba[..., 3])
        top, left = max(0, top - BORDER_PX), max(0, left - BORDER_PX)
        rgba = self.rgba[top : bottom + BORDER_PX, left : right + BORDER_PX]
        intrinsics = self.intrinsics.copy()
        intrinsics[:2, 2] -= (left, top)
        longer = max(rgba.shape[:2])
        if longer > LARGEST_PX:
            size = [max(1, round(n * LARGEST_PX / longer)) for n in rgba.shape[1::-1]]
            intrinsics[:2] *= np.array([size[0] / rgba.shape[1], size[1] / rgba.shape[0]])[:, None]
            rgba = cv2.resize(rgba, size, interpolation=cv2.INTER_AREA)
        return Photo(np.ascontiguousarray(rgba), self.to_camera, intrinsics)


def sight_lines(photos: Sequence[Photo]) -> tuple[Doubles, Doubles]:
    """Rows (N, 2, 3) and right sides (N, 2): a place C of the world that a photo shows at g, on the
    plane one unit before the camera, has (turn C + shift)_xy = g (turn C + shift)_z. g is the
    middle of the object's box."""
    turn = np.stack([photo.to_camera[:, :3] for photo in photos])
    shift = np.stack([photo.to_camera[:, 3] for photo in photos])
    middles = np.stack([np.mean(photo.outline, axis=0) for photo in photos])
    rows = turn[:, :2] - middles[..., None] * turn[:, 2:]
    return rows, middles * shift[:, 2:] - shift[:, :2]


@dataclass(frozen=True)
class Square:
    """solid: (S, S) bool. colours: (S, S, 3), beyond the outline those of its rim. distance: (S, S)
    pixels from the outline, positive outside. intrinsics: (3, 3), pixel centres at whole numbers.
    """

    solid: npt.NDArray[np.bool_]
    colours: Array
    distance: Array
    intrinsics: Doubles


def square(photo: Photo, side_px: int) -> Square:
    top, bottom, left, right = bounds(photo.rgba[..., 3])
    side = max(2, round(MARGIN * max(bottom - top, right - left)))
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    height, width = photo.rgba.shape[:2]
    inside = photo.rgba[max(0, y) : y + side, max(0, x) : x + side]
    mixed = np.concatenate([inside[..., :3] * inside[..., 3:], inside[..., 3:]], axis=2)
    whole = cv2.copyMakeBorder(
        mixed, max(0, -y), max(0, y + side - height), max(0, -x), max(0, x + side - width),
        cv2.BORDER_CONSTANT,
    )  # fmt: skip
    method = cv2.INTER_AREA if side > side_px else cv2.INTER_LINEAR
    small = cv2.resize(whole, (side_px, side_px), interpolation=method)
    alpha = small[..., 3]
    solid = alpha >= 0.5
    outside, inwards = ndimage.distance_transform_edt(~solid), ndimage.distance_transform_edt(solid)
    _, nearest = ndimage.distance_transform_edt(alpha < 0.9 * alpha.max(), return_indices=True)
    colours = (small[..., :3] / np.maximum(alpha, 1e-6)[..., None])[tuple(nearest)]
    scale = side_px / side
    intrinsics = photo.intrinsics.copy()
    intrinsics[:2, 2] -= (x, y)
    intrinsics[:2] *= scale
    intrinsics[:2, 2] -= 0.5
    distance = np.where(solid, 0.5 - inwards, outside - 0.5)
    return Square(
        solid,
        np.ascontiguousarray(np.clip(colours, 0, 1), np.float32),
        distance.astype(np.float32),
        intrinsics,
    )
