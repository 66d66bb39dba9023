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
    alphas: Sequence[Array], azimuths: Sequence[float], elevations: Sequence[float]
) -> list[Camera]:
    """Orthographic cameras that give the object the same height, 1, in all views, centred."""
    cameras = []
    for alpha, azimuth, elevation in zip(alphas, azimuths, elevations, strict=True):
        height, width = alpha.shape
        top, bottom, left, right = bounds(alpha)
        half = max(height, width) / 2
        middle = ((left + right) / 2 - width / 2) / half, (height / 2 - (top + bottom) / 2) / half
        cameras.append(Camera(object_to_camera(azimuth, elevation), (bottom - top) / half, middle))
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
    current = list(cameras)
    reach = [_half_width(alpha) for alpha in alphas]
    best = agreement(current, alphas)
    for step in (0.08, 0.04, 0.02, 0.01):
        for index in range(1, len(current)):
            for direction in (-1, 1):
                moved = True
                while moved:
                    x, y = current[index].offset
                    shift = direction * step * reach[index]
                    trial = [*current]
                    trial[index] = replace(current[index], offset=(x + shift, y))
                    score = agreement(trial, alphas)
                    moved = score > best + 1e-4
                    if moved:
                        current, best = trial, score
    return current, best


def agreement(cameras: Sequence[Camera], alphas: Sequence[Array]) -> float:
    points, side, occupied = coarse_hull(cameras, alphas)
    scores = []
    for camera, alpha in zip(cameras, alphas, strict=True):
        unit = camera.scale * max(alpha.shape) / 2 * side  # pixels a cell
        shape = max(1, round(alpha.shape[1] / unit)), max(1, round(alpha.shape[0] / unit))
        outline = cv2.resize(alpha, shape, interpolation=cv2.INTER_AREA) >= 0.5
        seen = np.zeros(outline.shape, bool)
        at = to_pixels(camera.project(points[occupied]), *alpha.shape) + 0.5
        column, row = (
            np.floor(at / (alpha.shape[1] / shape[0], alpha.shape[0] / shape[1])).astype(int).T
        )
        inside = (column >= 0) & (column < shape[0]) & (row >= 0) & (row < shape[1])
        seen[row[inside], column[inside]] = True
        seen = (
            cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
        )
        scores.append(float((seen & outline).sum() / max(1, (seen | outline).sum())))
    return float(np.mean(scores))


def coarse_hull(
    cameras: Sequence[Camera], alphas: Sequence[Array]
) -> tuple[Doubles, float, npt.NDArray[np.bool_]]:
    """Cell centres (P, 3) in the object's frame, their spacing, which are inside all outlines."""
    reach = max(
        _half_width(alpha) / camera.scale for camera, alpha in zip(cameras, alphas, strict=True)
    )
    tall = max(
        _half_height(alpha) / camera.scale for camera, alpha in zip(cameras, alphas, strict=True)
    )
    extent = 1.1 * max(reach, tall)
    side = 2 * extent / COARSE_CELLS
    ticks = (np.arange(COARSE_CELLS) + 0.5) * side - extent
    points = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 3)
    occupied = np.ones(len(points), bool)
    for camera, alpha in zip(cameras, alphas, strict=True):
        remaining = np.flatnonzero(occupied)
        column, row = (
            np.rint(to_pixels(camera.project(points[remaining]), *alpha.shape)).astype(int).T
        )
        inside = (column >= 0) & (column < alpha.shape[1]) & (row >= 0) & (row < alpha.shape[0])
        hit = np.zeros(len(remaining), bool)
        hit[inside] = alpha[row[inside], column[inside]] >= 0.5
        occupied[remaining[~hit]] = False
    return points, side, occupied


def _half_width(alpha: Array) -> float:
    """Farthest column of the object from the image's centre, half-image units."""
    _, _, left, right = bounds(alpha)
    reach = max(abs(left - alpha.shape[1] / 2), abs(right - alpha.shape[1] / 2))
    return float(reach / (max(alpha.shape) / 2))


def _half_height(alpha: Array) -> float:
    top, bottom, _, _ = bounds(alpha)
    reach = max(abs(top - alpha.shape[0] / 2), abs(bottom - alpha.shape[0] / 2))
    return float(reach / (max(alpha.shape) / 2))
