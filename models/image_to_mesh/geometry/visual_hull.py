"""Views from any declared angle -> the solid inside all outlines: a signed-distance visual hull.

Knows nothing of where the angles came from. Each view gives every point its signed distance to the
outline, over the local thickness: 1 in the middle of a part, 0 on the outline. The hull's field is
the soft minimum over the views: unlike yes-or-no carving it leaves no steps, and it rounds the
ridge between two views' cones in proportion to the part, a thin arm as well as a wide body.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.context import InvalidInput
from models.image_to_mesh.geometry.alignment import coarse_hull
from models.image_to_mesh.geometry.cameras import Camera, to_pixels
from models.image_to_mesh.geometry.medial_balls import ball_field
from models.image_to_mesh.geometry.silhouette import MARGIN
from models.image_to_mesh.geometry.surface import Faces, Vertices, iso_surface

Array = npt.NDArray[np.float32]

DEPTH_SIDE_PX = 512
FLOOR = -2.0
FIELD_SMOOTHING = 0.8  # cells
LEAST_SHARPNESS = 3.0
"""Of the soft minimum; more views need more, and their cones meet at flatter angles anyway."""


def visual_hull(
    cameras: Sequence[Camera], alphas: Sequence[Array], resolution: int
) -> tuple[Vertices, Faces]:
    """Closed mesh in the object's frame; InvalidInput if the outlines share nothing."""
    points, side, occupied = coarse_hull(cameras, alphas)
    if not occupied.any():
        raise InvalidInput(
            "The images' outlines have no common solid under the given angles.",
            code="views_disagree",
            next_step="Check each image's azimuth and elevation, and that all show one object.",
        )
    low, high = points[occupied].min(axis=0) - 1.5 * side, points[occupied].max(axis=0) + 1.5 * side
    cell = float((high - low).max()) / resolution
    counts = np.ceil((high - low) / cell).astype(int) + 2 * MARGIN
    axes = [
        (start + stop) / 2 + (np.arange(n) - (n - 1) / 2) * cell
        for start, stop, n in zip(low, high, counts, strict=True)
    ]
    field = np.zeros(counts, np.float32)
    sharpness = max(LEAST_SHARPNESS, float(len(cameras)))
    for camera, alpha in zip(cameras, alphas, strict=True):
        field += np.exp(-sharpness * _depth_at(camera, alpha, axes))
    field = ndimage.gaussian_filter(-np.log(field) / sharpness, FIELD_SMOOTHING)
    for axis in range(3):
        ends = np.moveaxis(field, axis, 0)
        ends[0] = np.minimum(ends[0], -0.1)
        ends[-1] = np.minimum(ends[-1], -0.1)
    if field.max() <= 0:
        raise InvalidInput(
            "The images' outlines have next to no common solid under the given angles.",
            code="views_disagree",
            next_step="Check each image's azimuth and elevation, and that all show one object.",
        )
    vertices, faces = iso_surface(field)
    return np.stack([axes[k][0] + vertices[:, k] * cell for k in range(3)], axis=1), faces


def relative_depth(alpha: Array) -> Array:  # (H, W) 0..1 -> (H, W)
    """1 - (t / r)^2 at distance t from the middle of a part of local half-width r; about -2 t / r
    beyond its outline, ending at FLOOR.

    In a strip of half-width r, at distance d from the rim, the medial-ball field is
    u = r^2 - (r - d)^2, so r = (u + d^2) / 2 d: the local half-width of any shape, from two fields.
    """
    solid = alpha >= 0.5
    inside = np.maximum(ndimage.distance_transform_edt(solid) - 0.5, 0.25)
    outside, (rows, columns) = ndimage.distance_transform_edt(~solid, return_indices=True)
    ball = np.where(solid, np.maximum(ball_field(solid), 1e-3), 0)
    weight = solid.astype(np.float32)
    radius = np.where(solid, (ball + inside**2) / (2 * inside), 0).astype(np.float32)
    radius = cv2.GaussianBlur(radius, (0, 0), 1.5) / np.maximum(
        cv2.GaussianBlur(weight, (0, 0), 1.5), 1e-6
    )
    radius = radius[rows, columns]
    depth = np.where(solid, ball / radius**2, -2 * (outside - 0.5) / radius)
    return np.asarray(np.clip(depth, FLOOR, 1), np.float32)


def _depth_at(
    camera: Camera, alpha: Array, axes: Sequence[npt.NDArray[np.float64]]
) -> Array:  # -> (X, Y, Z)
    height, width = alpha.shape
    shrink = min(1.0, DEPTH_SIDE_PX / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    pad = max(size) // 4  # beyond the image the depth goes on falling
    depth = relative_depth(np.pad(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), pad))
    result = np.empty([len(axis) for axis in axes], np.float32)
    # Points of a slab of constant x, in the camera's axes: only one term changes between slabs.
    y, z = np.meshgrid(axes[1], axes[2], indexing="ij")
    slab = (y[..., None] * camera.rotation[:, 1] + z[..., None] * camera.rotation[:, 2]).astype(
        np.float32
    )
    for index, x in enumerate(axes[0]):
        seen = slab + (x * camera.rotation[:, 0]).astype(np.float32)
        at = (to_pixels(camera.image_plane(seen), size[1], size[0]) + pad).astype(np.float32)
        result[index] = cv2.remap(
            depth, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return result
