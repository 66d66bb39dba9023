"""Mesh to voxels: against every voxel and every triangle in double precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import trimesh

from models import cores
from models.image_to_mesh.volumes import voxelise as module
from models.image_to_mesh.volumes import voxelise_compiled
from models.image_to_mesh.volumes.triangle_distance import triangles_of
from models.image_to_mesh.volumes.voxelise import voxelise

ROUNDING = 2e-4
"""Voxels: fp32 places up to some hundred, where a step is 3e-5."""


def plain_distance(point: np.ndarray, corners: np.ndarray) -> float:
    """One point, one triangle, fp64: onto the plane if inside, else the nearest of three sides."""
    a, b, c = corners
    normal = np.cross(b - a, c - a)
    sides = [(a, b), (b, c), (c, a)]
    best = np.inf
    if normal @ normal > 1e-20:
        if all(np.cross(q - p, point - p) @ normal >= 0 for p, q in sides):
            best = abs((point - a) @ normal) / np.linalg.norm(normal)
    for p, q in sides:
        d = q - p
        share = np.clip((point - p) @ d / max(d @ d, 1e-300), 0, 1)
        best = min(best, float(np.linalg.norm(point - p - share * d)))
    return best


def reference(vertices: np.ndarray, faces: np.ndarray, side: int) -> np.ndarray:
    """(side^3,) distances, by scanning all triangles for all voxels: vectorised over voxels."""
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid.astype(np.float64)
    best = np.full(len(grid), np.inf)
    for a, b, c in vertices[faces].astype(np.float64):
        normal = np.cross(b - a, c - a)
        inside = np.full(len(grid), normal @ normal > 1e-20)
        for p, q in ((a, b), (b, c), (c, a)):
            d = q - p
            share = np.clip((grid - p) @ d / max(d @ d, 1e-300), 0, 1)
            best = np.minimum(best, np.linalg.norm(grid - p - share[:, None] * d, axis=1))
            inside &= np.cross(np.broadcast_to(d, grid.shape), grid - p) @ normal >= 0
        plane = np.abs((grid - a) @ normal) / max(np.linalg.norm(normal), 1e-300)
        best = np.where(inside, np.minimum(best, plane), best)
    return best


@pytest.fixture(params=["filled", "descended"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the CPU does, and what a GPU does, on the CPU."""
    if request.param == "descended":
        monkeypatch.setattr(module, "_filled", module._descended)


def compare(vertices: np.ndarray, faces: np.ndarray, side: int, band: float) -> int:
    found = voxelise(torch.from_numpy(vertices), torch.from_numpy(faces), side, band)
    expected = reference(vertices, faces, side)
    rows = found.coords.numpy() @ (side * side, side, 1)
    assert (np.diff(rows) > 0).all()  # ascending, each once
    sure = np.flatnonzero(expected < band - ROUNDING)
    maybe = np.flatnonzero(expected < band + ROUNDING)
    assert np.isin(sure, rows).all()
    assert np.isin(rows, maybe).all()
    assert np.abs(found.distances.numpy() - expected[rows]).max(initial=0) < ROUNDING
    return len(rows)


def test_distance_to_one_triangle_of_every_kind(rng: np.random.Generator) -> None:
    """Random, needle, flat to a segment, and shrunk to a point."""
    corners = rng.normal(0, 3, (400, 3, 3)) + rng.normal(0, 40, (400, 1, 3))
    corners[100:150, 2] = corners[100:150, 0] + 1e-4 * rng.normal(size=(50, 3))
    corners[150:180, 2] = corners[150:180, 0] * 0.3 + corners[150:180, 1] * 0.7
    corners[180:200] = corners[180:200, :1]
    faces = np.arange(1200).reshape(-1, 3)
    points = corners.mean(axis=1) + rng.normal(0, 4, (400, 3))
    triangles = triangles_of(torch.from_numpy(corners.reshape(-1, 3)), torch.from_numpy(faces))
    measured = triangles.distance(torch.from_numpy(points), torch.arange(400))
    expected = [plain_distance(*pair) for pair in zip(points, corners, strict=True)]
    assert np.allclose(measured, expected, atol=1e-6)


@pytest.mark.parametrize("band", [0.4, 1.0, 4.0])
@pytest.mark.usefixtures("way")
def test_random_triangles_of_all_sizes(rng: np.random.Generator, band: float) -> None:
    """Loose triangles from far below a voxel to longer than the grid, beyond its ends too."""
    sizes = np.geomspace(0.02, 30, 60)[:, None, None]
    corners = rng.uniform(-3, 36, (60, 1, 3)) + rng.normal(size=(60, 3, 3)) * sizes
    vertices = corners.reshape(-1, 3).astype(np.float32)
    count = compare(vertices, np.arange(180).reshape(-1, 3), 33, band)
    assert count > 500


@pytest.mark.usefixtures("way")
def test_a_closed_mesh_at_sides_that_are_no_power_of_two(rng: np.random.Generator) -> None:
    mesh = trimesh.creation.icosphere(1, 12)
    mesh.apply_transform(trimesh.transformations.random_rotation_matrix(rng.random(3)))
    vertices = (mesh.vertices * (1.3, 1, 0.7) + 18).astype(np.float32)
    assert compare(vertices, np.asarray(mesh.faces), 37, 3.0) > 2000


def test_triangles_that_touch_no_voxel_of_the_grid() -> None:
    vertices = torch.tensor([[100.0, 0, 0], [101, 0, 0], [100, 1, 0]])
    found = voxelise(vertices, torch.tensor([[0, 1, 2]]), 16, 4.0)
    assert found.coords.shape == (0, 3) and found.distances.shape == (0,)
    assert len(voxelise(vertices, torch.zeros(0, 3).long(), 16, 4.0).coords) == 0


def test_work_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And finding them block by block, as the CPU does, gives the same voxels."""
    mesh = trimesh.creation.icosphere(2, 20)
    vertices = torch.from_numpy((mesh.vertices + 64).astype(np.float32))
    faces = torch.from_numpy(np.asarray(mesh.faces))
    filled = voxelise(vertices, faces, 128, 2.5)
    monkeypatch.setattr(module, "_filled", module._descended)
    whole = voxelise(vertices, faces, 128, 2.5)
    assert torch.equal(filled.coords, whole.coords)
    assert torch.allclose(filled.distances, whole.distances, atol=ROUNDING)
    monkeypatch.setattr(module, "AT_ONCE", 3000)
    parts = voxelise(vertices, faces, 128, 2.5)
    assert torch.equal(whole.coords, parts.coords)
    assert torch.equal(whole.distances, parts.distances)


class _Enough(Exception):
    pass


@pytest.mark.usefixtures("way")
def test_what_on_part_raises_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon: of 64 blocks few are filled, and of a descent in small parts few are measured."""
    monkeypatch.setattr(module, "AT_ONCE", 3000)
    monkeypatch.setattr(cores, "usable_cores", lambda: 1)
    done: list[str] = []

    def counted(name: str, work: Callable[..., object]) -> Callable[..., object]:
        return lambda *given: (done.append(name), work(*given))[1]

    monkeypatch.setattr(module, "_measure", counted("part", module._measure))
    fill = counted("block", voxelise_compiled.nearest_in_block)
    monkeypatch.setattr(voxelise_compiled, "nearest_in_block", fill)
    mesh = trimesh.creation.icosphere(3, 100)
    given = torch.from_numpy(mesh.vertices + 128), torch.from_numpy(np.asarray(mesh.faces))
    voxelise(*given, 256, 4.0)
    whole = len(done)
    done.clear()
    calls = iter(range(2))

    def twice() -> None:
        if next(calls) == 1:
            raise _Enough

    with pytest.raises(_Enough):
        voxelise(*given, 256, 4.0, twice)
    assert whole > 40
    assert len(done) < whole / 2


def test_a_sphere_at_the_resolution_of_a_network() -> None:
    """Far from the origin of a 1024^3 grid, against the sphere itself."""
    mesh = trimesh.creation.icosphere(5, 50)
    middle = np.array([900.3, 70.2, 511.5])
    vertices = torch.from_numpy((mesh.vertices + middle).astype(np.float32))
    found = voxelise(vertices, torch.from_numpy(np.asarray(mesh.faces)), 1024, 4.0)
    exact = np.abs(np.linalg.norm(found.coords.numpy() - middle, axis=1) - 50)
    # The facets lie up to 50 (1 - cos 1.2 deg) = 0.02 below the sphere.
    assert np.abs(found.distances.numpy() - exact).max() < 0.03
    shell = 4 / 3 * np.pi * (54**3 - 46**3)
    assert len(found.coords) == pytest.approx(shell, rel=0.01)


@pytest.mark.parametrize(
    ("vertices", "resolution", "band"),
    [([0.0, 0, 0], 0, 1.0), ([0.0, 0, 0], 8, 0.0), ([float("nan"), 0, 0], 8, 1.0)],
)
def test_what_cannot_be_meant_is_refused(vertices, resolution: int, band: float) -> None:
    with pytest.raises(ValueError):
        voxelise(torch.tensor([vertices]), torch.tensor([[0, 0, 0]]), resolution, band)
