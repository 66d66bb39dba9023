"""A mesh with a colour at each vertex as binary glTF 2.0: no texture, so every detail stays.

Knows nothing of how the mesh was made. Format: Khronos glTF 2.0 specification, section 3.7.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.finishing.container import (
    FLOAT,
    INDEX_BUFFER,
    UINT16,
    UINT32,
    VERTEX_BUFFER,
    glb,
)
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
    normals = vertex_normals(mesh.vertices, mesh.faces).astype(np.float32)
    linear = np.round(_linear(mesh.colours) * 65535).astype(np.uint16)
    opaque = np.full((len(linear), 1), 65535, np.uint16)  # 8 bytes a vertex: strides of four
    parts: list[tuple[npt.NDArray[Any], int, int, dict[str, Any]]] = [
        (mesh.vertices.astype(np.float32), FLOAT, VERTEX_BUFFER, _bounds(mesh.vertices)),
        (normals, FLOAT, VERTEX_BUFFER, {}),
        (np.hstack((linear, opaque)), UINT16, VERTEX_BUFFER, {"normalized": True}),
        (mesh.faces.reshape(-1).astype(np.uint32), UINT32, INDEX_BUFFER, {}),
    ]
    binary = bytearray()
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    for data, component, target, more in parts:
        view = {"buffer": 0, "byteOffset": len(binary), "byteLength": data.nbytes, "target": target}
        kind = "SCALAR" if data.ndim == 1 else f"VEC{data.shape[1]}"
        accessor = {"bufferView": len(views), "componentType": component, "count": len(data)}
        views.append(view)
        accessors.append({**accessor, "type": kind, **more})
        binary += np.ascontiguousarray(data).tobytes()
    material = {"metallicFactor": METALLIC, "roughnessFactor": ROUGHNESS}
    attributes = {"POSITION": 0, "NORMAL": 1, "COLOR_0": 2}
    document = {
        "asset": {"version": "2.0", "generator": "meshpress"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 3, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": material}],
        "buffers": [{"byteLength": len(binary)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    return glb(document, bytes(binary))


def _linear(srgb: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """IEC 61966-2-1: sRGB 0..1 to linear light 0..1."""
    value = np.clip(srgb, 0, 1)
    bright = ((value + 0.055) / 1.055) ** 2.4
    return np.where(value <= 0.04045, value / 12.92, bright)


def _bounds(vertices: npt.NDArray[np.float32]) -> dict[str, Any]:
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return {"min": [float(v) for v in low], "max": [float(v) for v in high]}
