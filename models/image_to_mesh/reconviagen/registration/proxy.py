"""A light stand-in for a mesh of a million faces: it looks the same on pictures of 128 pixels.

Knows nothing of cameras.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.normals import face_normals

Array = npt.NDArray[np.float32]

CELLS = 48
"""Along the object's longest side, which the pictures show 85 pixels long."""
LIGHT_FACES = 20_000


def proxy(mesh: ColouredMesh) -> ColouredMesh:
    """Vertices of one cell become one, their mean in place and colour; faces without area go."""
    if len(mesh.faces) <= LIGHT_FACES:
        return mesh
    low = mesh.vertices.min(axis=0)
    size = float(np.ptp(mesh.vertices, axis=0).max())
    cells = ((mesh.vertices - low) * (CELLS / max(size, 1e-30))).astype(np.int64)
    keys = (cells[:, 0] * (CELLS + 1) + cells[:, 1]) * (CELLS + 1) + cells[:, 2]
    _, cluster, counts = np.unique(keys, return_inverse=True, return_counts=True)
    cluster = cluster.reshape(-1).astype(np.int32)
    values = np.concatenate([mesh.vertices, mesh.colours], axis=1)
    means = np.stack(
        [np.bincount(cluster, values[:, k], minlength=len(counts)) / counts for k in range(6)], 1
    ).astype(np.float32)
    faces = cluster[mesh.faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    if not len(faces):  # crumbs alone, each within a cell
        return mesh
    # Many small faces lie in the same three cells, of either winding: one of them is enough.
    ordered = np.sort(faces, axis=1).astype(np.int64)
    _, first = np.unique(
        (ordered[:, 0] * len(counts) + ordered[:, 1]) * len(counts) + ordered[:, 2],
        return_index=True,
    )
    return ColouredMesh(
        np.ascontiguousarray(means[:, :3]),
        np.ascontiguousarray(faces[np.sort(first)]),
        np.ascontiguousarray(means[:, 3:]),
    )


def sampled(
    mesh: ColouredMesh, count: int, rng: np.random.Generator
) -> tuple[Array, Array]:  # (count, 3) points, (count, 3) colours
    """Points spread evenly over the surface."""
    area = np.linalg.norm(face_normals(mesh.vertices, mesh.faces), axis=1)
    chosen = rng.choice(len(area), count, p=area / area.sum())
    weights = rng.dirichlet((1.0, 1.0, 1.0), count)[..., None]
    corners = mesh.faces[chosen]
    return tuple(  # type: ignore[return-value]  # two of them
        np.ascontiguousarray((values[corners] * weights).sum(axis=1), np.float32)
        for values in (mesh.vertices, mesh.colours)
    )
