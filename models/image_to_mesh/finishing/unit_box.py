"""Place a mesh into the glTF unit box: +Y up, facing +Z, longest side 1, centred at the origin.

Knows nothing of cameras but the first one's angles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.normals import vertex_normals
from models.image_to_mesh.geometry.surface import Faces, Vertices

GAP = 2e-5
"""Sheets that touch in a point or an edge are drawn this far apart, in units of the box."""
MAX_ROUNDS = 8


def to_unit_box(
    vertices: Vertices,  # (V, 3) first camera's frame, half-image units
    faces: Faces,
    object_to_camera: npt.NDArray[np.float64],  # (3, 3) rotation of the first camera
) -> npt.NDArray[np.float32]:
    """Positions (V, 3) float32 in [-0.5, 0.5] in the object's own frame, no two equal."""
    turned = (
        vertices @ object_to_camera
    )  # a rotation's inverse is its transpose: applied from the right
    low, high = turned.min(axis=0), turned.max(axis=0)
    placed = (turned - (low + high) / 2) / (high - low).max()
    return _apart(placed, faces)


def _apart(placed: Vertices, faces: Faces) -> npt.NDArray[np.float32]:
    """Draw vertices of equal position apart, each into its own side of the solid.

    Where two sheets touch, simplification keeps one vertex for each at the same position. A reader
    that merges positions would join the sheets to an edge with four faces, and call the mesh open.
    """
    normals = vertex_normals(placed, faces)
    positions = np.clip(placed, -0.5, 0.5).astype(np.float32)
    for attempt in range(1, MAX_ROUNDS + 1):
        _, inverse, count = np.unique(positions, axis=0, return_inverse=True, return_counts=True)
        shared = count[inverse.reshape(-1)] > 1
        if not shared.any():
            break
        inward = placed[shared] - attempt * GAP * normals[shared]
        if attempt > 1:  # normals that agree need another direction: spread by rank
            rank = np.arange(int(shared.sum()))[:, None]
            inward += GAP * np.sin(rank * (12.9898, 78.233, 37.719))
        positions[shared] = np.clip(inward, -0.5, 0.5).astype(np.float32)
    return positions
