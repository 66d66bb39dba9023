"""Write a textured mesh as OBJ, PLY or STL. Knows nothing of glTF (see `glb`).

OBJ is three files, so it comes as one ZIP with the names its parts refer to each other by. PLY
carries the texture as vertex colours; STL is shape alone. Both have each position once, so that
every tool sees them closed. All keep glTF's axes: +Y up, facing +Z.
"""

from __future__ import annotations

import io
import zipfile

import numpy as np

from models.image_to_mesh.finishing.mesh import TexturedMesh
from models.image_to_mesh.finishing.textures import ENDINGS, TextureFormat, encode_texture

STAMP = (1980, 1, 1, 0, 0, 0)
"""Fixed time in the ZIP: equal input gives equal bytes."""


def encode_obj_zip(mesh: TexturedMesh, kind: TextureFormat = "jpeg", name: str = "mesh") -> bytes:
    if kind == "webp":
        kind = "jpeg"  # few readers of OBJ know WebP
    texture_name = f"{name}.{ENDINGS[kind]}"
    material = f"newmtl {name}\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd {texture_name}\n"
    normals_name = f"{name}_normal.{ENDINGS[kind]}"
    if mesh.normal_map is not None:
        material += f"norm {normals_name}\n"
    parts = {
        f"{name}.obj": (_obj_text(mesh, name).encode(), zipfile.ZIP_DEFLATED),
        f"{name}.mtl": (material.encode(), zipfile.ZIP_DEFLATED),
        texture_name: (encode_texture(mesh.texture, kind), zipfile.ZIP_STORED),
    }
    if mesh.normal_map is not None:
        picture = encode_texture(mesh.normal_map, kind, normals=True)
        parts[normals_name] = (picture, zipfile.ZIP_STORED)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for file_name, (data, compression) in parts.items():
            entry = zipfile.ZipInfo(file_name, STAMP)
            entry.compress_type = compression
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return stream.getvalue()


def _obj_text(mesh: TexturedMesh, name: str) -> str:
    """Positions and normals once each; only texture coordinates are split at seams. v points up."""
    lines = ["# meshpress", f"mtllib {name}.mtl", f"o {name}"]
    # 9 significant digits give every float32 back unchanged.
    lines += [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in mesh.positions.tolist()]
    lines += [f"vt {u:.6f} {1 - v:.6f}" for u, v in mesh.uv.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in mesh.normals.tolist()]
    lines.append(f"usemtl {name}")
    corners = np.stack([mesh.triangles, mesh.faces, mesh.triangles], axis=2) + 1
    lines += [
        "f " + " ".join(f"{p}/{t}/{n}" for p, t, n in triangle) for triangle in corners.tolist()
    ]
    return "\n".join(lines) + "\n"


def encode_ply(mesh: TexturedMesh) -> bytes:
    vertices = np.empty(
        len(mesh.positions),
        [("xyz", "<f4", 3), ("normal", "<f4", 3), ("rgb", "u1", 3)],
    )
    vertices["xyz"], vertices["normal"] = mesh.positions, mesh.normals
    vertices["rgb"] = mesh.vertex_colours()
    faces = np.empty(len(mesh.triangles), [("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, mesh.triangles
    header = ["ply", "format binary_little_endian 1.0", "comment meshpress"]
    header.append(f"element vertex {len(vertices)}")
    header += [f"property float {axis}" for axis in ("x", "y", "z", "nx", "ny", "nz")]
    header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    header.append(f"element face {len(faces)}")
    header += ["property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def encode_stl(mesh: TexturedMesh) -> bytes:
    corners = mesh.positions[mesh.triangles]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
    records = np.zeros(
        len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("flags", "<u2")]
    )
    records["normal"], records["corners"] = normal, corners
    header = b"meshpress, binary STL, +Y up, unit box".ljust(80)
    return header + np.uint32(len(records)).tobytes() + records.tobytes()
