"""Direct3D-S2's own kernels on a GPU, against plain PyTorch in fp64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from models.image_to_mesh.direct3d_s2.adaptive import launch, smoothed_by_taps
from models.image_to_mesh.direct3d_s2.group_norm import GroupNormSiLU, plain
from models.nn.attention import Segments
from models.nn.fused import Norm, Update, residual_norm

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("items", [1, 3])
@torch.no_grad()
def test_norm_rounds_each_operation(
    cuda: str, rng: np.random.Generator, items: int, dtype: torch.dtype
) -> None:
    """As PyTorch's own operations do, bit for bit, on the rows that the same kernel normed."""
    seed = torch.Generator(cuda).manual_seed(int(rng.integers(2**31)))
    rows = Segments([517, 1, 300])
    x, h = torch.randn(2, rows.total, 1024, generator=seed, device=cuda).to(dtype)
    mod = torch.randn(items, 6 * 1024, generator=seed, device=cuda).to(dtype)
    mod[:, 3072:4096] = 0
    shift, scale, gate, nothing, *_ = mod.chunk(6, -1)
    norm = Norm(1e-6, scale=scale, shift=shift, stepwise=True)
    total, y = residual_norm(x, Update(h, gate), norm, rows)
    unmodulated = replace(norm, scale=nothing, shift=nothing)
    _, normed = residual_norm(total, Update(torch.zeros_like(h), gate), unmodulated, rows)
    if items > 1:
        scale, shift = (each.index_select(0, rows.item_index(x.device)) for each in (scale, shift))
    assert torch.equal(y, normed * (1 + scale) + shift)


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_smoothing(cuda: str, rng: np.random.Generator, channels: int) -> None:
    seed = torch.Generator(cuda).manual_seed(int(rng.integers(2**31)))
    x = torch.randn(1, channels, 33, 40, 35, generator=seed, device=cuda).half()
    weights = torch.randn(1, 27, 33, 40, 35, generator=seed, device=cuda)
    weights = F.normalize(weights, p=1, dim=1).half()
    expected = smoothed_by_taps(x.double(), weights.double())
    # fp32 sums of 27 products, one rounding of fp16
    assert (launch(x, weights).double() - expected).abs().max() <= 1e-3 * expected.abs().max()


@pytest.mark.parametrize("shape", [(1, 8, 64, 64, 64), (2, 40, 96, 96, 97), (1, 512, 24, 24, 24)])
def test_group_norm(cuda: str, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    """Of up to millions of numbers a group, far from zero: by our kernels, and without them."""
    seed = torch.Generator(cuda).manual_seed(int(rng.integers(2**31)))
    x = (torch.randn(shape, generator=seed, device=cuda) + 5).half()
    norm = GroupNormSiLU(4, shape[1]).to(cuda)
    torch.nn.init.normal_(norm.weight, 1, 0.1)
    torch.nn.init.normal_(norm.bias)
    affine = norm.weight, norm.bias
    expected = F.silu(F.group_norm(x.double(), 4, *(each.double() for each in affine), norm.eps))
    with torch.no_grad():
        for found in (norm(x), plain(x, 4, *affine, norm.eps)):
            # one rounding of fp16, or two
            assert (found.double() - expected).abs().max() <= 1e-3 * expected.abs().max()
