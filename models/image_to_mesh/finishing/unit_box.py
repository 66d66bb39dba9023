"""Place a mesh into the glTF unit box: +Y up, facing +Z, longest side 1, centred at the origin.

Knows nothing of cameras but the first one's angles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.normals import face_normals, vertex_normals
from models.image_to_mesh.geometry.surface import Faces, Vertices

GAP = 2e-5
"""How far a vertex is moved that coincides with another or lies on an edge, in units of the box."""
LEAST_HEIGHT = 1e-7
"""A triangle less high than this, in units of the box, has no area worth the name in float32."""
MAX_ROUNDS = 8


def to_unit_box(
    vertices: Vertices,  # (V, 3) first camera's frame, half-image units
    faces: Faces,
    object_to_camera: npt.NDArray[np.float64],  # (3, 3) rotation of the first camera
) -> npt.NDArray[np.float32]:
    """Positions (V, 3) float32 in [-0.5, 0.5] in the object's own frame.

    No two are equal, and no face is flat to a line.
    """
    turned = (
        vertices @ object_to_camera
    )  # a rotation's inverse is its transpose: applied from the right
    low, high = turned.min(axis=0), turned.max(axis=0)
    placed = (turned - (low + high) / 2) / (high - low).max()
    return _apart(placed, faces)


def _apart(placed: Vertices, faces: Faces) -> npt.NDArray[np.float32]:
    """Move vertices that coincide, or lie on the opposite edge of a face, a little into the solid.

    Where two sheets touch, simplification keeps one vertex for each at the same position. A reader
    that merges positions would join the sheets to an edge with four faces, and call the mesh open.
    """
    normals = vertex_normals(placed, faces)
    positions = np.clip(placed, -0.5, 0.5).astype(np.float32)
    for attempt in range(1, MAX_ROUNDS + 1):
        moving = _coincident(positions) | _on_an_edge(positions, faces)
        if not moving.any():
            break
        inward = placed[moving] - attempt * GAP * normals[moving]
        if attempt > 1:  # normals that agree need another direction: spread by rank
            rank = np.arange(int(moving.sum()))[:, None]
            inward += GAP * np.sin(rank * (12.9898, 78.233, 37.719))
        positions[moving] = np.clip(inward, -0.5, 0.5).astype(np.float32)
    return positions


def _coincident(positions: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:  # (V, 3) -> (V,)
    _, inverse, count = np.unique(positions, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(count[inverse.reshape(-1)] > 1)


def _on_an_edge(positions: npt.NDArray[np.float32], faces: Faces) -> npt.NDArray[np.bool_]:
    """Vertices (V,) that lie on the longest edge of one of their faces."""
    corners = positions[faces].astype(np.float64)
    opposite = np.linalg.norm(np.roll(corners, -1, axis=1) - np.roll(corners, -2, axis=1), axis=2)
    doubled = np.linalg.norm(face_normals(positions, faces), axis=1)
    flat = doubled < LEAST_HEIGHT * opposite.max(axis=1)
    found = np.zeros(len(positions), bool)
    found[faces[flat, opposite[flat].argmax(axis=1)]] = True
    return found
