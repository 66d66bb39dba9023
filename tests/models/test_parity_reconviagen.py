"""VGGT and ReconViaGen's networks against files of the reference networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

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
from models.nn.precision import to_half
from models.nn.weights import on_meta
from tests.models.parity import Golden, agree, file, fill_as_the_reference, triton_on_cuda


@pytest.fixture
def computing(device: str) -> Iterator[None]:
    with triton_on_cuda(device, attention="triton"):
        yield


def layers(golden: Golden) -> list[Tensor]:
    """VGGT's tokens of layers 4, 11, 17 and 23, of the one item."""
    return [golden[f"in/tok{layer}"][0] for layer in (4, 11, 17, 23)]


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
    network = golden.fill(StructureCondition(**golden.config), rel=1e-5, abs=1e-4)
    seen = [tokens[:, 5:] for tokens in layers(golden)]  # without camera and registers
    agree(network(seen, golden["in/image_cond"][0]), golden["out/cond"])


@file("rvg_slat_multiview_cond")
def test_latent_condition(golden: Golden) -> None:
    config = dict(golden.config)
    seed = config.pop("weight_seed")
    network = LatentCondition(**config)
    fill_as_the_reference(network, seed)
    network.to(golden.device)
    agree(network(layers(golden), golden["in/image_cond"][0]), golden["out/cond"])


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
