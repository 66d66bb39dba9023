"""The Triton backend on a GPU: kernel maps against torch's, convolutions against plain fp64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from models.nn.sites import LIMIT
from models.nn.sparse_conv import inverse_conv, strided_conv, submanifold_conv, triton_tuning
from models.nn.sparse_conv.kernel_map import KernelMap, strided_map, submanifold_map
from models.nn.sparse_tensor import SparseTensor

pytestmark = pytest.mark.gpu

TOLERANCE = {torch.float16: 4e-4, torch.bfloat16: 3e-3, torch.float32: 2e-6}
"""Relative to the norm: one rounding of the result (2^-11, 2^-8); fp32 sums of up to 14,000."""


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture
def generator(rng) -> torch.Generator:
    return torch.Generator("cuda").manual_seed(int(rng.integers(2**62)))


def cloud(
    generator: torch.Generator, *, size: int, share: float, items: int = 2, corner: int = 0
) -> SparseTensor:
    """A random share of the voxels of each item, rows within an item in random order."""
    coords = []
    for item in range(items):
        taken = torch.rand(size, size, size, device="cuda", generator=generator) < share
        voxels = taken.nonzero().int() + corner
        voxels = voxels[torch.randperm(len(voxels), device="cuda", generator=generator)]
        coords.append(torch.nn.functional.pad(voxels, (1, 0), value=item))
    rows = torch.cat(coords)
    return SparseTensor(torch.zeros(len(rows), 1, device="cuda"), rows, items)


class Layer:
    """Random features, weight, bias and residual of one convolution, and its result in fp64."""

    def __init__(
        self,
        kernel_map: KernelMap,
        channels: tuple[int, int],
        dtype: torch.dtype,
        generator: torch.Generator,
    ) -> None:
        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, device="cuda", generator=generator)

        into, out = channels
        self.map = kernel_map
        self.feats = normal(kernel_map.n_in, into).to(dtype)
        self.weight = (normal(out, *kernel_map.kernel_size, into) / (10 * into) ** 0.5).to(dtype)
        self.bias = normal(out).to(dtype)
        self.residual = normal(kernel_map.n_out, out).to(dtype)

    def expected(self, bias: bool = True, residual: bool = True) -> Tensor:
        out = self.residual.double() * residual + self.bias.double() * bias
        matrices = self.weight.flatten(1, 3).double().unbind(1)
        for matrix, rows in zip(matrices, self.map.neighbours.unbind(0), strict=True):
            there = (rows >= 0).nonzero().squeeze(1)
            out.index_add_(0, there, self.feats[rows[there].long()].double() @ matrix.T)
        return out

    def check(self, out: Tensor, expected: Tensor) -> None:
        assert out.dtype == self.feats.dtype
        error = (out.double() - expected).norm() / expected.norm()
        assert error < TOLERANCE[self.feats.dtype]  # false for NaN
        worst = (out.double() - expected).abs().max() / expected.abs().max()
        assert worst < 4 * TOLERANCE[self.feats.dtype]


def poison(*shape: int, dtype: torch.dtype) -> None:
    """Leaves NaN in the allocator's block that the next output of this size will get."""
    torch.full(shape, float("nan"), device="cuda", dtype=dtype)


@pytest.mark.parametrize("corner", [0, LIMIT - 20])
@pytest.mark.parametrize("share", [0.001, 0.3, 1.0])
def test_map_is_that_of_torch(generator, share: float, corner: int) -> None:
    sites = cloud(generator, size=20, share=share, items=3, corner=corner).sites
    found = submanifold_map(sites, (3, 3, 3), by_triton=True).neighbours
    again = SparseTensor(torch.zeros(len(sites), 1, device="cuda"), sites.coords).sites
    assert torch.equal(found, submanifold_map(again, (3, 3, 3)).neighbours)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", [(64, 64), (96, 192), (512, 96), (256, 256), (24, 40), (5, 3)])
def test_convolution(generator, channels: tuple[int, int], dtype: torch.dtype) -> None:
    from models.nn.sparse_conv.triton_conv import convolve

    sites = cloud(generator, size=24, share=0.35).sites
    layer = Layer(submanifold_map(sites, (3, 3, 3)), channels, dtype, generator)
    for bias, residual in ((True, True), (False, False)):
        given = layer.bias if bias else None, layer.map, layer.residual if residual else None
        poison(*layer.residual.shape, dtype=dtype)
        out = convolve(layer.feats, layer.weight, *given)
        layer.check(out, layer.expected(bias, residual))
        assert torch.equal(out, convolve(layer.feats, layer.weight, *given))


@pytest.fixture
def tf32() -> Iterator[None]:
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


def run_every_tile(layer: Layer) -> Iterator[Tensor]:
    from models.nn.sparse_conv.triton_conv import arrangement_of, card_of, launch, problem_of
    from models.nn.sparse_conv.triton_tiles import Plan, tiles_of

    precision = problem_of(layer.feats, layer.weight, layer.map).precision
    arrangement, dtype = arrangement_of(layer.map), layer.feats.dtype
    channels = layer.weight.shape[0]
    for tile in tiles_of(card_of(layer.feats.device).capability, dtype):
        for splits in (1, 2, 6):
            poison(splits, arrangement.padded, channels, dtype=torch.float32)
            poison(arrangement.n, channels, dtype=dtype)
            given = layer.feats, layer.weight, layer.bias, layer.residual, arrangement
            yield launch(Plan(tile, splits, precision), *given)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_tile_of_this_card(generator, dtype: torch.dtype) -> None:
    sites = cloud(generator, size=16, share=0.35).sites
    layer = Layer(submanifold_map(sites, (3, 3, 3)), (64, 160), dtype, generator)
    expected = layer.expected()
    for out in run_every_tile(layer):
        layer.check(out, expected)


def test_tf32_only_where_it_is_switched_on(generator, tf32) -> None:
    sites = cloud(generator, size=16, share=0.35).sites
    layer = Layer(submanifold_map(sites, (3, 3, 3)), (64, 160), torch.float32, generator)
    expected = layer.expected()
    for out in run_every_tile(layer):
        assert 1e-5 < (out.double() - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize("rows", [1, 127, 128, 129, 256, 257])
def test_any_number_of_rows(generator, rows: int) -> None:
    from models.nn.sparse_conv.triton_conv import convolve

    whole = cloud(generator, size=12, share=0.5, items=1)
    sites = SparseTensor(whole.feats[:rows], whole.coords[:rows].contiguous()).sites
    layer = Layer(submanifold_map(sites, (3, 3, 3)), (32, 32), torch.float16, generator)
    out = convolve(layer.feats, layer.weight, layer.bias, layer.map, layer.residual)
    layer.check(out, layer.expected())


@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_strided_and_its_inverse(generator, kernel: int) -> None:
    """4^3 offsets are more than the bits of a mask: the reference computes those."""
    from models.nn.sparse_conv.triton_conv import convolve

    sites = cloud(generator, size=20, share=0.2).sites
    down = strided_map(sites, (kernel,) * 3, 2)[1]
    for kernel_map in (down, down.transposed()):
        layer = Layer(kernel_map, (32, 96), torch.float32, generator)
        out = convolve(layer.feats, layer.weight, layer.bias, layer.map, layer.residual)
        layer.check(out, layer.expected())


def test_backends_agree(generator) -> None:
    x = cloud(generator, size=20, share=0.2)
    x = x.replace(torch.randn(len(x.sites), 48, device="cuda", generator=generator))
    weight = torch.randn(64, 3, 3, 3, 48, device="cuda", generator=generator) / 30
    back = torch.randn(48, 2, 2, 2, 64, device="cuda", generator=generator) / 10
    half = torch.randn(64, 2, 2, 2, 64, device="cuda", generator=generator) / 10
    results = []
    for backend in ("torch", "triton"):
        y = submanifold_conv(x, weight, backend=backend)
        y = strided_conv(y, half, stride=2, backend=backend)
        results.append(inverse_conv(y, back, stride=2, backend=backend).feats)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", [(19, 32), (96, 96), (256, 256)])
def test_infinities_reach_their_neighbours_alone(
    generator, channels: tuple[int, int], dtype: torch.dtype
) -> None:
    from models.nn.sparse_conv.triton_conv import convolve

    sites = cloud(generator, size=16, share=0.2).sites
    layer = Layer(submanifold_map(sites, (3, 3, 3)), channels, dtype, generator)
    layer.feats[100] = float("inf")
    out = convolve(layer.feats, layer.weight, None, layer.map)
    expected = (layer.map.neighbours == 100).any(0)
    assert torch.equal(~out.isfinite().all(1), expected)


def test_no_rows(generator) -> None:
    x = SparseTensor(
        torch.zeros(0, 32, device="cuda"), torch.zeros(0, 4, device="cuda", dtype=torch.int32), 1
    )
    weight = torch.randn(64, 3, 3, 3, 32, device="cuda", generator=generator)
    assert submanifold_conv(x, weight, backend="triton").feats.shape == (0, 64)


def test_weights_in_another_layout_are_read_by_their_strides(generator) -> None:
    from models.nn.sparse_conv.triton_conv import convolve

    sites = cloud(generator, size=16, share=0.35).sites
    layer = Layer(submanifold_map(sites, (3, 3, 3)), (64, 96), torch.float16, generator)
    stored = layer.weight.permute(1, 2, 3, 4, 0).contiguous()  # [KX, KY, KZ, Cin, Cout]
    layer.weight = stored.permute(4, 0, 1, 2, 3)
    out = convolve(layer.feats, layer.weight, layer.bias, layer.map, layer.residual)
    layer.check(out, layer.expected())


def test_a_measured_plan_computes_the_same(generator, tmp_path) -> None:
    from models.nn.sparse_conv.triton_conv import card_of, convolve, problem_of, tune

    sites = cloud(generator, size=24, share=0.35).sites
    layer = Layer(submanifold_map(sites, (3, 3, 3)), (64, 96), torch.float16, generator)
    try:
        plan = tune(layer.feats, layer.weight, layer.map)
        problem = problem_of(layer.feats, layer.weight, layer.map)
        assert triton_tuning.plan_for(card_of(layer.feats.device), problem) == plan
        out = convolve(layer.feats, layer.weight, layer.bias, layer.map, layer.residual)
        layer.check(out, layer.expected())
    finally:
        triton_tuning.forget_plans()
