"""Sparse tensors: what is refused, what is shared, where rows lie."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nn.sites import LIMIT, Sites, key_offset, pack, unpack
from models.nn.sparse_tensor import SparseTensor
from tests.models.nn.voxels import Grid, grids, random_grid


@settings(deadline=None, max_examples=40)
@given(grid=grids())
def test_rows_of_each_item(grid: Grid) -> None:
    x = grid.tensor
    assert len(x.layout) == x.batch_size and sum(x.counts) == len(x.feats)
    for item, rows in enumerate(x.layout):
        assert torch.equal(
            (x.coords[:, 0] == item).nonzero().flatten(), torch.arange(len(x.feats))[rows]
        )
    again = SparseTensor.cat(x.items())
    assert torch.equal(again.coords, x.coords) and torch.equal(again.feats, x.feats)
    assert again.batch_size == x.batch_size
    assert SparseTensor.cat([x, x]).counts == 2 * x.counts


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.tuples(*[st.integers(0, LIMIT - 1)] * 4), min_size=2, max_size=20),
    step=st.tuples(*[st.integers(-(1 << 14), 1 << 14)] * 3),
)
def test_keys_are_ordered_and_move_with_their_voxels(
    rows: list[tuple[int, int, int, int]], step: tuple[int, int, int]
) -> None:
    coords = torch.tensor(sorted(rows)).int()
    keys = pack(coords)
    assert torch.equal(unpack(keys), coords)
    assert (keys[1:] >= keys[:-1]).all()
    moved = coords + torch.tensor([0, *step]).int()
    assert torch.equal(keys + key_offset(step), pack(moved))
    assert torch.equal(unpack(pack(moved)), moved)  # no field has run into the next one


@settings(deadline=None, max_examples=40)
@given(grid=grids())
def test_find(grid: Grid) -> None:
    sites = grid.tensor.sites
    rows = sites.find(pack(sites.coords))
    assert torch.equal(rows, torch.arange(len(sites)))
    assert (sites.find(pack(sites.coords) + key_offset((0, 0, 9))) == -1).all()


def test_features_change_and_sites_stay() -> None:
    x = random_grid(0).tensor
    y = x.replace(x.feats[:, :1]).to(torch.float16)
    assert y.sites is x.sites and y.feats.shape[1] == 1
    assert x.sites.cached(("a",), lambda: [1]) is y.sites.cached(("a",), lambda: [2])
    assert torch.equal((x + x).feats, 2 * x.feats)


def test_dense() -> None:
    grid = random_grid(1, shuffled=True)
    dense = grid.tensor.dense(grid.extent)
    assert torch.equal(grid.at(dense, grid.tensor.coords), grid.tensor.feats)
    assert (dense != 0).any(1).sum() == len(grid.tensor.feats)


def test_sums_of_other_voxels_are_refused() -> None:
    x = random_grid(0).tensor
    same = SparseTensor(x.feats, x.coords.clone(), 2)
    assert torch.equal((x + same).feats, 2 * x.feats)
    with pytest.raises(ValueError, match="not lie on the same voxels"):
        x + SparseTensor(x.feats, x.coords.flip(0) * 0, 2)


FEATS, COORDS = torch.zeros(2, 3), torch.tensor([[0, 1, 2, 3], [1, 0, 0, 0]]).int()


@pytest.mark.parametrize(
    ("feats", "coords", "items", "words"),
    [
        pytest.param(FEATS, COORDS.long(), None, "torch.int64", id="int64"),
        pytest.param(FEATS, COORDS[:, 1:], None, r"\[2, 3\]", id="no batch column"),
        pytest.param(FEATS[:1], COORDS, None, r"\[2, C\], not \[1, 3\]", id="rows differ"),
        pytest.param(FEATS[0], COORDS, None, r"\[2, C\], not \[3\]", id="one axis"),
        pytest.param(FEATS, -COORDS, None, "run from -3 to 0", id="negative"),
        pytest.param(FEATS, COORDS * LIMIT, None, "0 to 32767 are allowed", id="too far"),
        pytest.param(FEATS, COORDS.flip(0), None, "ascending order", id="items descend"),
        pytest.param(FEATS, COORDS, 1, "batch item 1, but batch_size is 1", id="batch too small"),
    ],
)
def test_refused(feats: torch.Tensor, coords: torch.Tensor, items: int | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SparseTensor(feats, coords, items)


def test_batch_size_is_told_or_counted() -> None:
    assert SparseTensor(FEATS, COORDS).batch_size == 2
    assert SparseTensor(FEATS, COORDS, 5).counts == [1, 1, 0, 0, 0]
    empty = SparseTensor(FEATS[:0], COORDS[:0], 3)
    assert empty.layout == [slice(0, 0)] * 3
    with pytest.raises(ValueError, match="Scales differ: 2 and 1"):
        SparseTensor.cat([empty, SparseTensor.on(FEATS[:0], Sites(COORDS[:0], 1, 2))])
