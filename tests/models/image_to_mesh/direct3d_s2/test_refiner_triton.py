"""The refiners' kernels compile for every card that is served, and compute what PyTorch does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.image_to_mesh.direct3d_s2 import adaptive, group_norm, unet3d
from models.nn.backends import use_backends
from models.nn.fused.functional import computed_in
from tests.models.interpreted import interpreted
from tests.models.nn.test_triton_compile import SERVED, SHARED_LIMIT, reports

FOLDER = "../image_to_mesh/direct3d_s2"


def case(module: str, kernel: str, types: dict[str, str], **constants: object) -> dict:
    return {
        "module": f"{FOLDER}/{module}",
        "kernel": kernel,
        "types": types,
        "constants": constants,
        "warps": 4,
        "stages": 3,
    }


def smoothing() -> list[dict]:
    block, half = {"BLOCK": adaptive.BLOCK}, "*fp16"
    sizes = dict.fromkeys(("size_x", "size_y", "size_z"), "i32")
    fields = dict.fromkeys(("x", "planes", "out"), half)
    planes = {"raw": half, "planes": half, "voxels": "i32"}
    module = "adaptive_triton"
    return [
        case(module, "normed_planes", planes, STRIDE=32, **block),
        *(
            case(module, "smooth", fields | sizes, C=channels, CHANNELS=channels, **block)
            for channels in (1, 8)
        ),
    ]


def unet(channels: int, *, offset: bool = True) -> list[dict]:
    """As launched on so many channels."""
    module, half = "unet3d_triton", "*fp16"
    tile = group_norm.tile_of(channels, 4, offset=offset)
    tables = dict.fromkeys(("means", "squares"), "*fp32")
    affine = dict.fromkeys(("weight", "bias"), "*fp32")
    first = {"x": half, "offset": half} | tables | dict.fromkeys(("voxels", "steps"), "i32")
    second = {"x": half, "offset": half} | tables | affine | {"out": half}
    second |= dict.fromkeys(("voxels", "parts", "span", "steps"), "i32") | {"eps": "fp32"}
    sums = {"x": half, "skip": half, "bias": half, "numbers": "i32"}
    return [
        case(module, "part_moments", first, **tile),
        case(module, "norm_silu", second, **tile, PARTS=group_norm.PROGRAMS),
        case(module, "add_skip", sums, C=channels, BLOCK=unet3d.BLOCK),
    ]


@pytest.mark.parametrize(("version", "capability"), SERVED)
def test_kernels_fit_and_do_not_spill(version: str, capability: int, tmp_path: Path) -> None:
    cases = [*smoothing(), *unet(8), *unet(8, offset=False), *unet(40), *unet(1024)]
    for report in reports(version, capability, cases, tmp_path):
        assert report["shared"] <= SHARED_LIMIT[capability], report
        assert (report["stack"], report["local"]) == (0, 0), report


def test_interpreted_on_a_cpu(rng: np.random.Generator) -> None:
    seed = int(rng.integers(2**31))
    errors = interpreted("tests.models.image_to_mesh.direct3d_s2.interpret_refiner", seed)
    assert len(errors) == 10
    for name, error in errors.items():
        # fp32 sums of 27 products; of a group nine times as far from zero as it is wide, and a few
        # in a row; fp16's own
        exact = 3e-6 if name.startswith(("normed", "network")) else 1e-6
        assert error < (1e-3 if "fp16" in name else exact), (name, error)


@pytest.mark.parametrize(
    ("capability", "dtype", "sparse", "by"),
    [
        ((9, 0), torch.bfloat16, "auto", "ours"),
        ((7, 5), torch.float16, "triton", "ours"),
        ((7, 5), torch.bfloat16, "auto", "PyTorch"),
        ((9, 0), torch.float16, "torch", "PyTorch"),
    ],
)
def test_who_computes(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    dtype: torch.dtype,
    sparse: str,
    by: str,
) -> None:
    """Cards before sm_80 have no instructions for bf16; PyTorch computes it there all the same."""
    computed_in.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for module, plain in ((group_norm, "plain"), (adaptive, "smoothed"), (unet3d, "plain_sum")):
        monkeypatch.setattr(module, "launch", lambda *given: "ours")
        monkeypatch.setattr(module, plain, lambda *given: "PyTorch")
        monkeypatch.setattr(module, "channels_last_on_gpu", lambda x: x)
    monkeypatch.setattr(adaptive, "planes_of", lambda x: x)
    x = SimpleNamespace(is_cuda=True, dtype=dtype, device=torch.device("cuda", 0))
    with use_backends(sparse=sparse):
        assert group_norm.GroupNormSiLU(2, 4).forward(x) == by
        assert adaptive.adaptive_block(x, lambda x: x) == by
        assert unet3d.summed(x, x, x) == by
    computed_in.cache_clear()
