"""The runs of an outline along its rows: what a level view says about each slice of the object.

Knows nothing of cameras and of the slices' shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[np.float32]

LEAST_RADIUS = 0.25  # pixels


@dataclass(frozen=True)
class Runs:
    """centre, squared_radius: (H, W) float32, pixels; of the run nearest to each pixel in its row.
    Rows without a run have radius 0 and the centre of the nearest row that has one."""

    centre: Array
    squared_radius: Array


def row_runs(alpha: Array) -> Runs:  # (H, W) 0..1
    """Ends are found to a fraction of a pixel. Near is measured in radii: each run has a basin."""
    height, width = alpha.shape
    centre = np.zeros((height, width), np.float32)
    squared = np.zeros((height, width), np.float32)
    ticks = np.arange(width, dtype=np.float32)[:, None]
    padded = np.pad(alpha, ((0, 0), (1, 1)))
    filled = (padded >= 0.5).any(axis=1)
    for row in np.flatnonzero(filled):
        values = padded[row]
        inside = values >= 0.5
        start = np.flatnonzero(inside[1:] & ~inside[:-1]) + 1
        end = np.flatnonzero(inside[:-1] & ~inside[1:])
        low = start - (values[start] - 0.5) / np.maximum(values[start] - values[start - 1], 1e-6)
        high = end + (values[end] - 0.5) / np.maximum(values[end] - values[end + 1], 1e-6)
        middle, radius = (low + high) / 2 - 1, np.maximum((high - low) / 2, LEAST_RADIUS)
        nearest = np.argmin(np.abs(ticks - middle) / radius, axis=1)
        centre[row], squared[row] = middle[nearest], radius[nearest] ** 2
    near = ndimage.distance_transform_edt(~filled, return_distances=False, return_indices=True)[0]
    return Runs(centre[near], squared)
