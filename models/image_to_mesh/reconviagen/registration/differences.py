"""How a drawn mesh differs from a photo, in pixels, and which way each difference would shrink.

Knows nothing of cameras: a difference has a place on the mesh, a slope in the picture and a rest.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.image_to_mesh.reconviagen.registration.drawing import (
    LEAST_INNER,
    Drawing,
    gains,
    inner,
)
from models.image_to_mesh.reconviagen.registration.photos import Square

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

FAR_PX = 0.06
"""Of the square's side: outlines farther apart than this are not each other's."""
COLOUR_NOISE = 0.08
"""Colours that differ by this much weigh as much as outlines a pixel apart."""

Differences = list[tuple[Array, Doubles, Doubles]]


def differences(drawing: Drawing, target: Square) -> Differences:
    """Each kind: points (K, 3) of the mesh; slope (K, 2), how fast the rest grows with the point's
    pixel along x and y; rest (K,)."""
    if not len(drawing.pixels):
        return []
    far = FAR_PX * len(drawing.solid)
    number = np.full(drawing.solid.shape, -1)
    number[tuple(drawing.pixels.T)] = np.arange(len(drawing.pixels))
    rim = drawing.solid & ~ndimage.binary_erosion(drawing.solid, border_value=1)
    slopes = _slopes(ndimage.gaussian_filter(target.distance, 1.0))
    found: Differences = []

    # 1. From the mesh's outline to the photo's: where its outer pixels are within, and how far.
    mine = number[rim]
    pixels = drawing.pixels[mine]
    at = tuple(pixels.T)
    rest = target.distance[at] + 0.5  # a rim pixel's centre lies half a pixel within
    kept = np.abs(rest) < far
    found.append((drawing.points[mine][kept], slopes[at][kept], rest[kept]))

    # 2. From the photo's outline to the nearest of the mesh's.
    border = target.solid & ~ndimage.binary_erosion(target.solid, border_value=1)
    nearest = ndimage.distance_transform_edt(~rim, return_distances=False, return_indices=True)
    places = np.argwhere(border)
    ends = nearest[:, places[:, 0], places[:, 1]].T
    slope = slopes[tuple(places.T)]
    rest = ((ends - places)[:, ::-1] * slope).sum(axis=1)
    kept = np.abs(rest) < far
    mine = number[tuple(ends[kept].T)]
    found.append((drawing.points[mine], slope[kept], rest[kept]))

    # 3. Colours, along the photo's slope of each channel.
    mine = np.flatnonzero(inner(drawing, target))
    if len(mine) >= LEAST_INNER:
        pixels = drawing.pixels[mine]
        at = tuple(pixels.T)
        picture = cv2.GaussianBlur(target.colours, (0, 0), 1.0)
        shown = picture[at]
        drawn = drawing.colours[mine]
        apart = (shown - gains(drawn, shown) * drawn).astype(np.float64)
        strength = 1 / np.maximum(1, np.abs(apart) / (2 * COLOUR_NOISE))  # Huber
        for channel in range(3):
            slope = _slopes(picture[..., channel])[at] * strength[:, channel, None]
            rest = apart[:, channel] * strength[:, channel]
            found.append((drawing.points[mine], slope / COLOUR_NOISE, rest / COLOUR_NOISE))
    return found


def _slopes(values: Array) -> Doubles:  # (S, S) -> (S, S, 2): along x, along y
    down, across = np.gradient(values.astype(np.float64))
    return np.stack([across, down], axis=-1)
