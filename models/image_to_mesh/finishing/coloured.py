"""A mesh with a colour at each vertex as binary glTF 2.0: no texture, so every detail stays.

Knows nothing of how the mesh was made. Format: Khronos glTF 2.0 specification, section 3.7.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.container import Document
from models.image_to_mesh.finishing.mesh import METALLIC, ROUGHNESS
from models.image_to_mesh.finishing.normals import vertex_normals


@dataclass(frozen=True)
class ColouredMesh:
    """vertices: (V, 3) float32, y up; faces: (F, 3) int32, counter-clockwise from outside;
    colours: (V, 3) float32 sRGB 0..1."""

    vertices: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    colours: npt.NDArray[np.float32]


def encode_coloured_glb(mesh: ColouredMesh, name: str = "object") -> bytes:
    """One buffer, one primitive; colours linear in 16 bits, as the format wants them."""
    document = Document()
    normals = vertex_normals(mesh.vertices, mesh.faces).astype(np.float32)
    linear = np.round(_linear(mesh.colours) * 65535).astype(np.uint16)
    opaque = np.full((len(linear), 1), 65535, np.uint16)
    attributes = {
        "POSITION": document.vertices(mesh.vertices.astype(np.float32), bounds=True),
        "NORMAL": document.vertices(normals),
        "COLOR_0": document.vertices(np.hstack((linear, opaque)), normalized=True),
    }
    indices = document.indices(mesh.faces, len(mesh.vertices))
    material = {"metallicFactor": METALLIC, "roughnessFactor": ROUGHNESS}
    document.root |= {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": material}],
    }
    return document.glb()


def _linear(srgb: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """IEC 61966-2-1: sRGB 0..1 to linear light 0..1."""
    value = np.clip(srgb, 0, 1)
    bright = ((value + 0.055) / 1.055) ** 2.4
    return np.where(value <= 0.04045, value / 12.92, bright)
