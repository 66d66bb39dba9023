"""Write a textured mesh as binary glTF 2.0 (GLB), one buffer, one primitive, one PBR material.

Knows nothing of how the mesh was made. Format: Khronos glTF 2.0 specification, sections 3 and 4.4.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.image_to_mesh.finishing.container import (
    FLOAT,
    INDEX_BUFFER,
    UINT16,
    UINT32,
    VERTEX_BUFFER,
    glb,
)
from models.image_to_mesh.finishing.mesh import METALLIC, ROUGHNESS, TexturedMesh

CLAMP_TO_EDGE, LINEAR, LINEAR_MIPMAP_LINEAR = 33071, 9729, 9987
JPEG_QUALITY = 92

TextureFormat = Literal["jpeg", "png"]


def encode_texture(texture: npt.NDArray[np.uint8], kind: TextureFormat) -> bytes:
    """JPEG without chroma subsampling (it would smear page borders), or lossless PNG."""
    stream = io.BytesIO()
    image = Image.fromarray(texture, "RGB")
    if kind == "jpeg":
        image.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    else:
        image.save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def encode_glb(mesh: TexturedMesh, kind: TextureFormat = "jpeg", name: str = "object") -> bytes:
    index_type = np.uint16 if len(mesh.source) < 65535 else np.uint32
    parts = [
        (np.ascontiguousarray(mesh.positions[mesh.source]).tobytes(), VERTEX_BUFFER),
        (np.ascontiguousarray(mesh.normals[mesh.source]).tobytes(), VERTEX_BUFFER),
        (np.ascontiguousarray(mesh.uv).tobytes(), VERTEX_BUFFER),
        (np.ascontiguousarray(mesh.faces.astype(index_type)).tobytes(), INDEX_BUFFER),
        (encode_texture(mesh.texture, kind), None),
    ]
    binary = bytearray()
    views: list[dict[str, Any]] = []
    for data, target in parts:
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        views.append(view)
        binary += data + bytes(-len(data) % 4)
    count = len(mesh.source)
    used = mesh.positions[mesh.source]
    document = {
        "asset": {"version": "2.0", "generator": "meshpress"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": name}],
        "meshes": [
            {
                "name": name,
                "primitives": [
                    {
                        "attributes": {"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2},
                        "indices": 3,
                        "material": 0,
                    }
                ],
            }
        ],
        "materials": [
            {
                "name": name,
                "pbrMetallicRoughness": {
                    "baseColorTexture": {"index": 0},
                    "metallicFactor": METALLIC,
                    "roughnessFactor": ROUGHNESS,
                },
            }
        ],
        "textures": [{"sampler": 0, "source": 0}],
        "samplers": [
            {
                "magFilter": LINEAR,
                "minFilter": LINEAR_MIPMAP_LINEAR,
                "wrapS": CLAMP_TO_EDGE,
                "wrapT": CLAMP_TO_EDGE,
            }
        ],
        "images": [{"bufferView": 4, "mimeType": f"image/{kind}"}],
        "accessors": [
            {
                "bufferView": 0,
                "componentType": FLOAT,
                "count": count,
                "type": "VEC3",
                "min": used.min(axis=0).tolist(),
                "max": used.max(axis=0).tolist(),
            },
            {"bufferView": 1, "componentType": FLOAT, "count": count, "type": "VEC3"},
            {"bufferView": 2, "componentType": FLOAT, "count": count, "type": "VEC2"},
            {
                "bufferView": 3,
                "componentType": UINT16 if index_type is np.uint16 else UINT32,
                "count": mesh.faces.size,
                "type": "SCALAR",
            },
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    return glb(document, bytes(binary))
