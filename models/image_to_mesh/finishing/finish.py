"""From a detailed, coloured mesh to one that is light to show: fewer faces, texture, normal map.

Knows nothing of how the mesh was made, nor of files. Read `finish` from top to bottom.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.context import JsonValue
from models.image_to_mesh.finishing.bake_surface import find_detail, sample
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.compress import Compression
from models.image_to_mesh.finishing.fill import fill_nearest
from models.image_to_mesh.finishing.mesh import TexturedMesh
from models.image_to_mesh.finishing.normal_map import encode_normals, tangents
from models.image_to_mesh.finishing.normals import vertex_normals
from models.image_to_mesh.finishing.simplify import simplify
from models.image_to_mesh.finishing.textures import TextureFormat
from models.image_to_mesh.finishing.uv import unwrap_charts
from models.image_to_mesh.finishing.visibility import View


@dataclass(frozen=True)
class FinishOptions:
    """faces: budget of the simplified mesh. texture_size: side of the textures, texels.
    texture_format, compression: how `export` is to write them."""

    faces: int = 30_000
    texture_size: int = 2048
    normal_map: bool = True
    texture_format: TextureFormat = "jpeg"
    compression: Compression = "none"


@dataclass(frozen=True)
class Finished:
    """facts: plain JSON: counts, and the seconds of each stage."""

    mesh: TexturedMesh
    facts: dict[str, JsonValue]


def finish(
    mesh: ColouredMesh,
    options: FinishOptions,
    *,
    stage: Callable[[str], None] | None = None,
    device: str = "cpu",
    views: Sequence[View] = (),
) -> Finished:
    """stage: told the name of each stage as it begins; it may raise to stop.
    views: pictures of the object in the mesh's own coordinates; where they see the surface, their
    colours replace those of the vertices."""
    watch = _Watch(stage)

    # 1. Simplify: down to the face budget.
    watch.begin("simplify")
    vertices, faces = simplify(mesh.vertices.astype(np.float64), mesh.faces, options.faces)
    positions = vertices.astype(np.float32)
    normals = vertex_normals(positions, faces).astype(np.float32)

    # 2. Unwrap: charts laid flat into one square.
    watch.begin("unwrap")
    unwrapped = unwrap_charts(positions, faces, options.texture_size)

    # 3. Bake: what the detailed surface shows at each texel.
    watch.begin("bake")
    painted = find_detail(mesh, positions, normals, unwrapped, options.texture_size, device)
    texels = painted.texels
    colours = sample(painted, mesh.colours, mesh.faces)
    texture = texels.picture((np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8))
    normal_map = tangent = None
    if options.normal_map:
        at = unwrapped.source
        tangent = tangents(positions[at], normals[at], unwrapped.uv, unwrapped.faces)
        detailed = sample(
            painted, vertex_normals(mesh.vertices, mesh.faces).astype(np.float32), mesh.faces
        )
        normal_map = texels.picture(
            encode_normals(texels, unwrapped.faces, normals[at], tangent, detailed)
        )

    # 4. Pad: colours continue past the charts' edges, or smaller versions of the texture mix them
    # with what lies between.
    watch.begin("pad")
    known = texels.covered
    texture = fill_nearest(texture, known)
    if normal_map is not None:
        normal_map = fill_nearest(normal_map, known)
    watch.end()
    textured = TexturedMesh(
        positions, normals, faces, unwrapped.source, unwrapped.uv, unwrapped.faces, texture,
        normal_map, tangent,
    )  # fmt: skip
    facts: dict[str, JsonValue] = {
        "faces_before": len(mesh.faces),
        "faces": len(faces),
        "charts": unwrapped.charts,
        "texels": len(texels.index),
        "seconds": watch.seconds,
    }
    return Finished(textured, facts)


@dataclass
class _Watch:
    """Tells which stage runs and keeps how long each took."""

    stage: Callable[[str], None] | None
    seconds: dict[str, float] = field(default_factory=dict)
    _current: tuple[str, float] | None = None

    def begin(self, name: str) -> None:
        self.end()
        if self.stage is not None:
            self.stage(name)
        self._current = name, time.perf_counter()

    def end(self) -> None:
        if self._current is not None:
            name, since = self._current
            self.seconds[name] = round(time.perf_counter() - since, 4)
            self._current = None
