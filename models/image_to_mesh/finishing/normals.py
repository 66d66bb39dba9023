"""Vertex normals of a mesh, before texture seams split its vertices.

Knows nothing of texture; normals are shared across seams, so that shading shows none. For meshes of
a million faces there are compiled loops; `vertex_normals` is their plain reference.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.geometry.surface import Faces

Array = npt.NDArray[np.float64]


def face_normals(
    vertices: npt.NDArray[np.floating], faces: Faces
) -> Array:  # -> (F, 3), length 2 x area
    corners = vertices[faces].astype(np.float64)
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def vertex_normals(vertices: npt.NDArray[np.floating], faces: Faces) -> Array:  # -> (V, 3) unit
    """Face normals weighted by the angle at the vertex: how a flat part is cut up has no effect."""
    corners = vertices[faces].astype(np.float64)
    edges = np.roll(corners, -1, axis=1) - corners
    edges /= np.maximum(np.linalg.norm(edges, axis=2, keepdims=True), 1e-30)
    cosines = -np.einsum("fij,fij->fi", edges, np.roll(edges, 1, axis=1))
    angles = np.arccos(np.clip(cosines, -1, 1))
    unit = face_normals(vertices, faces)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-30)
    total = np.zeros((len(vertices), 3))
    for corner in range(3):
        for axis in range(3):
            weights = angles[:, corner] * unit[:, axis]
            total[:, axis] += np.bincount(faces[:, corner], weights, minlength=len(vertices))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    # A vertex whose faces cancel out (a fold) gets any unit vector: glTF forbids zero normals.
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), (0.0, 0.0, 1.0))


def vertex_normals_in_loops(
    vertices: npt.NDArray[np.floating], faces: Faces
) -> npt.NDArray[np.float32]:  # -> (V, 3) unit
    """The same by compiled loops (see `models.compiled`)."""
    from models.image_to_mesh.finishing import normals_compiled as loops

    total = np.zeros((len(vertices), 3))
    loops.gather(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces), total)
    result = np.empty((len(vertices), 3), np.float32)
    loops.normalise(total, result)
    return result
