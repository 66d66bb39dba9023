"""From a detailed, coloured mesh to one that is light to show: fewer faces, texture, normal map.

Knows nothing of how the mesh was made, nor of files. Read `finish` from top to bottom.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.context import InvalidInput, JsonValue, Unavailable
from models.image_to_mesh.finishing.bake_surface import find_detail
from models.image_to_mesh.finishing.bake_views import paint_views
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.compress import Compression
from models.image_to_mesh.finishing.edges import compact
from models.image_to_mesh.finishing.fill import fill_nearest
from models.image_to_mesh.finishing.holes import Filled, fill_holes
from models.image_to_mesh.finishing.mesh import TexturedMesh
from models.image_to_mesh.finishing.normal_map import encode_normals, tangents
from models.image_to_mesh.finishing.normals import (
    face_normals,
    vertex_normals,
    vertex_normals_in_loops,
)
from models.image_to_mesh.finishing.pieces import remove_floating, remove_hidden
from models.image_to_mesh.finishing.simplify import simplify
from models.image_to_mesh.finishing.textures import TextureFormat
from models.image_to_mesh.finishing.uv import unwrap_charts
from models.image_to_mesh.finishing.visibility import View
from models.image_to_mesh.geometry.surface import Faces

Array = npt.NDArray[np.float32]

LOOPS = ("closest", "normal_map", "normals", "patch", "pieces", "texels")
"""Whose compiled loops every mesh needs."""


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


def warm_up() -> None:
    """Compiles the loops, or loads them from disk: half a minute of two cores that the first job
    on a new machine would else spend, deaf to a cancel."""
    for name in LOOPS:
        importlib.import_module(f"models.image_to_mesh.finishing.{name}_compiled")


def finish(
    mesh: ColouredMesh,
    options: FinishOptions,
    *,
    stage: Callable[[str], None] | None = None,
    check: Callable[[], None] = lambda: None,
    device: str = "cpu",
    views: Sequence[View] = (),
) -> Finished:
    """stage: told the name of each stage as it begins. check: called within those that may take
    seconds: between passes of the simplification, parts of the search, views. Both may raise to
    stop.
    views: pictures of the object in the mesh's own coordinates; where they see the surface, their
    colours replace those of the vertices.

    Raises InvalidInput where the mesh has no area, Unavailable where numbers are not finite."""
    _check(mesh)
    watch = _Watch(stage)

    # 1. Clean: no crumbs around it, nothing hidden in it, no small holes.
    watch.begin("clean")
    faces = remove_floating(mesh.vertices, mesh.faces)
    whole = fill_holes(mesh.vertices, faces, mesh.colours)  # before: through holes inner parts show
    detailed = _compacted(whole, remove_hidden(whole.vertices, whole.faces))

    # 2. Simplify: down to the face budget.
    watch.begin("simplify")
    vertices, triangles = simplify(
        detailed.vertices.astype(np.float64), detailed.faces, options.faces, check
    )
    positions = vertices.astype(np.float32)
    normals = vertex_normals(positions, triangles).astype(np.float32)

    # 3. Unwrap: charts laid flat into one square.
    watch.begin("unwrap")
    unwrapped = unwrap_charts(positions, triangles, options.texture_size)

    # 4. Bake: what the detailed surface, and the views, show at each texel.
    watch.begin("bake")
    painted = find_detail(
        detailed, positions, normals, unwrapped, options.texture_size, device, check
    )
    texels, seen = painted.texels, 0.0
    colours = painted.sample(detailed.colours)
    if views:
        colours, seen = paint_views(
            painted.points, painted.normals, colours, positions, triangles, views,
            texels_per_unit(positions, triangles, len(texels.index)), check,
        )  # fmt: skip
    texture = texels.picture((np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8))
    normal_map = tangent = None
    if options.normal_map:
        check()
        at = unwrapped.source
        tangent = tangents(positions[at], normals[at], unwrapped.uv, unwrapped.faces)
        directions = painted.sample(vertex_normals_in_loops(detailed.vertices, detailed.faces))
        normal_map = texels.picture(
            encode_normals(texels, unwrapped.faces, normals[at], tangent, directions)
        )

    # 5. Pad: colours go on past the charts' edges, or smaller versions of the texture would mix
    # them with what lies between.
    watch.begin("pad")
    known = texels.covered
    texture = fill_nearest(texture, known)
    if normal_map is not None:
        normal_map = fill_nearest(normal_map, known)
    watch.end()
    textured = TexturedMesh(
        positions, normals, triangles, unwrapped.source, unwrapped.uv, unwrapped.faces, texture,
        normal_map, tangent,
    )  # fmt: skip
    facts: dict[str, JsonValue] = {
        "faces_given": len(mesh.faces),
        "faces_floating": len(mesh.faces) - len(faces),
        "faces_hidden": len(whole.faces) - len(detailed.faces),
        "holes_closed": whole.closed,
        "holes_left": whole.left,
        "faces": len(triangles),
        "charts": unwrapped.charts,
        "texture_used": round(len(texels.index) / options.texture_size**2, 3),
        "texture_from_views": round(seen, 3),
        "seconds": watch.seconds,
    }
    return Finished(textured, facts)


def _check(mesh: ColouredMesh) -> None:
    """Numbers that are none lead compiled loops beyond their arrays."""
    if not all(np.isfinite(values).all() for values in (mesh.vertices, mesh.colours)):
        raise Unavailable(
            "The network's surface has positions or colours that are not finite.",
            code="surface_not_finite",
            next_step="Try another seed, or MESHPRESS_DTYPE=float32 for the service.",
        )
    parts = (mesh.faces[k : k + (1 << 16)] for k in range(0, len(mesh.faces), 1 << 16))
    if not any(face_normals(mesh.vertices, part).any() for part in parts):
        raise InvalidInput(
            "The network's surface is empty: no face has an area.",
            code="surface_empty",
            next_step="Try another seed, or an image that shows the object larger.",
        )


def texels_per_unit(vertices: Array, faces: Faces, texels: int) -> float:
    """How finely the texture shows the surface."""
    area = 0.5 * float(np.linalg.norm(face_normals(vertices, faces), axis=1).sum())
    return float(np.sqrt(texels / max(area, 1e-30)))


def _compacted(whole: Filled, faces: Faces) -> ColouredMesh:
    vertices, faces, (colours,) = compact(whole.vertices, faces, whole.attributes)
    return ColouredMesh(
        np.ascontiguousarray(vertices, np.float32),
        np.ascontiguousarray(faces, np.int32),
        np.ascontiguousarray(colours, np.float32),
    )


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
