"""Spatial sparse attention on a GPU against fp64: every branch, both releases, batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.nn.attention import Window, partition
from models.nn.backends import use_backends
from models.nn.precision import LAYERS
from models.nn.sparse_tensor import SparseTensor
from models.nn.spatial_sparse_attention import (
    SpatialSparseAttention,
    blocks_of,
    functional,
    in_block_order,
    reference,
)
from models.nn.spatial_sparse_attention import triton_attention as fast

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),  # of the reference
]

HEADS, GROUPS, WIDTH = 32, 2, 32
WITHIN = {torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Absolute, of values up to 4: weights and results are rounded, to 11 bits or to 8."""
CLOSE = 1e-6
"""Scores nearer than this to the last one chosen may choose either way."""

CASES = {  # compression block, topk
    "release 1.1": (8, 8),
    "release 1.0 at 64": (4, 32),
    "release 1.0 at 128": (4, 8),
    "fewer blocks than wanted": (8, 100),
}


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with torch.no_grad():
        yield


def shells(*numbers: tuple[int, float]) -> Tensor:
    """int32 [N, 4]: a sphere's shell for each (grid, radius)."""
    coords = []
    for item, (grid, radius) in enumerate(numbers):
        axis = torch.arange(grid, device="cuda") - (grid - 1) / 2
        apart = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt() - radius
        coords.append(F.pad((apart.abs() < 1).nonzero().int(), (1, 0), value=item))
    return torch.cat(coords)


class Numbers:
    """Random queries, keys and values on the voxels of two shells, one of few blocks."""

    def __init__(self, rng: np.random.Generator, compression: int, topk: int, dtype: torch.dtype):
        coords = shells((64, 24.0), (64, 7.0))
        x = SparseTensor(torch.zeros(len(coords), 1, device="cuda"), coords)
        self.x, _ = in_block_order(x, 8)
        self.blocks = blocks_of(self.x.sites, compression, 8)
        self.windows = partition(self.x.sites, Window(8, 4))
        self.topk = topk
        n, m = self.blocks.rows.total, self.blocks.compressed.total

        def normal(rows: int, *shape: int) -> Tensor:
            return torch.from_numpy(rng.standard_normal((rows, *shape))).to("cuda", dtype)

        self.q = normal(n, HEADS, WIDTH)
        self.k, self.v = normal(n, GROUPS, WIDTH), normal(n, GROUPS, WIDTH)
        self.few_k, self.few_v = normal(m, GROUPS, WIDTH), normal(m, GROUPS, WIDTH)
        self.gates = normal(n, 3).sigmoid()

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        return self.q, self.k, self.v, self.few_k, self.few_v, self.gates

    def told_apart(self) -> Tensor:
        """bool [N]: whether the last block chosen leads the next by more than rounding."""
        sure = []
        few = self.few_k.double()
        for rows, columns, among in zip(
            self.blocks.rows.slices(),
            self.blocks.compressed.slices(),
            self.blocks.selectable.slices(),
            strict=True,
        ):
            _, scores = reference.attend_to_blocks(
                self.q[rows].double(), few[columns], few[columns]
            )
            if self.blocks.children is not None:
                children = self.blocks.children[among].long()
                held = scores[..., (children - columns.start).clamp(min=0)]
                scores = torch.where(children >= 0, held, 0).sum(3)
            best = F.pad(scores, (0, 1), value=-1).sort(dim=2, descending=True).values
            last = min(self.topk, scores.shape[2])
            sure.append((best[..., last - 1] - best[..., last] > CLOSE).all(0))
        return torch.cat(sure)


@pytest.mark.parametrize("dtype", WITHIN, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_branches(rng: np.random.Generator, case: str, dtype: torch.dtype) -> None:
    compression, topk = CASES[case]
    a = Numbers(rng, compression, topk, dtype)
    tiles = fast.tiles_for(a.q.device)
    q, k, v, few_k, few_v, gates = (t.double() for t in a.arguments)
    expected, among = reference.compressed_attention(q, few_k, few_v, a.blocks, topk)

    seen, sums = fast.compressed_attention(a.q, a.few_k, a.few_v, a.blocks, tiles)
    chosen = fast.chosen_blocks(a.q, a.few_k, sums, a.blocks, topk, tiles)
    sure = a.told_apart()
    assert sure.float().mean() > 0.95
    assert torch.equal(chosen[sure], among[sure])
    far = fast.selected_attention(a.q, a.k, a.v, chosen, a.blocks, tiles)
    near = fast.window_attention(a.q, a.k, a.v, a.windows, tiles)
    branches = {
        "compression": (seen, expected),
        "selection": (far, reference.selected_attention(q, k, v, chosen, a.blocks)),
        "window": (near, reference.window_attention(q, k, v, a.windows)),
    }
    for name, (out, exact) in branches.items():
        assert out.dtype == dtype
        assert (out.double() - exact).abs().max() < WITHIN[dtype], name
    whole = functional.spatial_sparse_attention(*a.arguments, a.blocks, a.windows, topk)
    parts = torch.stack([exact for _, exact in branches.values()], dim=1)
    total = (gates[..., None, None] * parts).sum(1)
    assert (whole.double() - total).abs().max() < WITHIN[dtype]


def test_the_same_on_every_run_and_in_parts(rng: np.random.Generator) -> None:
    a = Numbers(rng, 4, 8, torch.float16)
    tiles = fast.tiles_for(a.q.device)
    _, sums = fast.compressed_attention(a.q, a.few_k, a.few_v, a.blocks, tiles)
    at_once = fast.chosen_blocks(a.q, a.few_k, sums, a.blocks, 8, tiles)
    in_parts = fast.chosen_blocks(a.q, a.few_k, sums, a.blocks, 8, tiles, scratch_bytes=1)
    assert torch.equal(at_once, in_parts)
    first, second = (
        functional.spatial_sparse_attention(*a.arguments, a.blocks, a.windows, 8) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_of_equal_blocks_the_first_are_chosen() -> None:
    """All keys alike: every query takes the first blocks of its item."""
    x, _ = in_block_order(SparseTensor(*on(shells((64, 24.0), (64, 20.0)))), 8)
    blocks = blocks_of(x.sites, 8, 8)
    q = torch.ones(blocks.rows.total, HEADS, WIDTH, device="cuda").half()
    k = torch.ones(blocks.compressed.total, GROUPS, WIDTH, device="cuda").half()
    tiles = fast.tiles_for(q.device)
    _, sums = fast.compressed_attention(q, k, k, blocks, tiles)
    chosen = fast.chosen_blocks(q, k, sums, blocks, 8, tiles)
    first = torch.tensor([0, blocks.selectable.lengths[0]], device="cuda")[x.sites.item_index]
    expected = first[:, None, None] + torch.arange(8, device="cuda")
    assert torch.equal(chosen.long(), expected.expand(-1, GROUPS, -1))


def on(coords: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros(len(coords), 1, device=coords.device), coords


@pytest.mark.parametrize(("compression", "version"), [(8, "v1"), (4, "v2")])
def test_the_module_as_pytorch_computes_it(
    rng: np.random.Generator, compression: int, version: str
) -> None:
    """Rows in any order. Scores rounded apart choose apart: most rows agree, all are finite."""
    coords = shells((64, 24.0))
    coords = coords[torch.from_numpy(rng.permutation(len(coords))).cuda()]
    feats = torch.from_numpy(rng.standard_normal((len(coords), 256))).to("cuda", torch.float16)
    module = SpatialSparseAttention(256, 8, 2, 32, compression, 8, 8, Window(8, 4), version).cuda()
    module.intra_block_pe.normal_()
    for layer in module.modules():
        if isinstance(layer, LAYERS):
            layer.half()
    out = module(SparseTensor(feats, coords)).feats
    with use_backends(sparse="torch"):
        expected = module(SparseTensor(feats, coords)).feats
    assert out.dtype == torch.float16
    apart = (out - expected).abs().amax(1)
    assert apart.isfinite().all()
    assert (apart < 4e-3).float().mean() > 0.98
