"""Layers on rows: against torch's own layers on each batch item, in fp64."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from models.nn.sparse_layers import SparseGroupNorm32, SparseLinear
from tests.models.nn.voxels import Grid, close, grids, random_grid


@settings(deadline=None, max_examples=40)
@given(grid=grids(), groups=st.integers(1, 3), affine=st.booleans(), mean=st.sampled_from((0, 30)))
@torch.no_grad()
def test_group_norm(grid: Grid, groups: int, affine: bool, mean: int) -> None:
    x = grid.tensor.replace(grid.tensor.feats.repeat(1, 2 * groups) + mean)
    module = SparseGroupNorm32(groups, x.feats.shape[1], affine=affine)
    if affine:
        module.weight.copy_(grid.normal(x.feats.shape[1]))
        module.bias.copy_(grid.normal(x.feats.shape[1]))
    out = module(x.to(torch.float32))
    weight, bias = (None if p is None else p.double() for p in (module.weight, module.bias))
    for item in x.layout:
        if item.stop - item.start > 1:  # one voxel of few channels: a variance of rounding errors
            rows = x.feats[item].T[None]
            expected = F.group_norm(rows, groups, weight, bias, module.eps)[0].T
            # Values lie up to 30 deviations from 0, so fp32 loses 5 bits of 24; deviations of a
            # few voxels may be a tenth of 1.
            close(out.feats[item].double(), expected, 2e-3 if mean else 1e-4)


@torch.no_grad()
def test_group_norm_of_half_computes_in_fp32() -> None:
    x = random_grid(0, channels=4).tensor
    large = x.replace(x.feats * 300 + 1000).to(torch.float16)  # squares are beyond fp16
    module = SparseGroupNorm32(2, 4)
    out = module(large)
    assert out.dtype == torch.float16 and module.weight.dtype == torch.float32
    expected = module(large.to(torch.float32))
    close(out.feats.float(), expected.feats, 4 * torch.finfo(torch.float16).eps)


@torch.no_grad()
def test_linear_keeps_the_sites() -> None:
    x = random_grid(0, channels=4).tensor.to(torch.float32)
    module = SparseLinear(4, 6)
    assert set(module.state_dict()) == {"weight", "bias"}
    out = module(x)
    assert out.sites is x.sites
    assert torch.equal(out.feats, F.linear(x.feats, module.weight, module.bias))
