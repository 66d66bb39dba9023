"""Views from any declared angle -> the largest solid inside all outlines: a signed-distance visual hull.

Knows nothing of where the angles came from. Each view gives every point the signed distance to its
outline; the least of them is the hull's field, which unlike yes-or-no carving leaves no steps.
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
from models.image_to_mesh.geometry.silhouette import MARGIN
from models.image_to_mesh.geometry.surface import Faces, Vertices, iso_surface

Array = npt.NDArray[np.float32]

DISTANCE_SIDE_PX = 512
EDGE_ROUNDING = 2.0
"""Cells over which the sharp ridges between two views' cones are rounded."""


def visual_hull(
    cameras: Sequence[Camera], alphas: Sequence[Array], resolution: int
) -> tuple[Vertices, Faces]:
    """Closed mesh in the object's frame. Raises InvalidInput when the outlines have nothing in common."""
    points, side, occupied = coarse_hull(cameras, alphas)
    if not occupied.any():
        raise InvalidInput(
            "The images' outlines have no common solid under the given angles.",
            code="views_disagree",
            next_step="Check the azimuth and elevation of each image, and that all show the same object.",
        )
    low, high = points[occupied].min(axis=0) - 1.5 * side, points[occupied].max(axis=0) + 1.5 * side
    cell = float((high - low).max()) / resolution
    counts = np.ceil((high - low) / cell).astype(int) + 2 * MARGIN
    axes = [
        (l + h) / 2 + (np.arange(n) - (n - 1) / 2) * cell
        for l, h, n in zip(low, high, counts, strict=True)
    ]
    field = np.zeros(counts, np.float32)
    sharpness = 1 / (EDGE_ROUNDING * cell)
    for camera, alpha in zip(cameras, alphas, strict=True):
        # Soft minimum: -log(sum exp(-k f)) / k, summed view by view; exp() is clipped against overflow.
        distance = _distance_at(camera, alpha, axes)
        field += np.exp(np.clip(-sharpness * distance, -30, 30))
    field = -np.log(np.maximum(field, 1e-13)) / sharpness
    field = ndimage.gaussian_filter(np.clip(field, -6 * cell, 6 * cell), 0.7)
    for axis in range(3):
        ends = np.moveaxis(field, axis, 0)
        ends[0] = np.minimum(ends[0], -cell)
        ends[-1] = np.minimum(ends[-1], -cell)
    if field.max() <= 0:
        raise InvalidInput(
            "The images' outlines have next to no common solid under the given angles.",
            code="views_disagree",
            next_step="Check the azimuth and elevation of each image, and that all show the same object.",
        )
    vertices, faces = iso_surface(field)
    return np.stack([axes[k][0] + vertices[:, k] * cell for k in range(3)], axis=1), faces


def signed_distance(alpha: Array) -> Array:  # (H, W) 0..1 -> (H, W) pixels, positive inside
    solid = alpha >= 0.5
    inside = ndimage.distance_transform_edt(solid)
    outside = ndimage.distance_transform_edt(~solid)
    return (np.maximum(inside - 0.5, 0) - np.maximum(outside - 0.5, 0)).astype(np.float32)


def _distance_at(
    camera: Camera, alpha: Array, axes: Sequence[npt.NDArray[np.float64]]
) -> Array:  # -> (X, Y, Z) object units
    height, width = alpha.shape
    shrink = min(1.0, DISTANCE_SIDE_PX / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    small = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)
    pad = max(size) // 4  # beyond the image the distance goes on falling
    distance = signed_distance(np.pad(small, pad))
    unit = 1 / (camera.scale * max(size) / 2)
    result = np.empty([len(axis) for axis in axes], np.float32)
    y, z = np.meshgrid(axes[1], axes[2], indexing="ij")
    for index, x in enumerate(axes[0]):
        points = np.stack([np.full_like(y, x), y, z], axis=-1)
        at = (to_pixels(camera.project(points), size[1], size[0]) + pad).astype(np.float32)
        sampled = cv2.remap(
            distance, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        result[index] = sampled * unit
    return result
