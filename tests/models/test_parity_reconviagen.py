"""VGGT and ReconViaGen's networks against files of the reference networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.image_to_mesh.reconviagen.latent_condition import LatentCondition
from models.image_to_mesh.reconviagen.multi_view_flow import MultiViewCrossAttention
from models.image_to_mesh.reconviagen.networks import build
from models.image_to_mesh.reconviagen.structure_condition import StructureCondition
from models.image_to_mesh.reconviagen.vggt.aggregator import Aggregator, AggregatorConfig
from models.image_to_mesh.reconviagen.vggt.camera_head import CameraHead
from models.image_to_mesh.reconviagen.vggt.network import (
    HEADS_LEFT_OUT,
    Vggt,
    without_other_heads,
)
from models.image_to_mesh.reconviagen.vggt.poses import decode_poses
from models.nn.backends import use_backends
from models.nn.precision import to_half
from models.nn.weights import on_meta

N = TypeVar("N", bound=nn.Module)

RELATIVE = 1e-4
"""Of the largest value: what the files allow fp32 paths."""


class Golden:
    """One file: tensors by name (`in/…`, `out/…`, `w/…`) and its configuration."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.device = device
        with safe_open(path, "pt", device=device) as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
            self.metadata = file.metadata()
        self.config = json.loads(self.metadata["config"])

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def load(self, network: N) -> N:
        weights = {k[2:]: t.float() for k, t in self.tensors.items() if k.startswith("w/")}
        network.load_state_dict(weights, strict=True)
        return network.to(self.device).eval()

    @property
    def layers(self) -> list[Tensor]:
        """VGGT's tokens of layers 4, 11, 17 and 23, of the one item."""
        return [self[f"in/tok{layer}"][0] for layer in (4, 11, 17, 23)]


def fill_as_the_reference(network: nn.Module, seed: int) -> None:
    """The random weights of files that store only a seed, as `rand_init.py` beside them draws."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            drawn = torch.randn(parameter.shape, generator=generator)
            if name.endswith("gamma") or (name.endswith("weight") and parameter.dim() == 1):
                values = 1 + 0.1 * drawn
            elif name.endswith("bias") or parameter.dim() < 2:
                values = 0.1 * drawn
            else:
                values = drawn / parameter[0].numel() ** 0.5
            parameter.copy_(values.half().float())


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """On CUDA our own kernels compute: Triton's, in half precision attention too."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


@pytest.fixture
def golden(
    shared: Callable[[str], Path], request: pytest.FixtureRequest, device: str
) -> Iterator[Golden]:
    """Tolerances are the same on both devices: convolutions compute in whole fp32 too."""
    path = shared(f"data/parity/{request.param}.safetensors")
    cuda = device == "cuda"
    backends = use_backends(
        sparse="triton" if cuda else "torch", attention="triton" if cuda else "sdpa"
    )
    whole = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with backends, whole, torch.no_grad():
        yield Golden(path, device)


def file(*names: str) -> pytest.MarkDecorator:
    params = [pytest.param(name, id=name) for name in names]
    return pytest.mark.parametrize("golden", params, indirect=True)


def agree(out: Tensor, expected: Tensor, within: float = RELATIVE) -> None:
    assert out.shape == expected.shape
    assert (out - expected).abs().max() <= within * expected.abs().max()


# -- VGGT ----------------------------------------------------------------------------------------


@file("vggt_aggregator_conv")
def test_aggregator(golden: Golden) -> None:
    config = {key: value for key, value in golden.config.items() if key != "patch_embed"}
    network = golden.load(Aggregator(AggregatorConfig(**config, vision=None)))
    assert network.special == json.loads(golden.metadata["extra"])["patch_start_idx"]
    first, second = network(golden["in/images"], layers=(0, 1))
    agree(first, golden["out/out0"])
    agree(second, golden["out/out1"])
    (alone,) = network(golden["in/images"], layers=(1,))
    assert torch.equal(alone, second)


@file("vggt_camera_head")
def test_camera_head(golden: Golden) -> None:
    config = golden.config
    network = golden.load(
        CameraHead(
            config["dim_in"], config["trunk_depth"], config["num_heads"], config["mlp_ratio"]
        )
    )
    rounds = network(golden["in/tokens_last"])
    assert len(rounds) == 4
    for i, poses in enumerate(rounds):
        agree(poses, golden[f"out/pose_enc_iter{i}"])


@file("vggt_pose_decode")
def test_pose_decode(golden: Golden) -> None:
    to_camera, intrinsics = decode_poses(golden["in/pose_enc"], *golden.config["image_size_hw"])
    agree(to_camera, golden["out/extrinsics"], within=1e-6)
    agree(intrinsics, golden["out/intrinsics"], within=1e-6)


# -- conditions ----------------------------------------------------------------------------------


@file("rvg_ss_multiview_cond")
def test_structure_condition(golden: Golden) -> None:
    network = StructureCondition(**golden.config)
    fill_as_the_reference(network, int(golden.metadata["weight_seed"]))
    sums = json.loads(golden.metadata["weight_abs_sums"])
    for name, parameter in network.named_parameters():
        total = parameter.double().abs().sum().item()
        assert total == pytest.approx(sums[name], rel=1e-5, abs=1e-4)
    network.to(golden.device)
    layers = [tokens[:, 5:] for tokens in golden.layers]  # without camera and registers
    agree(network(layers, golden["in/image_cond"][0]), golden["out/cond"])


@file("rvg_slat_multiview_cond")
def test_latent_condition(golden: Golden) -> None:
    config = dict(golden.config)
    seed = config.pop("weight_seed")
    network = LatentCondition(**config)
    fill_as_the_reference(network, seed)
    network.to(golden.device)
    agree(network(golden.layers, golden["in/image_cond"][0]), golden["out/cond"])


# -- names, shapes and dtypes of the checkpoints ---------------------------------------------------


def described(state: dict[str, Tensor]) -> dict[str, tuple[list[int], str]]:
    return {k: (list(t.shape), str(t.dtype).removeprefix("torch.")) for k, t in state.items()}


def dumped(tensors: dict[str, dict]) -> dict[str, tuple[list[int], str]]:
    return {key: (t["shape"], t["dtype"]) for key, t in tensors.items()}


def dump_of(shared: Callable[[str], Path], name: str) -> dict:
    return dict(json.loads(shared(f"data/state_dicts/{name}.json").read_text()))


def test_vggt_at_full_size(shared: Callable[[str], Path]) -> None:
    """All of the checkpoint but the heads that are left out by name."""
    tensors = dump_of(shared, "vggt_full")["tensors"]
    left_out = {name for name in tensors if name.startswith(HEADS_LEFT_OUT)}
    assert {name.split(".")[0] + "." for name in left_out} == set(HEADS_LEFT_OUT)
    used = {name: t for name, t in tensors.items() if name not in left_out}
    assert described(on_meta(Vggt).state_dict()) == dumped(used)
    assert set(without_other_heads({name: torch.empty(0) for name in tensors})) == set(used)


def test_structure_condition_at_full_size(shared: Callable[[str], Path]) -> None:
    dump = dump_of(shared, "reconviagen_sparse_structure_vggt_cond")
    ours = on_meta(lambda: build(dump["class"], dump["config_args"]))
    assert described(ours.state_dict()) == dumped(dump["tensors"])


def test_latent_condition_at_full_size(shared: Callable[[str], Path]) -> None:
    dump = dump_of(shared, "reconviagen_slat_vggt_cond")
    ours = on_meta(lambda: build(dump["class"], dump["config_args"]))
    assert described(ours.state_dict()) == dumped(dump["tensors"])


def test_multi_view_flow_at_full_size(shared: Callable[[str], Path]) -> None:
    """The flow of the latent keeps TRELLIS's tensors; only how it uses them differs."""
    dump = dump_of(shared, "trellis_slat_flow_img_dit_L_64l8p2")
    ours = on_meta(lambda: build(dump["class"], dump["config_args"]))
    assert all(type(block.cross_attn) is MultiViewCrossAttention for block in ours.blocks)
    halved = to_half(ours, torch.float16).state_dict()
    assert described(halved) == dumped(dump["tensors"])
