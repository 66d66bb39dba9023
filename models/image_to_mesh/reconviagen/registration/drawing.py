"""A placed mesh drawn as one photo would show it, and how far it is from what the photo shows.

Knows nothing of how the differences are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.rasterize import rasterize
from models.image_to_mesh.reconviagen.registration.photos import Square

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

INNER_PX = 2.0
"""Colours are compared this far from the outlines, where no background is mixed in."""
BLUR_SHARE = 0.012
"""Of the square's side. A network's colours are blurred: so are both before they are compared."""
LEAST_INNER = 20
"""Pixels: of fewer, colours say nothing."""
NEAR = 0.05
"""Of the object's distance: nothing is drawn nearer to the camera."""


@dataclass(frozen=True)
class Fit:
    """iou: of the outlines. gain: (3,), what the mesh's colours must be multiplied by to be nearest
    to the photo's. colour_error: what is left then, root mean square, 0..1. colour_spread: of the
    photo's own colours."""

    iou: float
    gain: Array
    colour_error: float
    colour_spread: float


@dataclass(frozen=True)
class Drawing:
    """solid: (S, S) where the mesh is. pixels: (K, 2) int, row and column, of all of those.
    points: (K, 3) of the mesh there; colours: (K, 3)."""

    solid: npt.NDArray[np.bool_]
    pixels: npt.NDArray[np.intp]
    points: Array
    colours: Array


def draw(mesh: ColouredMesh, to_camera: Doubles, intrinsics: Doubles, side_px: int) -> Drawing:
    """to_camera: (3, 4), from the mesh's frame. intrinsics: pixel centres at whole numbers."""
    seen = mesh.vertices @ to_camera[:, :3].T + to_camera[:, 3]
    ahead = np.maximum(seen[:, 2:], max(NEAR * to_camera[2, 3], 1e-9))
    at = seen[:, :2] / ahead * intrinsics[[0, 1], [0, 1]] + intrinsics[:2, 2]
    raster = rasterize(at, 1 / ahead[:, 0], mesh.faces, side_px, side_px)
    both = np.concatenate([mesh.vertices, mesh.colours], axis=1)
    values = raster.interpolate(both, mesh.faces)
    pixels = np.argwhere(raster.covered)
    return Drawing(raster.covered, pixels, values[:, :3], values[:, 3:])


def inner(drawing: Drawing, square: Square) -> npt.NDArray[np.bool_]:  # (K,)
    """Which of the drawing's pixels lie well within both outlines."""
    deep = ndimage.distance_transform_edt(np.pad(drawing.solid, 1))[1:-1, 1:-1] > INNER_PX
    deep &= square.distance < -INNER_PX
    return np.asarray(deep[tuple(drawing.pixels.T)])


def gains(drawn: Array, shown: Array) -> Array:  # (K, 3) each -> (3,)
    """What the drawn colours must be multiplied by to be nearest to those of the photo."""
    return np.asarray((drawn * shown).sum(axis=0) / np.maximum((drawn**2).sum(axis=0), 1e-6))


def fit(drawing: Drawing, square: Square) -> Fit:
    both = (drawing.solid & square.solid).sum()
    iou = float(both / max(1, (drawing.solid | square.solid).sum()))
    mine = inner(drawing, square)
    if mine.sum() < LEAST_INNER:
        return Fit(iou, np.ones(3, np.float32), 1.0, 0.0)
    at = tuple(drawing.pixels[mine].T)
    shown, drawn = _blurred(square.colours[at], drawing.colours[mine], at, len(square.solid))
    gain = gains(drawn, shown)
    error = float(np.sqrt(((shown - gain * drawn) ** 2).mean()))
    spread = float(np.sqrt(((shown - shown.mean(axis=0)) ** 2).mean()))
    return Fit(iou, gain, error, spread)


def _blurred(
    shown: Array, drawn: Array, at: tuple[npt.NDArray[np.intp], ...], side_px: int
) -> tuple[Array, Array]:  # (K, 3) each
    """Each pixel mixed with its neighbours, those alone that are compared."""
    canvas = np.zeros((side_px, side_px, 7), np.float32)
    canvas[at] = np.concatenate([shown, drawn, np.ones((len(shown), 1))], axis=1)
    mixed = np.stack(
        [cv2.GaussianBlur(canvas[..., k], (0, 0), BLUR_SHARE * side_px) for k in range(7)], axis=-1
    )[at]
    mixed = mixed[:, :6] / mixed[:, 6:]
    return mixed[:, :3], mixed[:, 3:]
