"""Views from any angles -> the solid inside all outlines, rounded where few views bound it.

Knows nothing of where the angles came from. Each view gives every point its signed distance to the
outline, over the local thickness: 1 in the middle of a part, 0 on the outline. From many views the
hull's field is the soft minimum over them: unlike yes-or-no carving it leaves no steps, and it
rounds the ridge between two views' cones in proportion to the part. From few level views it is the
trunk's ellipses (`elliptical_hull`) and the limbs, carved by all outlines.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.context import InvalidInput
from models.image_to_mesh.geometry.alignment import coarse_hull
from models.image_to_mesh.geometry.elliptical_hull import Strips, ellipse_field, slicing_views
from models.image_to_mesh.geometry.limbs import Limb, limb_field, place_limbs
from models.image_to_mesh.geometry.outline import FLOOR, Outline
from models.image_to_mesh.geometry.runs import row_runs
from models.image_to_mesh.geometry.silhouette import MARGIN
from models.image_to_mesh.geometry.surface import Faces, Vertices, iso_surface

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FIELD_SMOOTHING = 0.8  # cells
LEAST_SHARPNESS = 3.0
"""Of the soft minimum; more views need more, and their cones meet at flatter angles anyway."""
NEAR = -0.1
"""Ellipses and limbs are worked out where the carved field is above this: in and next to it."""
STEEPEST = -0.5
"""Slices end abruptly: a field much lower above the last than it is high within would erode it."""
ROW_SMOOTHING = 1.5
"""Cells: runs change from row to row by whole pixels, and slices with them."""
LEAST_SQUARED_RADIUS = 0.01  # pixels squared


def visual_hull(outlines: Sequence[Outline], resolution: int) -> tuple[Vertices, Faces, str]:
    """Closed mesh in the object's frame and the method's name; InvalidInput if the outlines share
    nothing."""
    axes, cell = _axes(outlines, resolution)
    slicing = slicing_views([outline.camera for outline in outlines])
    if slicing:
        field, method = _rounded(outlines, slicing, axes), "elliptical hull"
    else:
        field, method = _soft_minimum(outlines, axes), "visual hull"
    field = ndimage.gaussian_filter(field, FIELD_SMOOTHING)
    for axis in range(3):
        ends = np.moveaxis(field, axis, 0)
        ends[0] = np.minimum(ends[0], -0.1)
        ends[-1] = np.minimum(ends[-1], -0.1)
    if field.max() <= 0:
        raise _nothing_in_common("next to no")
    vertices, faces = iso_surface(field)
    return np.stack([axes[k][0] + vertices[:, k] * cell for k in range(3)], axis=1), faces, method


def _nothing_in_common(how_much: str) -> InvalidInput:
    return InvalidInput(
        f"The images' outlines have {how_much} common solid under the given angles.",
        code="views_disagree",
        next_step="Check each image's azimuth and elevation, and that all show one object.",
    )


def _axes(outlines: Sequence[Outline], resolution: int) -> tuple[list[Doubles], float]:
    """Ticks of a grid around the hull along x, y and z, and their spacing."""
    points, side, occupied = coarse_hull(
        [outline.camera for outline in outlines], [outline.image for outline in outlines]
    )
    if not occupied.any():
        raise _nothing_in_common("no")
    low, high = points[occupied].min(axis=0) - 1.5 * side, points[occupied].max(axis=0) + 1.5 * side
    cell = float((high - low).max()) / resolution
    counts = np.ceil((high - low) / cell).astype(int) + 2 * MARGIN
    return [
        (start + stop) / 2 + (np.arange(n) - (n - 1) / 2) * cell
        for start, stop, n in zip(low, high, counts, strict=True)
    ], cell


def _soft_minimum(outlines: Sequence[Outline], axes: Sequence[Doubles]) -> Array:
    sharpness = max(LEAST_SHARPNESS, float(len(outlines)))
    total = np.zeros([len(axis) for axis in axes], np.float32)
    for outline in outlines:
        total += np.exp(-sharpness * outline.depth_on(axes))
    return np.asarray(-np.log(total) / sharpness)


def _rounded(outlines: Sequence[Outline], slicing: Sequence[int], axes: Sequence[Doubles]) -> Array:
    """The trunk's ellipses inside all outlines, and the limbs."""
    field = outlines[0].depth_on(axes)
    for outline in outlines[1:]:
        np.minimum(field, outline.depth_on(axes), out=field)
    views = [outlines[k] for k in slicing]
    extent = float(max(np.abs(axis).max() for axis in axes))
    limbs, trunks = place_limbs(views, extent)
    near = np.flatnonzero(field > NEAR)
    points = _points(axes, near)
    strips = [_strip(*pair, points) for pair in zip(views, trunks, strict=True)]
    offsets, radii = zip(*strips, strict=True)
    trunk = ellipse_field(
        [view.camera for view in views], Strips(np.stack(offsets), np.stack(radii))
    )
    field.ravel()[near] = np.minimum(field.ravel()[near], trunk)
    np.maximum(field, STEEPEST, out=field)
    field = ndimage.gaussian_filter1d(field, ROW_SMOOTHING, axis=1)
    for limb in limbs:
        around = _box(limb, views[limb.view], axes)
        added = limb_field(limb, views[limb.view], _points(axes, around), FLOOR)
        field.ravel()[around] = np.maximum(field.ravel()[around], added)
    return np.asarray(field)


def _points(axes: Sequence[Doubles], flat: npt.NDArray[np.intp]) -> Array:  # (N,) -> (N, 3)
    indices = np.unravel_index(flat, [len(axis) for axis in axes])
    ticks = [axis[index] for axis, index in zip(axes, indices, strict=True)]
    return np.stack(ticks, axis=1).astype(np.float32)


def _strip(outline: Outline, trunk: npt.NDArray[np.bool_], points: Array) -> tuple[Array, Array]:
    """Offset of points (N, 3) from the middle of the trunk's run, and its half-width: (N,), (N,)"""
    runs = row_runs(np.where(trunk, outline.alpha, 0))
    seen = outline.seen(points)
    at = outline.pixels(seen)
    unit = np.maximum(1 - seen[:, 2] * outline.camera.tangent, 1e-3) / outline.unit
    offset = (at[:, 0] - outline.look_up(runs.centre, at)) * unit
    squared = np.maximum(outline.look_up(runs.squared_radius, at), LEAST_SQUARED_RADIUS)
    return offset.astype(np.float32), (np.sqrt(squared) * unit).astype(np.float32)


def _box(limb: Limb, outline: Outline, axes: Sequence[Doubles]) -> npt.NDArray[np.intp]:
    """Flat indices of the grid's cells in a box around a limb."""
    rows, columns = np.nonzero(limb.mask)
    points = outline.points(columns, rows, limb.depth[limb.mask])
    reach = 2 * float(outline.thickness[limb.mask].max()) / outline.unit
    inside = [
        (axis >= low) & (axis <= high)
        for axis, low, high in zip(
            axes, points.min(axis=0) - reach, points.max(axis=0) + reach, strict=True
        )
    ]
    box = inside[0][:, None, None] & inside[1][:, None] & inside[2]
    return np.asarray(np.flatnonzero(box))
