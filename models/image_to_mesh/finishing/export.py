"""Write the finished mesh in the formats asked for, and read the GLB back to state what it is.

Knows nothing of jobs: it takes a folder and returns artifacts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.context import Artifact, PipelineError
from models.image_to_mesh.finishing.check import MeshFacts, read_back
from models.image_to_mesh.finishing.compress import Compression
from models.image_to_mesh.finishing.formats import encode_obj_zip, encode_ply, encode_stl
from models.image_to_mesh.finishing.glb import encode_glb
from models.image_to_mesh.finishing.mesh import TexturedMesh
from models.image_to_mesh.finishing.textures import TextureFormat

ARTIFACTS = {
    "glb": ("mesh.glb", "model/gltf-binary"),
    "obj": ("mesh.obj.zip", "application/zip"),
    "ply": ("mesh.ply", "application/ply"),
    "stl": ("mesh.stl", "model/stl"),
}


class UnsoundMeshError(PipelineError):
    """The exported file is not closed or not clean: a defect of ours, so it is not handed out."""

    code = "mesh_unsound"


def export(
    mesh: TexturedMesh,
    formats: Sequence[str],
    texture_format: TextureFormat,
    folder: Path,
    *,
    compression: Compression = "none",
    closed: bool = True,
) -> tuple[list[Artifact], MeshFacts]:
    """Artifacts in the order of `formats`, without repeats, and the facts of the GLB read back.

    closed: the surface was made closed, so a file that is not is refused. Raises Unavailable where
    the compression needs a package that is not installed.
    """
    glb = encode_glb(mesh, texture_format, compression=compression)
    facts = read_back(glb)
    if closed and compression == "none" and not facts.sound:
        raise UnsoundMeshError(
            f"The exported mesh is not sound: {facts}.",
            next_step="Report this image; another resolution or face budget may avoid it.",
        )
    artifacts = []
    for kind in dict.fromkeys(formats):
        name, media_type = ARTIFACTS[kind]
        path = folder / name
        path.write_bytes(glb if kind == "glb" else _encode(mesh, kind, texture_format))
        artifacts.append(Artifact(name, path, media_type))
    return artifacts, facts


def _encode(mesh: TexturedMesh, kind: str, texture_format: TextureFormat) -> bytes:
    if kind == "obj":
        return encode_obj_zip(mesh, texture_format)
    return encode_ply(mesh) if kind == "ply" else encode_stl(mesh)
