"""Write a textured mesh as binary glTF 2.0 (GLB): one buffer, one primitive, one PBR material.

Knows nothing of how the mesh was made. Format: Khronos glTF 2.0 specification, section 3, with
EXT_texture_webp for WebP; `compress` and `meshopt` know the extensions that make geometry smaller.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from models.image_to_mesh.finishing.compress import Compression, compressed_with_draco, quantized
from models.image_to_mesh.finishing.container import Document
from models.image_to_mesh.finishing.edges import is_closed
from models.image_to_mesh.finishing.mesh import METALLIC, ROUGHNESS, TexturedMesh
from models.image_to_mesh.finishing.meshopt import compressed_with_meshopt
from models.image_to_mesh.finishing.textures import TextureFormat, encode_texture

CLAMP_TO_EDGE, LINEAR, LINEAR_MIPMAP_LINEAR = 33071, 9729, 9987


def encode_glb(
    mesh: TexturedMesh,
    kind: TextureFormat = "jpeg",
    name: str = "object",
    compression: Compression = "none",
) -> bytes:
    """Raises Unavailable where the compression needs a package that is not installed."""
    document = Document()
    node: dict[str, Any] = {"mesh": 0, "name": name}
    if compression == "draco":
        primitive = compressed_with_draco(document, mesh)
    elif compression != "none":
        pack = compressed_with_meshopt if compression == "meshopt" else quantized
        primitive, placement = pack(document, mesh)
        node |= placement
    else:
        primitive = _plain(document, mesh)
    document.root |= {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [node],
        "meshes": [{"name": name, "primitives": [primitive | {"material": 0}]}],
        "materials": [_material(document, mesh, kind, name)],
    }
    return document.glb()


def _plain(document: Document, mesh: TexturedMesh) -> dict[str, Any]:
    attributes = {
        "POSITION": document.vertices(mesh.positions[mesh.source], bounds=True),
        "NORMAL": document.vertices(mesh.normals[mesh.source]),
        "TEXCOORD_0": document.vertices(mesh.uv),
    }
    if mesh.tangents is not None:
        attributes["TANGENT"] = document.vertices(mesh.tangents)
    return {"attributes": attributes, "indices": document.indices(mesh.faces, len(mesh.source))}


def _material(
    document: Document, mesh: TexturedMesh, kind: TextureFormat, name: str
) -> dict[str, Any]:
    pictures = [mesh.texture, *([] if mesh.normal_map is None else [mesh.normal_map])]
    with ThreadPoolExecutor(len(pictures)) as pool:  # encoders leave the interpreter lock
        encoded = list(
            pool.map(
                lambda at: encode_texture(pictures[at], kind, normals=at > 0), range(len(pictures))
            )
        )
    textures: list[dict[str, Any]] = []
    for data in encoded:
        image = document.image(data, f"image/{kind}")
        if kind == "webp":
            document.uses("EXT_texture_webp", required=True)
            place: dict[str, Any] = {"extensions": {"EXT_texture_webp": {"source": image}}}
        else:
            place = {"source": image}
        textures.append({"sampler": 0, **place})
    document.root |= {
        "textures": textures,
        "samplers": [
            {
                "magFilter": LINEAR,
                "minFilter": LINEAR_MIPMAP_LINEAR,
                "wrapS": CLAMP_TO_EDGE,
                "wrapT": CLAMP_TO_EDGE,
            }
        ],
    }
    material: dict[str, Any] = {
        "name": name,
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0},
            "metallicFactor": METALLIC,
            "roughnessFactor": ROUGHNESS,
        },
    }
    if mesh.normal_map is not None:
        material["normalTexture"] = {"index": 1}
    if not is_closed(mesh.triangles):  # its back shows, and would be left out
        material["doubleSided"] = True
    return material
