"""Spatial sparse attention: blocks, branches query by query in fp64, the module, the kernels.

Kernels run interpreted, in a process of their own; what a GPU computes is in
tests/gpu/test_spatial_sparse_attention_gpu.py, what compiles for which card in test_ssa_compile.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from torch import Tensor

from models.nn.attention import Segments, Window, partition
from models.nn.sparse_tensor import SparseTensor
from models.nn.spatial_sparse_attention import (
    SpatialSparseAttention,
    block_order,
    blocks_of,
    functional,
    in_block_order,
    reference,
    spatial_sparse_attention,
)
from models.nn.spatial_sparse_attention.triton_tiles import tiles_of
from tests.models.interpreted import interpreted
from tests.models.nn.voxels import Grid, close, grids, random_grid

EXACT = 1e-12


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.no_grad():
        yield


# -- blocks --------------------------------------------------------------------------------------


@given(grid=grids())
def test_block_order(grid: Grid) -> None:
    b, *xyz = grid.tensor.coords.numpy().T
    within, block = [c % 4 for c in xyz], [c // 4 for c in xyz]
    expected = np.lexsort((*within[::-1], *block[::-1], b))
    assert block_order(grid.tensor.coords, 4).tolist() == expected.tolist()


@given(grid=grids())
def test_rows_are_moved_into_runs_and_found_again(grid: Grid) -> None:
    ordered, back = in_block_order(grid.tensor, 4)
    assert in_block_order(ordered, 4) == (ordered, None)
    if back is not None:
        assert torch.equal(ordered.feats[back], grid.tensor.feats)
        assert torch.equal(ordered.coords[back], grid.tensor.coords)
    assert ordered.batch_size == grid.tensor.batch_size


@given(grid=grids())
def test_blocks_are_runs_of_rows(grid: Grid) -> None:
    x, _ = in_block_order(grid.tensor, 4)
    blocks = blocks_of(x.sites, 2, 4)
    assert (blocks.rows.total, blocks.starts[-1]) == (len(x.coords), len(x.coords))
    large = torch.cat((x.coords[:, :1], x.coords[:, 1:] // 4), dim=1)
    small = torch.cat((x.coords[:, :1], x.coords[:, 1:] // 2), dim=1).unique(dim=0)
    assert blocks.compressed.total == len(small)
    number = torch.searchsorted(blocks.starts[1:].long(), torch.arange(len(large)), right=True)
    runs, counts = large.unique_consecutive(dim=0, return_counts=True)
    assert torch.equal(runs[number], large)
    assert blocks.largest == (counts.max() if len(counts) else 0)
    assert blocks.children is not None
    for run, children in zip(runs, blocks.children, strict=True):
        inside = (small[:, 1:] // 2 == run[1:]).all(1) & (small[:, 0] == run[0])
        assert inside.nonzero().flatten().tolist() == [c for c in children.tolist() if c >= 0]


# -- branches ------------------------------------------------------------------------------------


class Case:
    """Random numbers on random voxels, in fp64, and each query's answer one after the other."""

    def __init__(self, seed: int, compression: int, topk: int, heads: int, groups: int) -> None:
        grid = random_grid(seed, items=3, extent=(9, 6, 7), occupancy=0.2, empty=frozenset([1]))
        self.x, _ = in_block_order(grid.tensor, 4)
        self.blocks = blocks_of(self.x.sites, compression, 4)
        self.windows = partition(self.x.sites, Window(4, 2))
        self.compression, self.topk, self.share = compression, topk, heads // groups
        n, m = len(self.x.coords), self.blocks.compressed.total
        self.q, self.gates = grid.normal(n, heads, 5), grid.normal(n, 3)
        self.k, self.v, self.few_k, self.few_v = (
            grid.normal(rows, groups, 5) for rows in (n, n, m, m)
        )

    def all(self, compute=spatial_sparse_attention) -> Tensor:
        few = self.few_k, self.few_v
        places = self.gates, self.blocks, self.windows, self.topk
        return compute(self.q, self.k, self.v, *few, *places)

    def cells(self, edge: int, shift: int = 0) -> Tensor:
        coords = self.x.coords.clone()
        coords[:, 1:] = (coords[:, 1:] + shift) // edge
        return coords

    def one(self, i: int) -> Tensor:
        """[H, D]: the definition, for query i."""
        coords, few = self.cells(self.compression), self.cells(self.compression).unique(dim=0)
        same_item = few[:, 0] == coords[i, 0]
        large = self.cells(4)
        near = (self.cells(4, 2) == self.cells(4, 2)[i]).all(1)
        out = torch.zeros_like(self.q[i])
        for group in range(self.k.shape[1]):
            heads = slice(group * self.share, (group + 1) * self.share)
            q = self.q[i, heads]
            seen, weights = weighted(q, self.few_k[same_item, group], self.few_v[same_item, group])
            score: dict[tuple[int, ...], float] = {}
            for cell, weight in zip(few[same_item], weights.sum(0), strict=True):
                block = tuple((cell[1:] // (4 // self.compression)).tolist())
                score[block] = score.get(block, 0) + float(weight)
            best = sorted(score, key=lambda block: (-score[block], block))[: self.topk]
            chosen = torch.tensor([tuple(c[1:]) in best for c in large.tolist()])
            chosen &= large[:, 0] == large[i, 0]
            far, _ = weighted(q, self.k[chosen, group], self.v[chosen, group])
            beside, _ = weighted(q, self.k[near, group], self.v[near, group])
            out[heads] = torch.einsum("b,bhd->hd", self.gates[i], torch.stack((seen, far, beside)))
        return out


def weighted(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    weights = (q @ k.T / q.shape[1] ** 0.5).softmax(1)
    return weights @ v, weights


@pytest.mark.parametrize(
    ("compression", "topk", "heads", "groups"), [(4, 2, 4, 2), (2, 3, 3, 1), (4, 20, 2, 2)]
)
@pytest.mark.parametrize("held", [1, reference.HELD])
def test_every_query_by_the_definition(
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
    held: int,
    compression: int,
    topk: int,
    heads: int,
    groups: int,
) -> None:
    monkeypatch.setattr(reference, "HELD", held)
    case = Case(int(rng.integers(1 << 30)), compression, topk, heads, groups)
    out = case.all()
    for i in range(0, len(out), 4 if held > 1 else 16):
        close(out[i], case.one(i), EXACT)


def test_of_equal_blocks_the_first_are_chosen() -> None:
    scores = torch.tensor([[[1.0, 3, 3, 2, 3, 3]]])
    assert reference.choose(scores, None, 3).tolist() == [[[1, 2, 4]]]
    assert reference.choose(scores, None, 8).tolist() == [[[0, 1, 2, 3, 4, 5, -1, -1]]]
    children = torch.tensor([[0, 3], [1, -1], [2, 4], [5, -1]]).int()  # sums: 3, 3, 6, 3
    assert reference.choose(scores, children, 2).tolist() == [[[0, 2]]]


# -- the module ----------------------------------------------------------------------------------


def layer(rng: np.random.Generator, compression: int, version: str) -> SpatialSparseAttention:
    module = SpatialSparseAttention(24, 4, 2, 16, compression, 4, 3, Window(4, 2), version)
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 30)))
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return module


@pytest.mark.parametrize(("compression", "version"), [(4, "v1"), (2, "v2")])
def test_rows_may_lie_in_any_order_and_items_are_apart(
    rng: np.random.Generator, compression: int, version: str
) -> None:
    module = layer(rng, compression, version)
    grid = random_grid(int(rng.integers(1 << 30)), items=2, extent=(9, 6, 7), channels=24)
    x = grid.tensor.to(torch.float32)
    ordered, back = in_block_order(x, 4)
    assert back is not None
    out = module(x)
    assert out.sites is x.sites
    close(out.feats, module(ordered).feats[back], 1e-5)
    items = torch.cat([module(item).feats for item in x.items()])
    close(out.feats, items, 1e-5)


def test_keys_of_blocks(rng: np.random.Generator) -> None:
    """Version 2 by dense convolution; both means divide by one more than the voxels there are."""
    size, channels = 2, 64
    module = layer(rng, size, "v2").double()
    compress = type(module.compression_key)(channels, size).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in compress.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator).double() / 4)
    grid = random_grid(5, items=1, extent=(6, 4, 8), channels=channels)
    x = grid.tensor
    cells = torch.cat((x.coords[:, :1], x.coords[:, 1:] // size), dim=1)
    places, of, counts = cells.unique(dim=0, return_inverse=True, return_counts=True)

    def mean(feats: Tensor) -> Tensor:
        return torch.zeros(len(places), channels).double().index_add_(0, of, feats) / (
            counts[:, None] + 1
        )

    def norm(feats: Tensor, by) -> Tensor:
        by_group = F.group_norm(feats.float().T[None], 32, by.weight.float(), by.bias.float())
        return F.silu(by_group[0].T.double())

    def conv(feats: Tensor, by) -> Tensor:
        dense = SparseTensor(feats, places.int()).dense((3, 2, 4))
        kernel = by.conv.kernel.view(3, 3, 3, channels, channels).permute(4, 3, 2, 1, 0)
        out = F.conv3d(dense, kernel, by.conv.bias, padding=1)
        return out[0][:, *places[:, 1:].long().T].T

    act, out = compress.act_layers, compress.out_layers
    h = mean(norm(x.feats, act[0]))
    h = conv(norm(conv(h, out[0]), out[1]), out[3])
    found = compress(x)
    assert torch.equal(found.coords, places.int())
    close(found.feats, h + mean(x.feats), 1e-4)  # norms compute in fp32


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="no whole number of compression blocks of 3"):
        SpatialSparseAttention(8, 2, 2, 4, 3, 8, 1, Window(8), "v1")
    with pytest.raises(ValueError, match="3 heads of queries cannot share 2"):
        SpatialSparseAttention(8, 3, 2, 4, 8, 8, 1, Window(8), "v1")


# -- the kernels ---------------------------------------------------------------------------------


def test_kernels_are_for_half_precision_on_a_gpu() -> None:
    assert not functional.by_triton(torch.zeros(1, 32, 32).half(), 2)
    assert tiles_of(86) == tiles_of(120) != tiles_of(75)


def test_queries_are_dealt_to_tiles() -> None:
    pytest.importorskip("triton")
    from models.nn.spatial_sparse_attention.triton_attention import dealt

    table = dealt(Segments([5, 0, 4, 1]), Segments([2, 0, 3, 1]), 4, torch.device("cpu"))
    assert table.tolist() == [[0, 4, 0, 2], [4, 1, 0, 2], [5, 4, 2, 3], [9, 1, 5, 1]]


WHOLE = ("rows of other blocks", "equal scores")
ROUNDED = ("compression", "selection", "window", "sum")
CASES = ("as release 1.1", "as release 1.0", "blocks are few", "a few queries at a time")


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    pytest.importorskip("triton")
    return interpreted("tests.models.nn.interpret_ssa", 7)


@pytest.mark.parametrize("case", CASES)
def test_kernels_against_fp64(errors: dict[str, dict[str, float]], case: str) -> None:
    assert {name: errors[case].pop(name) for name in WHOLE} == dict.fromkeys(WHOLE, 0)
    assert set(errors[case]) == set(ROUNDED)
    assert max(errors[case].values()) < 2e-3  # weights and results are rounded to fp16 below 4


def test_every_interpreted_case_is_judged(errors: dict[str, dict[str, float]]) -> None:
    assert set(errors) == set(CASES)
