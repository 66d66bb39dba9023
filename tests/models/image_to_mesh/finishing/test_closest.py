"""The search for nearest points: compiled and by Triton, against every point and every triangle."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from models.image_to_mesh.finishing.closest import build_surface
from models.image_to_mesh.finishing.normals import vertex_normals, vertex_normals_in_loops
from tests.models.interpreted import interpreted


def distances(vertices, faces, points, normals, least):  # -> (P,) float64
    """Least distance from each point to the triangles whose normal is not turned away from its own.

    A triangle's nearest point lies within it, or on one of its edges: all four are computed.
    """
    a, b, c = (vertices[faces[:, k]].astype(np.float64)[None] for k in range(3))
    p = points.astype(np.float64)[:, None]
    n = np.cross(b - a, c - a)
    some = np.linalg.norm(n, axis=2) > 0  # a triangle without area faces nowhere
    n /= np.maximum(np.linalg.norm(n, axis=2, keepdims=True), 1e-300)
    height = ((p - a) * n).sum(2)
    foot = p - height[..., None] * n
    inside = np.ones(height.shape, bool)
    best = np.full(height.shape, np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        inside &= (np.cross(edge, foot - start) * n).sum(2) >= 0
        share = ((p - start) * edge).sum(2) / np.maximum((edge**2).sum(2), 1e-300)
        near = start + np.clip(share, 0, 1)[..., None] * edge
        best = np.minimum(best, np.linalg.norm(p - near, axis=2))
    best = np.where(some, np.where(inside, np.abs(height), best), np.inf)
    faced = (n * normals[:, None]).sum(2) >= 0
    facing = np.where(faced, best, np.inf).min(1)
    return np.where(facing <= least, facing, best.min(1))


def rough_ball(rng: np.random.Generator, subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    """An uneven, flattened ball, with a large face and one without area beside its small ones."""
    ball = trimesh.creation.icosphere(subdivisions)
    vertices = ball.vertices * (1, 0.6, 0.3) + rng.normal(size=ball.vertices.shape) * 0.01
    vertices = np.concatenate((vertices, rng.normal(size=(3, 3))))
    count = len(vertices)
    extra = [[count - 3, count - 2, count - 1], [0, 0, 1]]
    return vertices.astype(np.float32), np.concatenate((ball.faces, extra)).astype(np.int32)


def questions(rng: np.random.Generator, vertices, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points near the surface and a few far off, and directions of any kind."""
    points = vertices[rng.integers(0, len(vertices), count)] + rng.normal(size=(count, 3)) * 0.02
    points[: count // 10] = rng.normal(size=(count // 10, 3)) * 3
    return points.astype(np.float32), rng.normal(size=(count, 3)).astype(np.float32)


def test_loops_find_the_nearest_facing_point(rng: np.random.Generator) -> None:
    vertices, faces = rough_ball(rng, 3)
    points, normals = questions(rng, vertices, 500)
    surface = build_surface(vertices, faces)
    found = surface.nearest(points, normals)
    plain = distances(vertices, faces, points, normals, surface.reach)
    # Equal but where a triangle's normal is square to the point's own to within float32.
    assert (np.abs(found.distance - plain) > 1e-5).mean() < 0.005
    there = found.interpolate(vertices, faces)
    assert np.abs(np.linalg.norm(there - points, axis=1) - found.distance).max() < 1e-5
    assert found.weights.min() > -1e-6
    assert np.abs(found.weights.sum(1) - 1).max() < 1e-6


def test_a_thin_sheet_is_seen_from_its_own_side(rng: np.random.Generator) -> None:
    """Two sheets a hair apart, back to back: each point finds the one that faces it."""
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    vertices = np.concatenate((square, square - (0, 0, 1e-3))).astype(np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 6, 5], [4, 7, 6]], np.int32)
    points = np.concatenate((rng.uniform(0.1, 0.9, (50, 2)), rng.uniform(-2e-3, 1e-3, (50, 1))), 1)
    surface = build_surface(vertices, faces)
    for side, mine in ((1, {0, 1}), (-1, {2, 3})):
        normals = np.tile(np.array([0, 0, side], np.float32), (50, 1))
        assert set(surface.nearest(points.astype(np.float32), normals).face) <= mine


def test_normals_in_loops_equal_the_plain_ones(rng: np.random.Generator) -> None:
    vertices, faces = rough_ball(rng, 3)
    vertices = np.concatenate((vertices, np.zeros((1, 3), np.float32)))  # one that no face uses
    plain = vertex_normals(vertices, faces)
    assert np.abs(vertex_normals_in_loops(vertices, faces) - plain).max() < 1e-6


@pytest.mark.parametrize("seed", [1])
def test_triton_finds_what_the_loops_find(seed: int) -> None:
    """Interpreted in NumPy by a process of its own; see also tests/gpu/test_finishing_gpu.py."""
    report = interpreted("tests.models.image_to_mesh.finishing.interpret_closest", seed)
    assert report["distance"] < 1e-6  # float32 of numbers up to 1
    assert report["place"] < 1e-5
