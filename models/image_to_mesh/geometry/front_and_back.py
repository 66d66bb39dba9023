"""Views along one axis only, a front and a back -> a rounded solid: their medial balls.

Knows nothing of other views: nothing here tells the depth, so it comes from the outline, as for one
image.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from models.image_to_mesh.geometry.cameras import Camera, to_pixels
from models.image_to_mesh.geometry.medial_balls import SUPERSAMPLE, ball_field
from models.image_to_mesh.geometry.silhouette import MARGIN, bounds
from models.image_to_mesh.geometry.surface import Faces, Vertices, iso_surface

Array = npt.NDArray[np.float32]


def front_and_back(
    cameras: Sequence[Camera],  # framed by the object: height 1, centred; along one level axis
    alphas: Sequence[Array],  # each (H, W)
    resolution: int,
) -> tuple[Vertices, Faces]:
    """Closed mesh in the object's frame, object height 1."""
    first = cameras[0].rotation
    width = max((right - left) / (bottom - top) for top, bottom, left, right in map(bounds, alphas))
    cell = max(1.0, width) / resolution
    columns, rows = _ticks(width, cell), _ticks(1.0, cell)
    outlines = []
    for camera, alpha in zip(cameras, alphas, strict=True):
        outline = _sample(camera, alpha, columns, rows)
        opposite = camera.rotation[2] @ first[2] < 0
        outlines.append(outline[:, ::-1] if opposite else outline)
    coverage = np.mean(outlines, axis=0)
    fine = cv2.resize(
        coverage, None, fx=SUPERSAMPLE, fy=SUPERSAMPLE, interpolation=cv2.INTER_LINEAR
    )
    squared = ball_field(fine >= 0.5)
    squared = (
        cv2.resize(squared, coverage.shape[::-1], interpolation=cv2.INTER_AREA) / SUPERSAMPLE**2
    )
    layers = int(np.sqrt(squared.max())) + 3
    depth = np.arange(-layers, layers + 1, dtype=np.float32)
    vertices, faces = iso_surface(squared[:, :, None] - depth * depth)
    seen = np.stack(
        [
            (vertices[:, 1] - (coverage.shape[1] - 1) / 2) * cell,
            ((coverage.shape[0] - 1) / 2 - vertices[:, 0]) * cell,
            (vertices[:, 2] - layers) * cell,
        ],
        axis=1,
    )
    return seen @ first, faces


def _ticks(extent: float, cell: float) -> Array:
    count = int(np.ceil(extent / cell)) + 2 * MARGIN
    return ((np.arange(count) - (count - 1) / 2) * cell).astype(np.float32)


def _sample(camera: Camera, alpha: Array, ticks: Array, rows: Array) -> Array:
    """Coverage at (row, column) of the camera's frame."""
    step = (ticks[1] - ticks[0]) * camera.scale * max(alpha.shape) / 2
    if step > 1:
        alpha = cv2.GaussianBlur(alpha, (0, 0), 0.5 * step, borderType=cv2.BORDER_CONSTANT)
    across, up = np.meshgrid(ticks, -rows)
    plane = np.stack([across, up], axis=-1) * camera.scale + np.asarray(camera.offset)
    at = to_pixels(plane, *alpha.shape).astype(np.float32)
    return np.asarray(
        cv2.remap(
            alpha,
            at[..., 0],
            at[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
    )
