"""Marching cubes on sparse voxels: against scikit-image on dense fields, and closed on any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from models.image_to_mesh.finishing.edges import is_closed
from models.image_to_mesh.volumes.sparse_marching_cubes import Surface, sparse_marching_cubes


def smooth(side: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    field = rng.standard_normal((side,) * 3)
    field = ndimage.gaussian_filter(field, sigma) if sigma else field
    return (field / field.std()).astype(np.float32)


def every_voxel(field: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    coords = np.stack(np.meshgrid(*map(np.arange, field.shape), indexing="ij"), axis=-1)
    return torch.from_numpy(coords.reshape(-1, 3)), torch.from_numpy(field.reshape(-1))


def as_mesh(surface: Surface) -> trimesh.Trimesh:
    return trimesh.Trimesh(surface.vertices.numpy(), surface.faces.numpy(), process=False)


@pytest.mark.parametrize("sigma", [1.5, 3.0])
@pytest.mark.parametrize("closed", [True, False])
def test_against_scikit_image_on_dense_smooth_fields(
    rng: np.random.Generator, sigma: float, closed: bool
) -> None:
    """The same points on the grid's edges, and surfaces that enclose the same.

    scikit-image decides inside a cube too (Lewiner, 2003); topology there may differ, points not.
    Both keep off the ends of an edge: within 1e-3 voxels, ours; it merges what meets there.
    """
    field = smooth(40, sigma, rng)
    coords, values = every_voxel(field)
    level = 0.25
    surface = sparse_marching_cubes(coords, values, level, 40, outside=3.0 if closed else None)
    dense = np.pad(field, 1, constant_values=3.0) if closed else field
    vertices, faces, _, _ = marching_cubes(dense, level, gradient_direction="descent")
    theirs = trimesh.Trimesh(vertices - closed, faces[:, ::-1], process=False)
    ours = as_mesh(surface)
    distance, _ = cKDTree(ours.vertices).query(theirs.vertices)
    on_edges = (np.abs(theirs.vertices - np.round(theirs.vertices)) > 1e-6).sum(axis=1) <= 1
    assert on_edges.mean() > 0.99
    assert distance[on_edges].max() < 2e-3
    assert cKDTree(theirs.vertices[on_edges]).query(ours.vertices)[0][:-60].max() < 0.9
    assert len(ours.vertices) == pytest.approx(len(theirs.vertices), rel=2e-3)
    if closed:
        assert abs(ours.volume) == pytest.approx(abs(theirs.volume), rel=1e-3)
        assert ours.volume > 0
    assert ours.area == pytest.approx(theirs.area, rel=5e-3)


@pytest.mark.parametrize("sigma", [0.0, 0.7, 2.0])
def test_closed_on_any_field(rng: np.random.Generator, sigma: float) -> None:
    """White noise has every case and every choice on faces, in every pair of neighbours."""
    coords, values = every_voxel(smooth(32, sigma, rng))
    surface = sparse_marching_cubes(coords, values, 0.0, 32, outside=1.0)
    assert is_closed(surface.faces.numpy().astype(np.int32))
    mesh = as_mesh(surface)
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert (mesh.area_faces > 0).all()
    inside = float((values < 0).float().mean()) * 32**3
    assert mesh.volume == pytest.approx(inside, rel=0.06)  # outside is larger by a rim


def test_closed_where_values_are_whole_numbers(rng: np.random.Generator) -> None:
    """Values at the level and saddles exactly at it: every tie there is."""
    values = torch.from_numpy(rng.integers(-2, 3, 24**3).astype(np.float32))
    coords, _ = every_voxel(np.zeros((24,) * 3, np.float32))
    surface = sparse_marching_cubes(coords, values, 0.0, 24, outside=0.0)
    assert is_closed(surface.faces.numpy().astype(np.int32))
    assert (as_mesh(surface).area_faces > 0).all()


def test_half_of_the_voxels_missing_is_closed_with_a_value_outside(
    rng: np.random.Generator,
) -> None:
    coords, values = every_voxel(smooth(24, 1.0, rng))
    kept = torch.from_numpy(rng.random(len(coords)) < 0.5)
    dense = torch.where(kept, values, 2.0)
    sparse = sparse_marching_cubes(coords[kept], values[kept], 0.1, 24, outside=2.0)
    full = sparse_marching_cubes(coords, dense, 0.1, 24, outside=2.0)
    assert torch.equal(sparse.vertices, full.vertices)
    assert torch.equal(sparse.faces, full.faces)
    assert is_closed(sparse.faces.numpy().astype(np.int32))


def test_a_band_of_voxels_gives_the_surface_of_the_full_grid() -> None:
    """A sphere at 1024^3 from the voxels within two of it: nothing but the band is ever held."""
    side, radius, middle = 1024, 60.0, np.array([700.2, 300.7, 901.1])
    low = np.floor(middle - radius - 4).astype(int)
    box = np.stack(np.meshgrid(*[np.arange(132)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) + low
    distance = np.linalg.norm(box - middle, axis=1) - radius
    near = np.abs(distance) < 2.0
    coords = torch.from_numpy(box[near])
    values = torch.from_numpy(distance[near].astype(np.float32))
    mesh = as_mesh(sparse_marching_cubes(coords, values, 0.0, side))
    assert mesh.is_watertight and mesh.body_count == 1 and mesh.euler_number == 2
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=1e-3)
    assert np.abs(np.linalg.norm(mesh.vertices - middle, axis=1) - radius).max() < 0.01


def test_missing_voxels_leave_their_cubes_out() -> None:
    coords, values = every_voxel(np.fromfunction(lambda x, y, z: x - 2.5 + 0 * y, (6, 6, 6)))
    whole = sparse_marching_cubes(coords, values, 0.0, 6)
    assert len(whole.faces) == 2 * 25
    missing = (coords == torch.tensor([2, 3, 3])).all(dim=1)
    holed = sparse_marching_cubes(coords[~missing], values[~missing], 0.0, 6)
    assert len(holed.faces) == 2 * 21  # the four cubes around it
    assert torch.allclose(whole.vertices[:, 0], torch.tensor(2.5))


def test_order_of_voxels_does_not_matter(rng: np.random.Generator) -> None:
    coords, values = every_voxel(smooth(20, 1.0, rng))
    order = torch.from_numpy(rng.permutation(len(coords)))
    first = sparse_marching_cubes(coords, values, 0.0, 20)
    second = sparse_marching_cubes(coords[order].int(), values[order], 0.0, 20)
    assert torch.equal(first.vertices, second.vertices)
    assert torch.equal(first.faces, second.faces)


def test_work_in_parts_changes_nothing(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.image_to_mesh.volumes import sparse_marching_cubes as module

    coords, values = every_voxel(smooth(20, 0.5, rng))
    whole = sparse_marching_cubes(coords, values, 0.0, 20, outside=1.0)
    monkeypatch.setattr(module, "AT_ONCE", 800)
    parts = sparse_marching_cubes(coords, values, 0.0, 20, outside=1.0)
    assert torch.equal(whole.faces, parts.faces)
    assert torch.equal(whole.vertices, parts.vertices)


def test_half_precision_is_measured_in_single(rng: np.random.Generator) -> None:
    coords, values = every_voxel(smooth(20, 1.5, rng))
    half = sparse_marching_cubes(coords, values.half(), 0.2, 20, outside=1.0)
    single = sparse_marching_cubes(coords, values.half().float(), 0.2, 20, outside=1.0)
    assert half.vertices.dtype == torch.float32
    assert torch.equal(half.vertices, single.vertices)


@pytest.mark.parametrize("outside", [None, 1.0])
@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_no_surface(value: float, outside: float | None) -> None:
    nothing = sparse_marching_cubes(
        torch.zeros(0, 3).int(), torch.zeros(0), 0.0, 8, outside=outside
    )
    assert nothing.vertices.shape == nothing.faces.shape == (0, 3)
    one = sparse_marching_cubes(
        torch.tensor([[3, 3, 3]]), torch.tensor([value]), 0.0, 8, outside=outside
    )
    assert len(one.faces) == (8 if outside and value < 0 else 0)  # an octahedron


@pytest.mark.parametrize(
    ("coords", "options", "message"),
    [
        ([[0, 0, 0], [0, 0, 0]], {}, "twice"),
        ([[0, 0, 8], [0, 0, 0]], {}, r"\[0, 8\)"),
        ([[0, 0, -1], [0, 0, 0]], {}, r"\[0, 8\)"),
        ([[0, 0, 1], [0, 0, 0]], {"outside": -1.0}, "outside"),
        ([[0, 0, 1], [0, 0, 0]], {"outside": float("inf")}, "outside"),
        ([[0, 0, 1]], {}, r"\[N\]"),
    ],
)
def test_what_cannot_be_meant_is_refused(coords, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sparse_marching_cubes(torch.tensor(coords), torch.zeros(2), 0.0, 8, **options)
