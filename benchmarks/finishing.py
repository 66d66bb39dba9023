"""Measure finishing: a million coloured faces to 30,000 with texture, normal map and GLB.

    python benchmarks/finishing.py [--data ../shared] [--cores 2] [--device cuda] [--out folder]

Knows nothing of networks. The input is `finishing_input.million_faces`; quality is judged where the
bake does not look: at random points of the detailed surface, through the textures as written.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.finishing_input import million_faces  # noqa: E402
from models.image_to_mesh.finishing.closest import build_surface  # noqa: E402
from models.image_to_mesh.finishing.coloured import ColouredMesh  # noqa: E402
from models.image_to_mesh.finishing.export import export  # noqa: E402
from models.image_to_mesh.finishing.finish import FinishOptions, finish  # noqa: E402
from models.image_to_mesh.finishing.glb import encode_glb  # noqa: E402
from models.image_to_mesh.finishing.mesh import TexturedMesh  # noqa: E402
from models.image_to_mesh.finishing.normals import vertex_normals  # noqa: E402
from models.image_to_mesh.finishing.texels import cover, interpolate  # noqa: E402
from models.image_to_mesh.finishing.textures import encode_texture  # noqa: E402
from models.image_to_mesh.finishing.visibility import View  # noqa: E402
from models.image_to_mesh.geometry.cameras import Camera, object_to_camera  # noqa: E402

Array = npt.NDArray[Any]
POINTS = 30_000


def pictures(count: int) -> list[View]:
    """Views around the object, 1024² each, opaque: what they show costs the same."""
    ticks = np.linspace(0, 1, 1024, dtype=np.float32)
    rgba = np.ones((1024, 1024, 4), np.float32)
    rgba[..., 0], rgba[..., 1] = np.meshgrid(ticks, ticks)
    turns = np.arange(count) * 360 / max(count, 1)
    return [View(rgba, Camera(object_to_camera(turn, 0))) for turn in turns]


def run(
    mesh: ColouredMesh, device: str, folder: Path, views: Sequence[View] = ()
) -> tuple[TexturedMesh, dict[str, Any]]:
    """One whole run, in seconds: each stage, export with the check of the file, and all."""
    begin = time.perf_counter()
    finished = finish(mesh, FinishOptions(), device=device, views=views)
    middle = time.perf_counter()
    _, facts = export(finished.mesh, ["glb"], "jpeg", folder, closed=False)
    end = time.perf_counter()
    seconds = {**finished.facts["seconds"], "export": end - middle, "all": end - begin}
    rounded = {name: round(value, 2) for name, value in seconds.items()}
    return finished.mesh, {**finished.facts, "watertight": facts.watertight, "seconds": rounded}


def quality(detailed: ColouredMesh, mesh: TexturedMesh) -> dict[str, float]:
    """Colours in steps of 255 and normals in degrees, against the detailed surface."""
    rng = np.random.default_rng(0)
    corners = detailed.vertices[detailed.faces]
    doubled = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(doubled, axis=1).astype(np.float64)
    face = rng.choice(len(area), POINTS, p=area / area.sum())
    weights = rng.dirichlet((1, 1, 1), POINTS)
    at = detailed.faces[face]

    def there(values: Array) -> Array:
        return np.einsum("pk,pkc->pc", weights, values[at]).astype(np.float32)

    normals = _unit(there(vertex_normals(detailed.vertices, detailed.faces)))
    low = build_surface(mesh.positions[mesh.source], mesh.faces)
    found = low.nearest(there(detailed.vertices), normals)
    uv = found.interpolate(mesh.uv, mesh.faces)
    texture = decoded(encode_texture(mesh.texture, "jpeg"))
    normal_map = decoded(encode_texture(mesh.normal_map, "jpeg", normals=True))
    off = np.abs(look_up(texture, uv) - 255 * there(detailed.colours))
    smooth = _unit(found.interpolate(mesh.normals[mesh.source], mesh.faces))
    tangent = _unit(found.interpolate(mesh.tangents[:, :3], mesh.faces))
    hand = mesh.tangents[mesh.faces[found.face, 0], 3:]
    frame = (tangent, _unit(np.cross(smooth, tangent)) * hand, smooth)
    inner = look_up(normal_map, uv) / 127.5 - 1
    mapped = _unit(sum(inner[:, k : k + 1] * axis for k, axis in enumerate(frame)))
    shown = {"mapped": mapped, "vertex": smooth, "flat": low.table[found.face, 9:]}
    angle = {name: _degrees(value, normals) for name, value in shown.items()}
    return {
        "colour_mean": float(off.mean()),
        "colour_p99": float(np.percentile(off, 99)),
        **{f"normal_{name}_mean": float(value.mean()) for name, value in angle.items()},
        **{f"normal_{name}_median": float(np.median(value)) for name, value in angle.items()},
        "distance_mean": float(found.distance.mean()),
    }


def decoded(data: bytes) -> Array:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


def look_up(picture: Array, uv: Array) -> Array:  # (S, S, 3), (P, 2) -> (P, 3)
    at = (uv * len(picture) - 0.5).astype(np.float32)
    return cv2.remap(picture, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR)[0]


def sizes(mesh: TexturedMesh) -> list[dict[str, Any]]:
    rows = []
    for kind in ("jpeg", "png", "webp"):
        for compression in ("none", "quantize", "meshopt", "draco"):
            begin = time.perf_counter()
            size = len(encode_glb(mesh, kind, compression=compression))
            seconds = round(time.perf_counter() - begin, 2)
            rows.append({"textures": kind, "geometry": compression, "mb": size / 1e6, "s": seconds})
    return rows


def parts(detailed: ColouredMesh, mesh: TexturedMesh, device: str) -> dict[str, float]:
    """Best of five, in milliseconds: what a GPU does of baking, data there and back left out."""
    size = len(mesh.texture)
    if device == "cpu":
        texels = cover(mesh.uv, mesh.faces, size)
        corners = mesh.source[mesh.faces].astype(np.int32)
        points, normals = (
            interpolate(texels.face, texels.weights, corners, values)
            for values in (mesh.positions, mesh.normals)
        )
        surface = build_surface(detailed.vertices, detailed.faces)
        work: dict[str, Callable[[], object]] = {
            "cover": lambda: cover(mesh.uv, mesh.faces, size),
            "grid": lambda: build_surface(detailed.vertices, detailed.faces),
            "search": lambda: surface.nearest(points, normals),
        }
        return {"texels": len(points), **{name: _best(call) for name, call in work.items()}}
    import torch

    from models.image_to_mesh.finishing import closest_device, rasterize_device

    uv, faces, vertices, all_faces, corners = (
        torch.from_numpy(np.ascontiguousarray(array)).to(device)
        for array in (
            mesh.uv, mesh.faces.astype(np.int64), detailed.vertices,
            detailed.faces.astype(np.int64), mesh.source[mesh.faces],
        )
    )  # fmt: skip
    _, face, weights = rasterize_device.cover(uv, faces, size)
    points, normals = (
        torch.einsum("pk,pkc->pc", weights, torch.from_numpy(values).to(device)[corners[face]])
        for values in (mesh.positions, mesh.normals)
    )
    work = {
        "cover": lambda: rasterize_device.cover(uv, faces, size),
        "grid and search": lambda: closest_device.nearest(vertices, all_faces, points, normals),
    }

    def waited(call: Callable[[], object]) -> Callable[[], object]:
        return lambda: (call(), torch.cuda.synchronize())

    return {"texels": len(points), **{name: _best(waited(call)) for name, call in work.items()}}


def _best(call: Callable[[], object]) -> float:
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return round(min(seconds) * 1e3, 1)


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)


def _degrees(one: Array, other: Array) -> Array:
    return np.degrees(np.arccos(np.clip((one * other).sum(axis=1), -1, 1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--cores", type=int, help="use only so many")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--views", type=int, default=0, help="pictures to bake colours from")
    parser.add_argument("--flawed", action="store_true", help="with crumbs, holes and a shell")
    parser.add_argument("--parts", action="store_true", help="the steps that a GPU takes over")
    parser.add_argument("--sizes", action="store_true", help="every format of the file too")
    parser.add_argument("--out", type=Path, help="keep the GLB here")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    mesh = million_faces(arguments.data, flawed=arguments.flawed)
    folder = arguments.out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(mesh.faces)} faces, {len(os.sched_getaffinity(0))} cores, {arguments.device}")
    for _ in range(arguments.runs):
        result, facts = run(mesh, arguments.device, folder, pictures(arguments.views))
        print(json.dumps(facts))
    if not arguments.flawed and not arguments.views:
        print(json.dumps({k: round(v, 5) for k, v in quality(mesh, result).items()}))
    if arguments.parts:
        print(json.dumps(parts(mesh, result, arguments.device)))
    for row in sizes(result) if arguments.sizes else []:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
