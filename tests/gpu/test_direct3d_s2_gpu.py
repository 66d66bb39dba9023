"""Direct3D-S2 on a GPU: its kernels and refiners as in plain PyTorch, its memory given back."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.context import Cancelled, InputFile, LocalContext
from models.image_to_mesh.direct3d_s2.adaptive import launch, planes_of, smoothed
from models.image_to_mesh.direct3d_s2.blocks import EDGE, Blocks
from models.image_to_mesh.direct3d_s2.checkpoint import load_generator
from models.image_to_mesh.direct3d_s2.conv3d import Conv3d, channels_last
from models.image_to_mesh.direct3d_s2.group_norm import GroupNormSiLU, plain
from models.image_to_mesh.direct3d_s2.pipeline import IMAGE_WEIGHTS, Direct3DS2Pipeline
from models.image_to_mesh.direct3d_s2.refiner import Refiner
from models.image_to_mesh.direct3d_s2.sign_refiner import SignRefiner
from models.image_to_mesh.direct3d_s2.sparse_decoder import Decoded
from models.image_to_mesh.options import Direct3DS2Options
from models.nn.attention import Segments
from models.nn.fused import Norm, Update, residual_norm
from models.nn.residency import Residency
from tests.gpu.memory import memory
from tests.models.image_to_mesh.direct3d_s2.tiny import tiny_release, with_eggs, write_safetensors
from tests.models.image_to_mesh.trellis.tiny import write_dinov2

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
    weights = channels_last(torch.randn(1, 32, 33, 40, 35, generator=seed, device=cuda).half())[
        :, :27
    ]
    expected = smoothed(x.double(), weights.double())
    found = launch(channels_last(x), planes_of(weights)).double()
    # three rounds of fp32 sums of 27 products, each rounded to fp16; weights are rounded once
    assert (found - expected).abs().max() <= 3e-3 * expected.abs().max()


@pytest.mark.parametrize("shape", [(1, 8, 64, 64, 64), (2, 40, 96, 96, 97), (1, 512, 24, 24, 24)])
@pytest.mark.parametrize("moved", [False, True], ids=["as it is", "with an offset"])
def test_group_norm(
    cuda: str, rng: np.random.Generator, shape: tuple[int, ...], moved: bool
) -> None:
    """Of up to millions of numbers a group, far from zero: by our kernels, and without them."""
    seed = torch.Generator(cuda).manual_seed(int(rng.integers(2**31)))
    x = (torch.randn(shape, generator=seed, device=cuda) + 5).half()
    norm = GroupNormSiLU(4, shape[1]).to(cuda)
    torch.nn.init.normal_(norm.weight, 1, 0.1)
    torch.nn.init.normal_(norm.bias)
    affine = norm.weight, norm.bias
    offset = torch.randn(shape[1], generator=seed, device=cuda).half() if moved else None
    given = x.double() + offset.view(-1, 1, 1, 1) if moved else x.double()
    expected = F.silu(F.group_norm(given, 4, *(each.double() for each in affine), norm.eps))
    with torch.no_grad():
        for found in (norm(x, offset), plain(x, 4, *affine, norm.eps, offset)):
            # one rounding of fp16, or two
            assert (found.double() - expected).abs().max() <= 1e-3 * expected.abs().max()


@pytest.mark.parametrize(("channels", "out_channels"), [(1, 8), (8, 1), (13, 27), (16, 40)])
@torch.no_grad()
def test_convolution(cuda: str, rng: np.random.Generator, channels: int, out_channels: int) -> None:
    """Filled up to eights of channels, and cut."""
    torch.manual_seed(int(rng.integers(2**31)))
    conv = Conv3d(channels, out_channels, 3, padding=1).to(cuda, torch.float16)
    x = torch.randn(2, channels, 17, 24, 19, device=cuda).half()
    expected = F.conv3d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    found = conv(x).double()
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()  # two roundings of fp16
    less = conv.without_bias(x).double() + conv.bias.view(-1, 1, 1, 1).double()
    assert (less - expected).abs().max() <= 1e-3 * expected.abs().max()


@torch.no_grad()
def test_refiners(cuda: str, rng: np.random.Generator) -> None:
    """Of four levels, in overlapping patches: as fp32 on the CPU."""
    torch.manual_seed(int(rng.integers(2**31)))
    small = {"layers_per_block": 1, "layers_mid_block": 0, "widths": (8, 16, 16, 32)}
    refiner = Refiner(**small, patch_size=32, resolution=64).eval()
    signs = SignRefiner(**small, patch_size=32, resolution=64).eval()
    cells = (torch.rand(8, 8, 8) < 0.1).nonzero().int()
    distances = torch.rand(len(cells), 1, EDGE, EDGE, EDGE) * 2 - 1
    features = torch.randn(len(cells), 8, EDGE, EDGE, EDGE)
    fine = (torch.rand(16, 16, 16) < 0.1).nonzero().int()
    apart = torch.rand(len(fine), 1, EDGE, EDGE, EDGE) * 2 - 1

    def refined(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        def blocks(cells: Tensor, values: Tensor, resolution: int) -> Blocks:
            return Blocks(cells.to(device), values.to(device, dtype), resolution)

        for network in (refiner, signs):
            network.to(device, dtype)
        decoded = Decoded(blocks(cells, distances, 64), blocks(cells, features, 64))
        seen = signs.patch(torch.ones(1, 1, 32, 32, 32, device=device, dtype=dtype))
        sides = signs(blocks(fine, apart, 128)).cpu()
        return sides, refiner(decoded).float().cpu(), seen.float().cpu()

    sides, *expected = refined("cpu", torch.float32)
    found_sides, *found_values = refined(cuda, torch.float16)
    # a value near zero may round to the other side
    assert (found_sides == sides).float().mean() > 0.98
    for found, exact in zip(found_values, expected, strict=True):
        # a few dozen roundings of fp16: 5e-3 seen on a CPU
        assert (found - exact).abs().max() <= 2e-2 * exact.abs().max()


# -- memory ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = tmp_path_factory.mktemp("models")
    release = tiny_release("1.1")
    write_safetensors(release, weights / release.entry)
    write_dinov2(weights / IMAGE_WEIGHTS)
    return weights


@pytest.mark.parametrize("offload", [False, True], ids=["resident", "off_loaded"])
def test_memory_is_back_after_success_cancel_and_failure(
    cuda: str,
    folder: Path,
    disc: InputFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offload: bool,
) -> None:
    """Networks as released but for their sizes, and an egg in the place of what they decode."""
    release = tiny_release("1.1")
    residency = Residency(cuda, offload=offload)
    places = folder / release.entry, folder / IMAGE_WEIGHTS
    generator = with_eggs(load_generator(release, *places, residency, torch.float16))
    pipeline = Direct3DS2Pipeline(generator)
    options = Direct3DS2Options(faces=500, texture_size=1024)
    pipeline(LocalContext(tmp_path, device=cuda), [disc], options)
    gc.collect()
    torch.cuda.empty_cache()
    before = memory()
    pipeline(LocalContext(tmp_path, device=cuda), [disc], options)
    assert all(now <= then for now, then in zip(memory(), before, strict=True))

    for stage in ("coarse", "latent_512", "surface_512", "latent_1024"):
        seen: list[str] = []
        context = LocalContext(
            tmp_path,
            device=cuda,
            on_progress=lambda name, *_, seen=seen: seen.append(name),
            is_cancelled=lambda stage=stage, seen=seen: seen.count(stage) > 1,
        )
        with pytest.raises(Cancelled) as stopped:
            pipeline(context, [disc], options)
        assert all(now <= then for now, then in zip(memory(), before, strict=True))
        assert stopped.value.code == "cancelled"  # held until here, as a job's record would

    def broken(*arguments: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(generator.networks.sparse_flow_1024.out_layer, "forward", broken)
    with pytest.raises(RuntimeError, match="out of luck") as failed:
        pipeline(LocalContext(tmp_path, device=cuda), [disc], options)
    assert all(now <= then for now, then in zip(memory(), before, strict=True))
    assert failed.value.args
