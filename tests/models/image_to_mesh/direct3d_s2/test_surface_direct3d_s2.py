"""Blocks, what lies beside a surface, and folded convolutions against the same on dense grids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.image_to_mesh.direct3d_s2 import near_surface
from models.image_to_mesh.direct3d_s2.blocks import EDGE, Blocks, from_children, patch_starts
from models.image_to_mesh.direct3d_s2.near_surface import (
    near_surface_of_blocks,
    near_surface_of_grid,
)
from models.image_to_mesh.direct3d_s2.subdivided_conv import subdivided_conv
from models.image_to_mesh.direct3d_s2.surface import cells_of, mesh_of
from models.nn.resample import subdivide
from models.nn.sparse_conv.functional import submanifold_conv
from models.nn.sparse_tensor import SparseTensor
from tests.models.image_to_mesh.direct3d_s2.tiny import egg


def some_cells(rng: np.random.Generator, side: int, share: float) -> Tensor:
    cells = torch.from_numpy(rng.random((side, side, side)) < share).nonzero().int()
    return cells[torch.from_numpy(rng.permutation(len(cells)))]


def noise(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def test_folded_convolution_is_the_one_on_children(rng: np.random.Generator) -> None:
    coords = F.pad(some_cells(rng, 5, 0.4), (1, 0))
    x = SparseTensor(noise(rng, len(coords), 6), coords)
    weight, bias = noise(rng, 4, 3, 3, 3, 6), noise(rng, 4)
    expected = submanifold_conv(subdivide(x), weight, bias)
    found = subdivided_conv(x, weight, bias)
    assert torch.equal(found.coords, expected.coords)
    # fp32 sums of 162 products in another order
    assert (found.feats - expected.feats).abs().max() < 1e-5 * expected.feats.abs().max() * 10


def test_children_of_children_lie_where_their_coordinates_say(rng: np.random.Generator) -> None:
    cells = some_cells(rng, 3, 0.5)
    x = SparseTensor(noise(rng, len(cells), 2), F.pad(cells, (1, 0)))
    deepest = subdivide(subdivide(subdivide(x)))
    values = noise(rng, len(deepest.coords), 2)
    blocks = from_children(cells, values, 3 * EDGE)
    dense = torch.zeros(2, *[3 * EDGE] * 3)
    _, a, b, c = deepest.coords.long().unbind(1)
    dense[:, a, b, c] = values.T
    a, b, c = blocks.voxels().long().unbind(1)
    assert torch.equal(dense[:, a, b, c].T, blocks.values.movedim(1, -1).flatten(0, 3))
    patch = blocks.patch((1, 0, 1), 2, torch.zeros(2))
    assert torch.equal(patch, dense[:, 8:24, :16, 8:24])


def test_a_patch_without_a_block_is_none() -> None:
    blocks = Blocks(torch.tensor([[0, 0, 3]]).int(), torch.ones(1, 1, 8, 8, 8), 32)
    assert blocks.patch((0, 0, 0), 2, torch.zeros(1)) is None
    assert blocks.patch((0, 0, 2), 2, torch.full((1,), 7.0)).mean() == 7 - 6 / 8


def test_patches_reach_the_end() -> None:
    starts = patch_starts(64, 24)  # 512 voxels, patches of 192, in blocks
    assert len(starts) == 27 and starts[1] == (0, 0, 20) and starts[-1] == (40, 40, 40)


def crossed(grid: Tensor, level: float) -> Tensor:
    """bool: corners of cubes with corners on both sides, cube by cube."""
    wanted = torch.zeros_like(grid, dtype=torch.bool)
    inside = (grid < level).unfold(0, 2, 1).unfold(1, 2, 1).unfold(2, 2, 1)
    for x, y, z in (inside.any(-1).any(-1).any(-1) & ~inside.all(-1).all(-1).all(-1)).nonzero():
        wanted[x : x + 2, y : y + 2, z : z + 2] = True
    return wanted


def as_grid(field: near_surface.Field, like: Tensor) -> Tensor:
    grid = torch.full_like(like, float("nan"))
    x, y, z = field.coords.long().unbind(1)
    grid[x, y, z] = field.values
    return grid


def test_what_lies_beside_a_surface_in_a_grid(rng: np.random.Generator) -> None:
    grid = noise(rng, 9, 9, 9) + torch.linspace(-3, 3, 9)[:, None, None]
    found = as_grid(near_surface_of_grid(grid, 0.2), grid)
    expected = torch.where(crossed(grid, 0.2), grid, float("nan"))
    assert torch.equal(found.nan_to_num(9), expected.nan_to_num(9))


@pytest.mark.parametrize("signs", [True, False])
def test_what_lies_beside_a_surface_in_blocks(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, signs: bool
) -> None:
    """The same as in the dense grid, wherever a cube has a voxel of a block."""
    monkeypatch.setattr(near_surface, "AT_ONCE", 5)
    side, cells = 4 * EDGE, some_cells(rng, 4, 0.3)
    blocks = Blocks(cells, noise(rng, len(cells), 1, EDGE, EDGE, EDGE), side)
    elsewhere = noise(rng, 16, 16, 16).sign() if signs else torch.ones(1, 1, 1)
    dense = elsewhere.repeat_interleave(side // len(elsewhere), 0)
    dense = dense.repeat_interleave(side // len(elsewhere), 1)
    dense = dense.repeat_interleave(side // len(elsewhere), 2)
    known = torch.zeros_like(dense, dtype=torch.bool)
    x, y, z = blocks.voxels().long().unbind(1)
    dense[x, y, z], known[x, y, z] = blocks.values.flatten(), True

    field = near_surface_of_blocks(blocks, 0.2, elsewhere)
    assert len(torch.unique(field.coords, dim=0)) == len(field.coords)
    found = as_grid(field, dense)
    given = ~found.isnan()
    assert torch.equal(found[given], dense[given])
    # Cubes that touch a block: every corner is given where the surface passes, none elsewhere.
    touching = F.max_pool3d(known[None].float(), 2, 1)[0] > 0
    inside = (dense < 0.2).unfold(0, 2, 1).unfold(1, 2, 1).unfold(2, 2, 1).flatten(3)
    passes = touching & inside.any(-1) & ~inside.all(-1)
    expected = torch.zeros_like(known)
    for x, y, z in passes.nonzero().tolist():
        expected[x : x + 2, y : y + 2, z : z + 2] = True
    assert torch.equal(given, expected)


def test_cells_hold_every_voxel_near_the_mesh() -> None:
    """Of an egg that fills less than its grid: brought to 0.95 of it first."""
    ticks = torch.arange(32)
    places = torch.stack(torch.meshgrid(ticks, ticks, ticks, indexing="ij"), dim=-1)
    grid = egg(places, 32) + 0.06
    mesh = mesh_of(near_surface_of_grid(grid, 0.0), 0.0, 32)
    assert mesh.vertices.abs().max() < 0.8
    cells = cells_of(mesh, 64)
    low, high = mesh.vertices.amin(0), mesh.vertices.amax(0)
    points = (mesh.vertices - (low + high) / 2) / (high - low).amax() * 0.95 + 0.5
    holding = torch.unique((points * 63 / EDGE).long(), dim=0)  # cells with a vertex in them
    found = {tuple(row) for row in cells[:, 1:].tolist()}
    assert {tuple(row) for row in holding.tolist()} <= found
    centres = (torch.tensor(sorted(found)) * EDGE + 3.5) / 63
    nearest = torch.cdist(centres, points).amin(1)
    # Half a cell's diagonal, the band of four voxels, and what is between vertices.
    assert nearest.max() < (3.5 * 3**0.5 + 4 + 1.5) / 63
