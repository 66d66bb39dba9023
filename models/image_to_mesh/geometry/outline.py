"""One view's outline at working size: what it says about points of the object.

Knows nothing of other views. Inside is measured in local thickness: 1 in the middle of a part, 0 on
the outline, whether the part is a finger or a belly.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.image_to_mesh.geometry.cameras import Camera, to_pixels
from models.image_to_mesh.geometry.medial_balls import ball_field
from models.image_to_mesh.geometry.silhouette import bounds

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SIDE_PX = 512
FLOOR = -2.0
LEAST_RADIUS = 0.25  # pixels


class Outline:
    """image: the alpha given, at most SIDE_PX wide and high. alpha, depth, thickness: (H, W)
    float32, the same with a margin around it; pixels are of these. unit: pixels per unit of the
    object's frame."""

    def __init__(self, camera: Camera, alpha: Array) -> None:
        height, width = alpha.shape
        shrink = min(1.0, SIDE_PX / max(height, width))
        self.size = max(1, round(width * shrink)), max(1, round(height * shrink))
        self.pad = max(self.size) // 4  # beyond the image the depth goes on falling
        self.camera = camera
        small = cv2.resize(alpha, self.size, interpolation=cv2.INTER_AREA)
        self.image = small
        self.alpha: Array = np.pad(small, self.pad)
        self.solid: Mask = self.alpha >= 0.5
        top, bottom, _, _ = bounds(self.alpha)
        self.height_px = float(bottom - top)
        self.depth, self.thickness = relative_depth(self.solid)

    @property
    def unit(self) -> float:
        return float(self.camera.scale * max(self.size) / 2)

    def moved(self, camera: Camera) -> Outline:
        """The same outline before another camera."""
        other = copy(self)
        other.camera = camera
        return other

    def seen(self, points: npt.NDArray[np.floating]) -> Array:  # (N, 3) -> (N, 3) camera axes
        rotation = self.camera.rotation.astype(np.float32)
        x, y, z = points.T.astype(np.float32)
        # Plain sums: a matrix product this thin takes longer.
        return np.stack([row[0] * x + row[1] * y + row[2] * z for row in rotation], axis=1)

    def pixels(self, seen: npt.NDArray[np.floating]) -> Array:  # (..., 3) camera axes -> (..., 2)
        width, height = self.size
        plane = to_pixels(self.camera.image_plane(seen), height, width)
        return np.asarray(plane + self.pad, np.float32)

    def clipped(self, pixels: Array) -> npt.NDArray[np.int32]:  # (N, 2) -> (N, 2) whole, inside
        height, width = self.solid.shape
        return np.clip(np.rint(pixels), 0, (width - 1, height - 1)).astype(np.int32)

    def nearest_pixels(self, points: Doubles) -> npt.NDArray[np.int32]:  # (N, 3) object -> (N, 2)
        return self.clipped(self.pixels(self.seen(points)))

    def points(
        self,
        columns: npt.NDArray[np.integer],
        rows: npt.NDArray[np.integer],
        depth: npt.NDArray[np.floating],
    ) -> Doubles:  # broadcast -> (..., 3) in the object's frame
        """What the view sees at pixels, if it lies at a depth along its axis."""
        width, height = self.size
        half = max(self.size) / 2
        shrink = (1 - depth * self.camera.tangent) / self.camera.scale
        across = (columns - self.pad + 0.5 - width / 2) / half - self.camera.offset[0]
        up = (height / 2 - (rows - self.pad + 0.5)) / half - self.camera.offset[1]
        seen = np.stack(np.broadcast_arrays(across * shrink, up * shrink, depth), axis=-1)
        return np.asarray(seen @ self.camera.rotation)

    def depth_on(self, axes: Sequence[Doubles]) -> Array:  # -> (X, Y, Z)
        result = np.empty([len(axis) for axis in axes], np.float32)
        rotation = self.camera.rotation
        # Points of a slab of constant x, in the camera's axes: only one term changes between slabs.
        y, z = np.meshgrid(axes[1], axes[2], indexing="ij")
        slab = (y[..., None] * rotation[:, 1] + z[..., None] * rotation[:, 2]).astype(np.float32)
        for index, x in enumerate(axes[0]):
            at = self.pixels(slab + (x * rotation[:, 0]).astype(np.float32))
            result[index] = _remap(self.depth, at)
        return result

    def look_up(self, values: Array, pixels: Array) -> Array:  # (H, W), (N, 2) -> (N,)
        """Bilinear. cv2.remap takes at most 32767 rows: the list is folded into a rectangle."""
        side = 4096
        folded = np.zeros((-(-len(pixels) // side) * side, 2), np.float32)
        folded[: len(pixels)] = pixels
        return _remap(values, folded.reshape(-1, side, 2)).ravel()[: len(pixels)]


def _remap(values: Array, at: Array) -> Array:  # (H, W), (A, B, 2) -> (A, B)
    return np.asarray(
        cv2.remap(values, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )


def distance(solid: Mask) -> Array:  # (H, W) -> (H, W)
    """Pixels from each pixel of the solid to the nearest outside it; the image's border is none."""
    return np.asarray(
        cv2.distanceTransform(solid.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    )


def relative_depth(solid: Mask) -> tuple[Array, Array]:  # (H, W) -> (H, W), (H, W)
    """1 - (t / r)^2 at distance t from the middle of a part of local half-width r, about -2 t / r
    beyond its outline, ending at FLOOR; and r, in pixels.

    In a strip of half-width r, at distance d from the rim, the medial-ball field is
    u = r^2 - (r - d)^2, so r = (u + d^2) / 2 d: the local half-width of any shape, from two fields.
    """
    inside = np.maximum(distance(solid) - 0.5, LEAST_RADIUS)
    outside, (rows, columns) = ndimage.distance_transform_edt(~solid, return_indices=True)
    ball = np.where(solid, np.maximum(ball_field(solid), 1e-3), 0)
    weight = solid.astype(np.float32)
    radius = np.where(solid, (ball + inside**2) / (2 * inside), 0).astype(np.float32)
    radius = cv2.GaussianBlur(radius, (0, 0), 1.5) / np.maximum(
        cv2.GaussianBlur(weight, (0, 0), 1.5), 1e-6
    )
    radius = radius[rows, columns]
    depth = np.where(solid, ball / radius**2, -2 * (outside - 0.5) / radius)
    return np.asarray(np.clip(depth, FLOOR, 1), np.float32), np.asarray(radius, np.float32)
