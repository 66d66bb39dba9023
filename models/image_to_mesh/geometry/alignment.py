"""Bring several images of one object to one scale and axis, and measure how well they agree.

Knows nothing of the final surface: it works on a coarse grid. Photographs are framed by hand, and
generated views are cropped at will, so the images' own frames are trusted only if they agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from models.image_to_mesh.geometry.cameras import Camera, object_to_camera, to_pixels
from models.image_to_mesh.geometry.silhouette import bounds

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

COARSE_CELLS = 48


def framed_by_object(
    alphas: Sequence[Array],
    azimuths: Sequence[float],
    elevations: Sequence[float],
    shifts: Sequence[float] | None = None,
) -> list[Camera]:
    """Orthographic cameras that give the object the same height, 1, in all views, centred.

    shifts: how far the axis is to the right of an outline's middle, in object heights.
    """
    cameras = []
    shifts = shifts or [0.0] * len(alphas)
    for alpha, azimuth, elevation, shift in zip(alphas, azimuths, elevations, shifts, strict=True):
        height, width = alpha.shape
        top, bottom, left, right = bounds(alpha)
        half = max(height, width) / 2
        scale = (bottom - top) / half
        across = ((left + right) / 2 - width / 2) / half + shift * scale
        up = (height / 2 - (top + bottom) / 2) / half
        cameras.append(Camera(object_to_camera(azimuth, elevation), scale, (across, up)))
    return cameras


def framed_by_image(
    azimuths: Sequence[float], elevations: Sequence[float], field_of_view: float
) -> list[Camera]:
    """One fixed camera before a turntable: the axis passes through the middle of every image."""
    tangent = float(np.tan(np.radians(field_of_view) / 2))
    return [
        Camera(object_to_camera(azimuth, elevation), tangent=tangent)
        for azimuth, elevation in zip(azimuths, elevations, strict=True)
    ]


def slide_to_agree(
    cameras: Sequence[Camera], alphas: Sequence[Array]
) -> tuple[list[Camera], float]:
    """Shift all but the first image sideways until the hull fills the outlines best.

    Returns the cameras and the agreement, 0..1: the mean overlap of the hull's outlines with the
    images'. The middle of an outline is not the turntable's axis; this finds the axis.
    """
    views = [
        _CoarseView(*pair, _grid(cameras, alphas)) for pair in zip(cameras, alphas, strict=True)
    ]
    shifts = np.zeros(len(cameras))
    best = _overlap(views, shifts)
    for step in (0.08, 0.04, 0.02, 0.01):
        for index in range(1, len(cameras)):
            for direction in (-step, step):
                while True:
                    trial = shifts.copy()
                    trial[index] += direction * views[index].reach
                    score = _overlap(views, trial)
                    if score <= best + 1e-4:
                        break
                    shifts, best = trial, score
    moved = [
        replace(camera, offset=(camera.offset[0] + float(shift), camera.offset[1]))
        for camera, shift in zip(cameras, shifts, strict=True)
    ]
    return moved, best


def agreement(cameras: Sequence[Camera], alphas: Sequence[Array]) -> float:
    """Mean overlap, 0..1, of the hull's outlines with the images'."""
    views = [
        _CoarseView(*pair, _grid(cameras, alphas)) for pair in zip(cameras, alphas, strict=True)
    ]
    return _overlap(views, np.zeros(len(views)))


class _CoarseView:
    """One outline on a grid of the hull's cells, and where each cell falls on it."""

    def __init__(self, camera: Camera, alpha: Array, grid: tuple[Doubles, float]) -> None:
        points, side = grid
        height, width = alpha.shape
        half = max(height, width) / 2
        unit = camera.scale * half * side  # pixels a cell
        size = max(1, round(width / unit)), max(1, round(height / unit))
        self.outline = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA) >= 0.5
        at = (to_pixels(camera.project(points), height, width) + 0.5) * (
            size[0] / width,
            size[1] / height,
        )
        self.column, self.row = at[:, 0], np.floor(at[:, 1]).astype(np.int32)
        self.columns_per_shift = half * size[0] / width
        self.reach = _half_width(alpha)

    def cells(self, shift: float) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
        """Which grid points fall into the outline, and the flat pixel of each (any, if outside)."""
        height, width = self.outline.shape
        column = np.floor(self.column + shift * self.columns_per_shift).astype(np.int32)
        inside = (column >= 0) & (column < width) & (self.row >= 0) & (self.row < height)
        pixel = np.where(inside, self.row * width + column, 0)
        return inside & self.outline.ravel()[pixel], pixel


def _overlap(views: Sequence[_CoarseView], shifts: npt.NDArray[np.float64]) -> float:
    found = [view.cells(float(shift)) for view, shift in zip(views, shifts, strict=True)]
    occupied = np.logical_and.reduce([inside for inside, _ in found])
    scores = []
    for view, (_, pixel) in zip(views, found, strict=True):
        seen = np.zeros(view.outline.shape, np.uint8)
        seen.ravel()[pixel[occupied]] = 1
        seen = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        both, either = (seen > 0) & view.outline, (seen > 0) | view.outline
        scores.append(float(both.sum() / max(1, either.sum())))
    return float(np.mean(scores))


def coarse_hull(
    cameras: Sequence[Camera], alphas: Sequence[Array]
) -> tuple[Doubles, float, npt.NDArray[np.bool_]]:
    """Cell centres (P, 3) in the object's frame, their spacing, which are inside all outlines."""
    points, side = _grid(cameras, alphas)
    views = [_CoarseView(*pair, (points, side)) for pair in zip(cameras, alphas, strict=True)]
    return points, side, np.logical_and.reduce([view.cells(0.0)[0] for view in views])


def _grid(cameras: Sequence[Camera], alphas: Sequence[Array]) -> tuple[Doubles, float]:
    """Centres of COARSE_CELLS^3 cells around the object, and their spacing."""
    pairs = list(zip(cameras, alphas, strict=True))
    extent = 1.1 * max(max(_half_width(a), _half_height(a)) / c.scale for c, a in pairs)
    side = 2 * extent / COARSE_CELLS
    ticks = (np.arange(COARSE_CELLS) + 0.5) * side - extent
    return np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 3), side


def _half_width(alpha: Array) -> float:
    """Farthest column of the object from the image's centre, half-image units."""
    _, _, left, right = bounds(alpha)
    reach = max(abs(left - alpha.shape[1] / 2), abs(right - alpha.shape[1] / 2))
    return float(reach / (max(alpha.shape) / 2))


def _half_height(alpha: Array) -> float:
    top, bottom, _, _ = bounds(alpha)
    reach = max(abs(top - alpha.shape[0] / 2), abs(bottom - alpha.shape[0] / 2))
    return float(reach / (max(alpha.shape) / 2))
