"""A normal map in tangent space, and the tangents it is written against.

Knows nothing of textures' files. Convention of glTF 2.0 (section 3.9.3): x along growing u, y along
falling v (texture coordinates point down, the map's green points up), z outward; 0..255 stands for
-1..1. Tangents are MikkTSpace's: at each texture vertex the faces' directions of growing u, laid
into the plane of the vertex normal, averaged by the angle at the vertex; the file carries them, so
what a viewer reconstructs is what was baked: normal and tangent interpolated and made unit, the
bitangent their cross product times the handedness.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.cores import in_ranges
from models.image_to_mesh.finishing.texels import Texels
from models.image_to_mesh.geometry.surface import Faces

Array = npt.NDArray[np.float32]


def tangents(
    positions: Array,  # (N, 3) of the texture vertices
    normals: Array,  # (N, 3) unit
    uv: Array,  # (N, 2) v down
    faces: Faces,  # (F, 3)
) -> Array:  # (N, 4) float32: unit tangent, and +1 or -1
    corners = positions[faces].astype(np.float64)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    (s1, t1), (s2, t2) = (
        (uv[faces[:, k]] - uv[faces[:, 0]]).astype(np.float64).T * ((1,), (-1,)) for k in (1, 2)
    )
    doubled = s1 * t2 - s2 * t1  # twice the area in the texture, negative when mirrored
    along = (first * t2[:, None] - second * t1[:, None]) * np.sign(doubled)[:, None]
    edges = np.roll(corners, -1, axis=1) - corners
    edges /= np.maximum(np.linalg.norm(edges, axis=2, keepdims=True), 1e-30)
    angles = np.arccos(np.clip(-(edges * np.roll(edges, 1, axis=1)).sum(axis=2), -1, 1))
    total, handed = np.zeros((len(positions), 3)), np.zeros(len(positions))
    for corner in range(3):
        at = faces[:, corner]
        laid = _unit(along - (along * normals[at]).sum(axis=1, keepdims=True) * normals[at])
        for axis in range(3):
            total[:, axis] += np.bincount(
                at, angles[:, corner] * laid[:, axis], minlength=len(positions)
            )
        handed += np.bincount(at, angles[:, corner] * np.sign(doubled), minlength=len(positions))
    # Where nothing says which way u grows (charts without area), any direction in the plane.
    spare = _unit(np.cross(normals, np.eye(3)[np.abs(normals).argmin(axis=1)]))
    tangent = np.where(np.linalg.norm(total, axis=1, keepdims=True) > 1e-9, _unit(total), spare)
    return np.hstack((tangent, np.where(handed < 0, -1.0, 1.0)[:, None])).astype(np.float32)


def encode_normals(
    texels: Texels,
    faces: Faces,  # (F, 3) over the texture vertices
    normals: Array,  # (N, 3)
    tangent: Array,  # (N, 4)
    detailed: Array,  # (P, 3) the normal to show at each texel, any length
) -> npt.NDArray[np.uint8]:  # (P, 3)
    from models.image_to_mesh.finishing import normal_map_compiled as loops

    result = np.empty((len(texels.index), 3), np.uint8)

    def some(begin: int, end: int) -> None:
        loops.encode(
            texels.face, texels.weights, faces, normals, tangent, detailed, begin, end, result
        )

    in_ranges(some, len(result))
    return result


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:  # (N, 3)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30))
