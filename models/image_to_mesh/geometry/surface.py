"""Iso-surface of a scalar field on a grid, as a closed, outward-facing triangle mesh.

Knows nothing of what the field means: inside is positive.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from skimage.measure import marching_cubes

Vertices = npt.NDArray[np.float64]
Faces = npt.NDArray[np.int32]


def iso_surface(field: npt.NDArray[np.float32]) -> tuple[Vertices, Faces]:  # (I, J, K), inside > 0
    """Vertices (V, 3) float64 in grid indices, faces (F, 3) int32 counter-clockwise from outside.

    The field must be negative on all six sides of the grid, or the surface would stay open.
    Values next to zero are moved off it: a vertex exactly on a grid point collapses triangles.
    """
    nudge = 1e-6 * float(field.max())
    field = np.where(np.abs(field) < nudge, np.float32(nudge), field)
    vertices, faces, _, _ = marching_cubes(field, 0.0, gradient_direction="ascent")
    return vertices.astype(np.float64), faces.astype(np.int32)
