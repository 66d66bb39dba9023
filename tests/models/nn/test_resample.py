"""Pooling, un-pooling and subdivision against plain loops and dense grids."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nn.resample import Mean, downsample, pooling, subdivide, upsample
from models.nn.sites import LIMIT
from models.nn.sparse_tensor import SparseTensor
from tests.models.nn.voxels import Grid, close, grids, random_grid


@settings(deadline=None, max_examples=40)
@given(grid=grids(), factor=st.integers(1, 4), mean=st.sampled_from(("trellis", "true")))
def test_means_of_cells(grid: Grid, factor: int, mean: Mean) -> None:
    x = grid.tensor.to(torch.float32)
    coarse = downsample(x, factor, mean)
    cells: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for (b, *xyz), feats in zip(x.coords.tolist(), x.feats, strict=True):
        cells.setdefault((b, *(c // factor for c in xyz)), []).append(feats)
    assert [tuple(row) for row in coarse.coords.tolist()] == sorted(cells)
    one_more = 1 if mean == "trellis" else 0
    for row, feats in zip(coarse.coords.tolist(), coarse.feats, strict=True):
        members = cells[tuple(row)]
        close(feats, torch.stack(members).sum(0) / (len(members) + one_more), 1e-6)
    assert (coarse.scale, coarse.batch_size) == (factor, x.batch_size)


@settings(deadline=None, max_examples=20)
@given(grid=grids(), factors=st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_returns_where_it_came_from(grid: Grid, factors: list[int]) -> None:
    x = grid.tensor
    coarse = x
    for factor in factors:
        coarse = downsample(coarse, factor, "true")
    fine = coarse
    for factor in reversed(factors):
        fine = upsample(fine, factor)
    assert fine.sites is x.sites and fine.finer == ()
    parents = {tuple(row): i for i, row in enumerate(coarse.coords.tolist())}
    whole = torch.tensor(factors).prod().item()
    for (b, *xyz), feats in zip(x.coords.tolist(), fine.feats, strict=True):
        assert torch.equal(feats, coarse.feats[parents[b, *(c // whole for c in xyz)]])


@settings(deadline=None, max_examples=20)
@given(grid=grids(corners=False), factor=st.integers(1, 3))
def test_children(grid: Grid, factor: int) -> None:
    fine = subdivide(grid.tensor, factor)
    dense = F.interpolate(grid.dense(), scale_factor=factor, mode="nearest")
    assert torch.equal(grid.at(dense, fine.coords), fine.feats)
    assert len({tuple(row) for row in fine.coords.tolist()}) == len(grid.tensor.feats) * factor**3


def test_order_of_children_is_z_fastest() -> None:
    fine = subdivide(random_grid(0, items=1).tensor)
    steps = fine.coords[:8, 1:] - fine.coords[0, 1:]
    assert steps.tolist() == [[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]


def test_children_beyond_the_last_voxel_are_refused() -> None:
    last = LIMIT // 2 - 1
    coords = torch.tensor([[0, 0, 0, last]]).int()
    assert subdivide(SparseTensor(torch.zeros(1, 1), coords)).coords[-1, 3] == LIMIT - 1
    with pytest.raises(ValueError, match="up to 16384 divided by 2 would pass 32767"):
        subdivide(SparseTensor(torch.zeros(1, 1), coords + coords.sign()))


def test_computed_once_and_shared() -> None:
    x = random_grid(0).tensor
    a, b = downsample(x, 2, "true"), downsample(x.replace(-x.feats), 2, "true")
    assert a.sites is b.sites
    assert torch.equal((a + b).feats, torch.zeros_like(a.feats))
    assert subdivide(x).sites is subdivide(x).sites and subdivide(x).scale == 0.5


def test_half_sums_in_fp32() -> None:
    x = random_grid(0, items=1, extent=(8, 8, 8), occupancy=1, channels=1).tensor
    ones = x.replace(torch.full_like(x.feats, 1001)).to(torch.float16)
    coarse = downsample(ones, 8, "true")  # the sum, 512512, is beyond fp16
    assert coarse.feats.tolist() == [[1001]]


def test_no_way_back() -> None:
    x = random_grid(0).tensor
    coarse = downsample(x, 2, "true")
    for stray, factor in ((x, 2), (coarse, 4), (subdivide(coarse), 2)):
        with pytest.raises(ValueError, match=f"not down-sampled by {factor}"):
            upsample(stray, factor)


def test_rows_of_a_cell_are_added_in_their_order() -> None:
    cells = pooling(random_grid(2).tensor.sites, 3)
    same = cells.parent[cells.order]
    assert (same[1:] >= same[:-1]).all()
    assert ((cells.order[1:] > cells.order[:-1]) | (same[1:] > same[:-1])).all()
