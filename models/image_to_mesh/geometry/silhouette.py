"""A silhouette resampled onto the working grid: cropped to the object, smoothed to sub-pixel edges.

Knows nothing of depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

MARGIN = 4
"""Empty cells kept around the object, so that every surface closes inside the grid."""


@dataclass(frozen=True)
class Silhouette:
    """coverage: (rows, columns) float32 alpha at cell centres.
    x, y:     (columns,), (rows,) cell centres in half-image units; x right, y up (so y falls).
    cell:     side of a cell, half-image units
    """

    coverage: Array
    x: Array
    y: Array
    cell: float

    @property
    def solid(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.coverage >= 0.5)


def bounds(alpha: Array) -> tuple[int, int, int, int]:
    """Top, bottom, left, right pixel edges of alpha >= 0.5; bottom and right are exclusive."""
    solid = alpha >= 0.5
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def resample(alpha: Array, cells: int) -> Silhouette:  # alpha: (H, W) 0..1
    """Crop to the object and resample so that its longer side takes `cells` cells."""
    height, width = alpha.shape
    top, bottom, left, right = bounds(alpha)
    cell_px = max(bottom - top, right - left) / cells
    rows = int(np.ceil((bottom - top) / cell_px)) + 2 * MARGIN
    columns = int(np.ceil((right - left) / cell_px)) + 2 * MARGIN
    column_px = (left + right) / 2 + (np.arange(columns) - (columns - 1) / 2) * cell_px
    row_px = (top + bottom) / 2 + (np.arange(rows) - (rows - 1) / 2) * cell_px
    if cell_px > 1:  # low-pass before thinning out
        alpha = cv2.GaussianBlur(alpha, (0, 0), 0.5 * cell_px, borderType=cv2.BORDER_CONSTANT)
    grid_x, grid_y = np.meshgrid(column_px - 0.5, row_px - 0.5)
    coverage = cv2.remap(
        alpha,
        grid_x.astype(np.float32),
        grid_y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    half = max(height, width) / 2
    return Silhouette(
        coverage,
        ((column_px - width / 2) / half).astype(np.float32),
        ((height / 2 - row_px) / half).astype(np.float32),
        cell_px / half,
    )
