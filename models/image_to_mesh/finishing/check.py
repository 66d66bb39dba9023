"""Read an exported GLB back and state facts about it: closed, outward, clean, inside the unit box.

Knows nothing of how it was written: the reader is another library (trimesh), so that a mistake of
the writer cannot hide itself. Seams split vertices, so topology is judged on merged positions.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import trimesh

from models.image_to_mesh.finishing.meshopt_unpack import unpacked


@dataclass(frozen=True)
class MeshFacts:
    """bounds: lowest and highest corner. degenerate_faces: zero area or a repeated vertex."""

    faces: int
    vertices: int
    positions: int
    watertight: bool
    consistent_winding: bool
    volume: float
    degenerate_faces: int
    bounds: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def sound(self) -> bool:
        return (
            self.watertight
            and self.consistent_winding
            and self.volume > 0
            and not self.degenerate_faces
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read_back(glb: bytes) -> MeshFacts:
    scene = trimesh.load_scene(io.BytesIO(unpacked(glb)), file_type="glb", process=False)
    mesh = scene.to_mesh()  # placed as the scene says: quantised positions are steps
    vertices, triangles = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    # Equal as float32, bit for bit: no tolerance that could close a gap by itself.
    positions, inverse = np.unique(vertices.astype(np.float32), axis=0, return_inverse=True)
    merged = trimesh.Trimesh(
        positions.astype(np.float64), inverse.reshape(-1)[triangles], process=False
    )
    corners = merged.vertices[merged.faces]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    repeated = (np.diff(np.sort(merged.faces, axis=1), axis=1) == 0).any(axis=1)
    return MeshFacts(
        faces=len(triangles),
        vertices=len(vertices),
        positions=len(positions),
        watertight=bool(merged.is_watertight),
        consistent_winding=bool(merged.is_winding_consistent),
        volume=round(float(merged.volume), 6),
        degenerate_faces=int((repeated | (area <= 0)).sum()),
        bounds=(
            tuple(np.round(vertices.min(axis=0), 6).tolist()),
            tuple(np.round(vertices.max(axis=0), 6).tolist()),
        ),
    )
