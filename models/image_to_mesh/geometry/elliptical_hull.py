"""Level views at right angles -> a rounded solid with those outlines: the elliptical hull.

Knows nothing of perspective: such views are drawn, generated or taken from afar. A plain visual
hull of a front and a side view has square cross-sections; here every cross-section is an ellipse
that touches the outlines in all views:

    a_v(x) = 1 - ((x - c) / r)^2   on each row of view v, c and r the middle and half-width of a run
    field  = a_front + a_side - 1  positive inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.image_to_mesh.geometry.cameras import Camera, to_pixels
from models.image_to_mesh.geometry.medial_balls import SUPERSAMPLE, ball_field
from models.image_to_mesh.geometry.silhouette import MARGIN, bounds
from models.image_to_mesh.geometry.surface import Faces, Vertices, iso_surface

Array = npt.NDArray[np.float32]

FLOOR = -1.0
"""Row fields end here: far outside, a thin run would otherwise outweigh all other views."""
ROW_SMOOTHING = 1.0
"""Runs change from row to row by whole cells; this many rows of blur hide it."""


def elliptical_hull(
    cameras: Sequence[Camera],  # framed by the object: height 1, centred
    alphas: Sequence[Array],  # each (H, W)
    azimuths: Sequence[float],  # multiples of 90
    resolution: int,
) -> tuple[Vertices, Faces]:
    """Closed mesh in the object's frame, object height 1."""
    widths = []
    for alpha in alphas:
        top, bottom, left, right = bounds(alpha)
        widths.append((right - left) / (bottom - top))
    cell = max(1.0, *widths) / resolution
    rows = _ticks(1.0, cell)
    turns = [round(azimuth / 90) % 4 for azimuth in azimuths]
    fields: list[list[Array]] = [[], []]
    columns = [
        _ticks(
            max((w for w, t in zip(widths, turns, strict=True) if t % 2 == axis), default=1.0), cell
        )
        for axis in (0, 1)
    ]
    for camera, alpha, turn in zip(cameras, alphas, turns, strict=True):
        ticks = columns[turn % 2]
        coverage = _sample(camera, alpha, ticks, rows)
        # Image right is +x at the front and -z at the left; the opposite views mirror it.
        fields[turn % 2].append(coverage[:, ::-1] if turn in (1, 2) else coverage)
    front, side = (np.mean(f, axis=0) if f else None for f in fields)
    if front is None or side is None:
        return _one_axis(front if front is not None else side, front is not None, cell)
    volume = row_ellipses(front)[:, :, None] + row_ellipses(side)[:, None, :] - 1
    volume = ndimage.gaussian_filter1d(volume, ROW_SMOOTHING, axis=0, mode="constant", cval=FLOOR)
    vertices, faces = iso_surface(_closed(volume))
    x = columns[0][0] + vertices[:, 1] * cell
    y = -rows[0] - vertices[:, 0] * cell
    z = columns[1][0] + vertices[:, 2] * cell
    return np.stack([x, y, z], axis=1), faces


def row_ellipses(coverage: Array) -> Array:  # (rows, columns) 0..1 -> (rows, columns), 1 at mid-run
    """a = 1 - ((x - c) / r)^2 of each row's nearest run, its ends found to a fraction of a cell."""
    field = np.full(coverage.shape, FLOOR, np.float32)
    ticks = np.arange(coverage.shape[1], dtype=np.float32)
    for row, values in enumerate(coverage):
        inside = values >= 0.5
        starts = np.flatnonzero(inside[1:] & ~inside[:-1]) + 1
        ends = np.flatnonzero(inside[:-1] & ~inside[1:])
        for start, end in zip(starts, ends, strict=True):
            low = start - (values[start] - 0.5) / max(values[start] - values[start - 1], 1e-6)
            high = end + (values[end] - 0.5) / max(values[end] - values[end + 1], 1e-6)
            radius = max((high - low) / 2, 0.25)
            field[row] = np.maximum(field[row], 1 - np.square((ticks - (low + high) / 2) / radius))
    return field


def _one_axis(coverage: Array | None, is_front: bool, cell: float) -> tuple[Vertices, Faces]:
    """Front and back only: nothing tells the depth, so it comes from the medial balls."""
    if coverage is None:
        raise ValueError("no views")
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
    across = (vertices[:, 1] - (coverage.shape[1] - 1) / 2) * cell
    up = ((coverage.shape[0] - 1) / 2 - vertices[:, 0]) * cell
    away = (vertices[:, 2] - layers) * cell
    # At the side the field runs along +z, and depth along -x keeps it right-handed.
    axes = (across, up, away) if is_front else (-away, up, across)
    return np.stack(axes, axis=1), faces


def _ticks(extent: float, cell: float) -> Array:
    count = int(np.ceil(extent / cell)) + 2 * MARGIN
    return ((np.arange(count) - (count - 1) / 2) * cell).astype(np.float32)


def _sample(camera: Camera, alpha: Array, ticks: Array, rows: Array) -> Array:
    """Coverage at (row, column) of the object's frame as this view shows it."""
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


def _closed(volume: Array) -> Array:
    """Negative on the six sides of the grid."""
    for axis in range(3):
        faces = np.moveaxis(volume, axis, 0)
        faces[0] = np.minimum(faces[0], -0.1)
        faces[-1] = np.minimum(faces[-1], -0.1)
    return volume
