"""Finishing on a CUDA device against the loops of the CPU, on fresh random surfaces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from models.image_to_mesh.finishing import closest_device, rasterize_device
from models.image_to_mesh.finishing.bake_surface import find_detail
from models.image_to_mesh.finishing.closest import Nearest, build_surface
from models.image_to_mesh.finishing.coloured import ColouredMesh
from models.image_to_mesh.finishing.normals import vertex_normals
from models.image_to_mesh.finishing.texels import cover
from models.image_to_mesh.finishing.uv import unwrap_charts

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda() -> str:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return "cuda"


def rough(rng: np.random.Generator, subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    ball = trimesh.creation.icosphere(subdivisions)
    vertices = ball.vertices * (1, 0.6, 0.3) + rng.normal(size=ball.vertices.shape) * 0.004
    return vertices.astype(np.float32), ball.faces.astype(np.int32)


def there(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).cuda()


def test_texels_are_the_same(rng: np.random.Generator) -> None:
    uv = rng.random((3000, 1, 2)) + rng.normal(size=(3000, 3, 2)) * rng.uniform(0, 0.03)
    uv = np.clip(uv, 0, 1).reshape(-1, 2).astype(np.float32)
    faces = np.arange(len(uv), dtype=np.int32).reshape(-1, 3)
    texels = cover(uv, faces, 1024)
    index, face, weights = rasterize_device.cover(there(uv), there(faces).long(), 1024)
    # Fused products round otherwise: a centre on an edge may go either way.
    same = np.intersect1d(index.cpu().numpy(), texels.index, return_indices=True)
    assert len(same[0]) > 0.9999 * max(len(index), len(texels.index))
    equal = face.cpu().numpy()[same[1]] == texels.face[same[2]]
    assert equal.mean() > 0.9999
    off = np.abs(weights.cpu().numpy()[same[1]] - texels.weights[same[2]])[equal]
    assert off.max() < 1e-4


def test_nearest_points_are_the_same(rng: np.random.Generator) -> None:
    vertices, faces = rough(rng, 5)
    points = vertices[rng.integers(0, len(vertices), 20_000)] + rng.normal(size=(20_000, 3)) * 0.01
    points[:500] = rng.normal(size=(500, 3)) * 2
    points, normals = points.astype(np.float32), rng.normal(size=(20_000, 3)).astype(np.float32)
    loops = build_surface(vertices, faces).nearest(points, normals)
    parts = closest_device.nearest(
        there(vertices), there(faces).long(), there(points), there(normals)
    )
    kernel = Nearest(*(part.cpu().numpy() for part in parts))
    # A triangle square to the point's own direction to within float32 may count or not.
    off = np.abs(loops.distance - kernel.distance) > 2e-6
    assert off.mean() < 1e-3
    places = [found.interpolate(vertices, faces)[~off] for found in (loops, kernel)]
    gap = np.linalg.norm(places[0] - places[1], axis=1)
    assert (gap > 1e-3).mean() < 1e-3  # as near, but elsewhere: on both sides of a fold
    assert np.median(gap) < 1e-6


def test_baked_colours_are_the_same(rng: np.random.Generator) -> None:
    vertices, faces = rough(rng, 6)
    detailed = ColouredMesh(vertices, faces, rng.random(vertices.shape).astype(np.float32))
    ball = trimesh.creation.icosphere(3)
    low = (ball.vertices * (1, 0.6, 0.3)).astype(np.float32)
    low_faces = ball.faces.astype(np.int32)
    normals = vertex_normals(low, low_faces).astype(np.float32)
    charts = unwrap_charts(low, low_faces, 512)
    pictures = []
    for device in ("cpu", "cuda"):
        painted = find_detail(detailed, low, normals, charts, 512, device)
        colours = painted.sample(detailed.colours)
        pictures.append(painted.texels.picture((colours * 255 + 0.5).astype(np.uint8)).astype(int))
    off = np.abs(pictures[0] - pictures[1]).max(axis=2)
    assert (off > 1).mean() < 1e-3
