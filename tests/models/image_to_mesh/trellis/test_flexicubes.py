"""Dual cases, FlexiCubes and the mesh of voxels, against what must hold and plain loops in fp64."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from models.image_to_mesh.trellis.dual_cases import CORNERS, EDGES, dual_cases
from models.image_to_mesh.trellis.flexicubes import Cubes, Grid, Surface, flexicubes
from models.image_to_mesh.trellis.voxel_mesh import CHANNELS, mesh_from_voxels


def torch_rng(rng: np.random.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng.integers(2**31)))


def grid_of(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices [V, 3], cubes' places [M, 3] and corners [M, 8] of a grid of side^3 cubes."""
    vertices = torch.tensor(list(product(range(side + 1), repeat=3)))
    places = torch.tensor(list(product(range(side), repeat=3)))
    weights = torch.tensor([(side + 1) ** 2, side + 1, 1])
    return vertices, places, ((places[:, None] + torch.tensor(CORNERS)) * weights).sum(dim=2)


def extract(sdf: Tensor, side: int, generator: torch.Generator | None = None) -> Surface:
    """In units of a cube; weights are zero, or random with a generator."""
    vertices, places, corners = grid_of(side)
    shape = (len(places), 21)
    raw = torch.zeros(shape) if generator is None else torch.randn(shape, generator=generator)
    beta, alpha, gamma = raw.to(sdf.dtype).split((12, 8, 1), dim=1)
    positions = vertices.to(sdf.dtype)
    return flexicubes(
        Grid(positions, sdf, positions), Cubes(places, corners, beta, alpha, gamma.squeeze(1))
    )


def walled(sdf: Tensor, side: int) -> Tensor:
    """The field, positive on the outermost vertices, so that the surface stays within."""
    vertices, _, _ = grid_of(side)
    border = ((vertices == 0) | (vertices == side)).any(dim=1)
    return torch.where(border, sdf.abs() + 0.1, sdf)


def sides_of_edges(faces: Tensor) -> Counter[tuple[int, int]]:
    """How often each directed edge occurs."""
    return Counter(
        (a, b) for face in faces.tolist() for a, b in zip(face, face[1:] + face[:1], strict=True)
    )


def test_every_crossed_edge_has_a_patch_of_three_or_more() -> None:
    tables = dual_cases()
    for case in range(256):
        crossed = [(case >> a & 1) != (case >> b & 1) for a, b in EDGES]
        patch = tables.patch[case].tolist()
        assert [p >= 0 for p in patch] == crossed
        sizes = Counter(p for p in patch if p >= 0)
        assert sorted(sizes) == list(range(int(tables.count[case])))
        assert all(size >= 3 for size in sizes.values())


def test_corners_apart_on_a_diagonal_are_kept_apart() -> None:
    assert dual_cases().count[0b00001001] == 2  # corners 0 and 3: opposite on the face z = 0
    assert dual_cases().count[0b11110110] == 1  # the complement joins them


def test_ambiguous_cases_are_the_36_of_dual_marching_cubes() -> None:
    assert int(dual_cases().ambiguous.sum()) == 36


@pytest.mark.parametrize("weights", ["neutral", "random"])
def test_noise_gives_a_closed_oriented_two_manifold(rng: np.random.Generator, weights: str) -> None:
    """Random signs reach all 256 cases; without the swap of ambiguous pairs edges have 4 sides."""
    side, generator = 12, torch_rng(rng)
    sdf = walled(torch.randn((side + 1) ** 3, generator=generator), side)
    surface = extract(sdf, side, generator if weights == "random" else None)
    directed = sides_of_edges(surface.faces)
    assert len(surface.faces) > 1000
    assert set(directed.values()) == {1}
    assert all((b, a) in directed for a, b in directed)


def test_ball_is_a_ball() -> None:
    side, radius = 16, 5.3
    vertices, _, _ = grid_of(side)
    centre = torch.tensor([8.1, 7.9, 8.0], dtype=torch.float64)
    surface = extract((vertices.double() - centre).norm(dim=1) - radius, side)
    apart = (surface.vertices - centre).norm(dim=1) - radius
    assert apart.abs().max() < 0.1  # of a cube: crossings lie on chords, vertices between them
    a, b, c = (surface.vertices[surface.faces[:, i]] - centre for i in range(3))
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    # Positive: faces look outward. 4 % less than the ball: means of crossings lie within it.
    assert volume.item() == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.05)
    torch.testing.assert_close(surface.attributes, surface.vertices)  # interpolated alike


def test_one_sign_is_no_surface() -> None:
    surface = extract(torch.ones(5**3), 4)
    assert surface.vertices.shape == (0, 3)
    assert surface.faces.shape == (0, 3)


# -- the mesh of voxels --------------------------------------------------------------------------


def voxels(rng: np.random.Generator, resolution: int, count: int) -> tuple[Tensor, Tensor]:
    places = torch.tensor(list(product(range(resolution), repeat=3)), dtype=torch.int32)
    rows = torch.randperm(len(places), generator=torch_rng(rng))[:count]
    return places[rows], torch.randn(count, CHANNELS, generator=torch_rng(rng))


def dense_reference(coords: Tensor, feats: Tensor, resolution: int) -> Surface:
    """The same on a whole grid of vertices and cubes, filled voxel by voxel, in fp64."""
    side = resolution + 1
    total = np.zeros((side, side, side, 10))
    count = np.zeros((side, side, side, 1))
    raw = torch.zeros(resolution, resolution, resolution, 21, dtype=torch.float64)
    for place, row in zip(coords.tolist(), feats.double().numpy(), strict=True):
        sdf, move, colour = row[:8], row[8:32].reshape(8, 3), row[53:].reshape(8, 6)
        for i, corner in enumerate(CORNERS):
            at = tuple(p + c for p, c in zip(place, corner, strict=True))
            total[at] += np.concatenate(([sdf[i]], move[i], colour[i]))
            count[at] += 1
        raw[tuple(place)] = torch.from_numpy(row[32:53])
    known = count[..., 0] > 0
    mean = np.divide(total, count, where=count > 0, out=np.zeros_like(total))
    field = np.where(known, mean[..., 0] - 1 / resolution, 1.0)
    vertices, places, corners = grid_of(resolution)
    values = torch.from_numpy(mean.reshape(-1, 10))
    positions = vertices / resolution - 0.5 + torch.tanh(values[:, 1:4]) / (2 * resolution)
    beta, alpha, gamma = raw.reshape(-1, 21).split((12, 8, 1), dim=1)
    return flexicubes(
        Grid(positions, torch.from_numpy(field.reshape(-1)), torch.sigmoid(values[:, 4:])),
        Cubes(places, corners, beta, alpha, gamma.squeeze(1)),
    )


@pytest.mark.parametrize("count", [1, 40, 216])
def test_sparse_cells_give_the_mesh_of_the_dense_grid(rng: np.random.Generator, count: int) -> None:
    """fp32 gathers against fp64 sums: vertices agree to some millionths of the unit box."""
    coords, feats = voxels(rng, 6, count)
    mesh, dense = mesh_from_voxels(coords, feats, 6), dense_reference(coords, feats, 6)
    assert len(mesh.vertices) == len(dense.vertices)
    apart, match = torch.cdist(mesh.vertices.double(), dense.vertices).min(dim=1)
    assert apart.max() < 1e-5
    assert len(match.unique()) == len(match)
    assert Counter(map(frozenset, match[mesh.faces].tolist())) == Counter(
        map(frozenset, dense.faces.tolist())
    )
    colours = torch.cat((mesh.colours, mesh.normals), dim=1).double()
    torch.testing.assert_close(colours, dense.attributes[match], atol=1e-4, rtol=0)


def test_rows_in_another_order_give_the_same_mesh(rng: np.random.Generator) -> None:
    coords, feats = voxels(rng, 8, 100)
    order = torch.randperm(100, generator=torch_rng(rng))
    first, other = (
        mesh_from_voxels(coords, feats, 8),
        mesh_from_voxels(coords[order], feats[order], 8),
    )
    assert len(first.faces) == len(other.faces)
    torch.testing.assert_close(
        first.vertices.sort(dim=0).values, other.vertices.sort(dim=0).values, atol=1e-6, rtol=0
    )
