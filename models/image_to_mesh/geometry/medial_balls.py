"""One silhouette -> a rounded solid: the union of its medial balls.

Knows nothing of colour: two pictures with equal alpha give equal shapes.

Each point c of the silhouette carries the largest ball that fits, of radius R_c = distance to the
outline. The union of those balls, seen along z, is bounded by z^2 = u(x) with

    u(x) = max_c (R_c^2 - |x - c|^2),

a dilation by a parabola, which separates into one pass per axis. u is zero exactly on the outline,
so the surface u - z^2 = 0 is closed and its silhouette is the given one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.image_to_mesh.geometry.silhouette import resample
from models.image_to_mesh.geometry.surface import Faces, Vertices, iso_surface

Array = npt.NDArray[np.float32]

SUPERSAMPLE = 2
"""Distances are measured on a grid this much finer: R is then exact to a quarter of a cell."""
EMPTY = np.float32(-1e9)


def reconstruct(
    rgba: npt.NDArray[np.float32],  # (H, W, 4) 0..1, straight alpha
    field_of_view: float = 30.0,  # degrees across the longer side; 0: orthographic
    resolution: int = 192,  # cells along the object's longer side
) -> tuple[Vertices, Faces]:
    """Closed mesh in half-image units of the view: x right, y up, z towards the viewer, image
    centre at the origin. Vertices (V, 3) float64, faces (F, 3) int32 facing outward."""
    alpha = np.ascontiguousarray(rgba[..., 3])
    fine = resample(alpha, resolution * SUPERSAMPLE)
    field = continued_outside(ball_field(fine.solid), fine.solid)
    height_squared = field[::SUPERSAMPLE, ::SUPERSAMPLE] / SUPERSAMPLE**2
    cell = fine.cell * SUPERSAMPLE
    layers = int(np.sqrt(height_squared.max())) + 3
    z = np.arange(-layers, layers + 1, dtype=np.float32)
    vertices, faces = iso_surface(height_squared[:, :, None] - z * z)
    x = fine.x[0] + vertices[:, 1] * cell
    y = fine.y[0] - vertices[:, 0] * cell
    depth = (vertices[:, 2] - layers) * cell
    return uncrop(np.stack([x, y, depth], axis=1), field_of_view), faces


def ball_field(solid: npt.NDArray[np.bool_]) -> Array:  # (H, W)
    """u at every cell, in cells squared: positive inside the outline, negative outside, to a few
    cells beyond it and EMPTY farther out."""
    # Distance to the nearest empty cell's centre; the outline runs half a cell before it.
    radius = np.maximum(ndimage.distance_transform_edt(solid) - 0.5, 0).astype(np.float32)
    squared = np.where(solid, radius * radius, EMPTY)
    reach = int(np.ceil(radius.max())) + 3 * SUPERSAMPLE
    along_rows = parabolic_dilation(squared, reach)
    return np.ascontiguousarray(parabolic_dilation(np.ascontiguousarray(along_rows.T), reach).T)


def continued_outside(field: Array, solid: npt.NDArray[np.bool_]) -> Array:  # (H, W), (H, W)
    """The field continued past the outline with the slope it has inside.

    Outside, the union itself is ruled by the tiny balls along the rim and falls slowly, however
    steep it was inside: a linear zero crossing would land up to a cell too far out.
    """
    distance, (rows, columns) = ndimage.distance_transform_edt(~solid, return_indices=True)
    inner = np.maximum(field[rows, columns], 0.25)
    falling = -inner * (distance - 0.5) / 0.5
    return np.where(solid, np.maximum(field, 0), falling).astype(np.float32)


def parabolic_dilation(values: Array, reach: int) -> Array:  # (H, W), cells
    """max over |s| <= reach of values[i - s] - s^2, along the first axis.

    A ball reaches no farther than its radius, so a bounded reach loses nothing inside the outline.
    """
    result = values.copy()
    for shift in range(1, min(reach, len(values) - 1) + 1):
        lowered = values - np.float32(shift * shift)
        np.maximum(result[shift:], lowered[:-shift], out=result[shift:])
        np.maximum(result[:-shift], lowered[shift:], out=result[:-shift])
    return result


def ball_field_reference(solid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:  # (H, W)
    """The definition of `ball_field`, cell by cell: O(cells^2), for tests."""
    rows, columns = np.indices(solid.shape)
    empty = np.argwhere(~solid)
    u = np.full(solid.shape, -np.inf)
    for row, column in np.argwhere(solid):
        radius = np.sqrt(np.square(empty - (row, column)).sum(axis=1).min()) - 0.5
        u = np.maximum(u, radius**2 - (rows - row) ** 2 - (columns - column) ** 2)
    return u


def uncrop(points: Vertices, field_of_view: float) -> Vertices:  # (V, 3) half-image units
    """Move points that an orthographic camera sees in place to where a perspective one does.

    Works on un-cropped image coordinates, because the camera looks through the image's centre,
    not the object's. Depth stays; the image plane is at z = 0.
    """
    shrink = 1.0 - points[:, 2:] * np.tan(np.radians(field_of_view) / 2)
    return np.concatenate([points[:, :2] * shrink, points[:, 2:]], axis=1)
