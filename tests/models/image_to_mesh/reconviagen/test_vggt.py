"""VGGT's parts against plain sums in fp64, and what must hold whatever the weights are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.image_to_mesh.reconviagen.vggt.aggregator import Aggregator, AggregatorConfig
from models.image_to_mesh.reconviagen.vggt.block import Block
from models.image_to_mesh.reconviagen.vggt.network import Vggt
from models.image_to_mesh.reconviagen.vggt.poses import decode_poses, rotation_matrices
from models.image_to_mesh.reconviagen.vggt.rotary import grid_rotation
from models.nn.dinov2 import DinoV2Config
from tests.models.image_to_mesh.reconviagen.tiny import random_weights

SMALL = AggregatorConfig(28, 14, 16, 3, 2, 2, 4, vision=None)


def tensor(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


# -- positions -----------------------------------------------------------------------------------


def test_pairs_are_turned_as_complex_numbers(rng: np.random.Generator) -> None:
    """In each half of a head entries i and i + D/4 are one number, turned by place/100^(4i/D)."""
    rows, columns, still, width = 2, 3, 2, 12
    x = tensor(rng, still + rows * columns, 1, width)
    turned = grid_rotation(rows, columns, still, width, "cpu")(x).numpy()
    places = [(0, 0)] * still + [(y + 1, x + 1) for y in range(rows) for x in range(columns)]
    for token, place in enumerate(places):
        for axis in (0, 1):
            half = slice(axis * width // 2, (axis + 1) * width // 2)
            first, second = x[token, 0, half].double().numpy().reshape(2, 3)
            angles = place[axis] / 100.0 ** (np.arange(3) / 3)
            number = (first + 1j * second) * np.exp(1j * angles)
            expected = np.concatenate((number.real, number.imag))
            np.testing.assert_allclose(turned[token, 0, half], expected, atol=1e-6)


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="10 wide"):
        grid_rotation(1, 1, 0, 10, "cpu")


# -- blocks --------------------------------------------------------------------------------------


def in_fp64(block: Block, x: Tensor, heads: int, turn: Tensor) -> Tensor:
    """The block written out; turn: [L, D, D], what a place does to a head of its token."""
    p = {name: value.double() for name, value in block.named_parameters()}

    def norm(v: Tensor, name: str) -> Tensor:
        spread = ((v - v.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True)
        v = (v - v.mean(-1, keepdim=True)) / (spread + 1e-5).sqrt()
        return v * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(v: Tensor, name: str) -> Tensor:
        return v @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    x = x.double()
    length, width = x.shape
    q, k, v = linear(norm(x, "norm1"), "attn.qkv").view(length, 3, heads, -1).permute(1, 2, 0, 3)
    q, k = norm(q, "attn.q_norm"), norm(k, "attn.k_norm")
    q, k = (torch.einsum("lij,hlj->hli", turn, y) for y in (q, k))
    weights = (q @ k.mT / (width // heads) ** 0.5).softmax(-1)
    x = x + p["ls1.gamma"] * linear((weights @ v).permute(1, 0, 2).flatten(1), "attn.proj")
    h = linear(norm(x, "norm2"), "mlp.fc1")
    h = 0.5 * h * (1 + torch.erf(h / 2**0.5))
    return x + p["ls2.gamma"] * linear(h, "mlp.fc2")


@torch.no_grad()
def test_block_is_what_its_formula_says(rng: np.random.Generator) -> None:
    """Two images of one grid in a sequence: places repeat."""
    block = random_weights(Block(24, 3, 2, qk_norm=True), seed=int(rng.integers(1 << 30)))
    rotation = grid_rotation(2, 2, 1, 8, "cpu")
    x = tensor(rng, 10, 24)
    units = torch.eye(8).expand(5, 8, 8)  # [P, each unit vector as a head, D]
    turn = rotation(units).mT.double().repeat(2, 1, 1)
    expected = in_fp64(block, x, 3, turn)
    out = block(x[None], rotation)[0]  # type: ignore[operator]
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=0)  # fp32, values near 3


# -- the aggregator ------------------------------------------------------------------------------


@pytest.fixture
def aggregator(rng: np.random.Generator) -> Aggregator:
    network = random_weights(Aggregator(SMALL), seed=int(rng.integers(1 << 30)))
    assert isinstance(network, Aggregator)
    return network


@torch.no_grad()
def test_order_of_later_images_does_not_matter_that_of_the_first_does(
    aggregator: Aggregator, rng: np.random.Generator
) -> None:
    images = torch.from_numpy(rng.random((1, 4, 3, 28, 28), dtype=np.float32))
    (plain,) = aggregator(images, layers=(2,))
    (shuffled,) = aggregator(images[:, [0, 3, 1, 2]], layers=(2,))
    torch.testing.assert_close(shuffled, plain[:, [0, 3, 1, 2]], atol=1e-5, rtol=1e-4)
    (turned,) = aggregator(images[:, [1, 0, 2, 3]], layers=(2,))
    assert (turned - plain[:, [1, 0, 2, 3]]).abs().max() > 1e-2


@torch.no_grad()
def test_scenes_of_a_batch_do_not_see_each_other(
    aggregator: Aggregator, rng: np.random.Generator
) -> None:
    images = torch.from_numpy(rng.random((2, 3, 3, 28, 28), dtype=np.float32))
    both = aggregator(images, layers=(0, 2))
    for scene in (0, 1):
        alone = aggregator(images[scene : scene + 1], layers=(0, 2))
        for one, of_both in zip(alone, both, strict=True):
            torch.testing.assert_close(one[0], of_both[scene], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_each_layer_is_told_and_may_stop(aggregator: Aggregator, rng: np.random.Generator) -> None:
    images = torch.from_numpy(rng.random((1, 1, 3, 28, 28), dtype=np.float32))
    told: list[int] = []
    aggregator(images, (2,), told.append)
    assert told == [0, 1, 2]

    def stop(layer: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        aggregator(images, (2,), stop)


# -- the whole -----------------------------------------------------------------------------------


def small_vggt(rng: np.random.Generator) -> Vggt:
    config = replace(SMALL, vision=DinoV2Config(28, 14, 16, 1, 2, 2, 4))
    network = Vggt(config, camera_depth=1, camera_heads=2, layers=(0, 2))
    random_weights(network, seed=int(rng.integers(1 << 30)))
    return network


@pytest.mark.parametrize(
    ("dtype", "within"),
    [
        pytest.param(torch.float16, 5e-3, id="fp16"),  # 11 bits, through a few dozen roundings
        pytest.param(torch.bfloat16, 4e-2, id="bf16"),  # 8 bits
    ],
)
@torch.no_grad()
def test_half_precision_stays_near_and_answers_in_fp32(
    rng: np.random.Generator, dtype: torch.dtype, within: float
) -> None:
    network = small_vggt(rng)
    images = torch.from_numpy(rng.random((2, 3, 28, 28), dtype=np.float32))
    whole = network(images)
    network.halve(dtype)
    assert network.aggregator.patch_embed.blocks[0].attn.qkv.weight.dtype == dtype
    assert network.aggregator.frame_blocks[0].attn.q_norm.weight.dtype == torch.float32
    assert next(network.camera_head.parameters()).dtype == torch.float32
    half = network(images)
    for out, expected in zip((*half.layers, half.poses), (*whole.layers, whole.poses), strict=True):
        assert out.dtype == torch.float32
        assert 0 < (out - expected).abs().max() <= within * expected.abs().max()


def test_tokens_of_the_last_layer_must_be_kept() -> None:
    with pytest.raises(ValueError, match="leave out the last"):
        Vggt(SMALL, layers=(0, 1))


# -- cameras -------------------------------------------------------------------------------------


def test_quaternions_turn_as_hamilton_says(rng: np.random.Generator) -> None:
    """R v is the vector part of q v q*, for q of unit length; length does not matter."""
    for _ in range(5):
        q = rng.standard_normal(4)
        unit = q / np.linalg.norm(q)
        v = rng.standard_normal(3)
        vector, real = unit[:3], unit[3]
        turned = v + 2 * real * np.cross(vector, v) + 2 * np.cross(vector, np.cross(vector, v))
        ours = rotation_matrices(torch.from_numpy(3 * q)).numpy() @ v
        np.testing.assert_allclose(ours, turned, atol=1e-12)


def test_a_right_angle_of_view_has_half_the_side_as_its_focal_length() -> None:
    pose = torch.tensor([1.0, 2, 3, 0, 0, 0, 1, torch.pi / 2, torch.pi / 2])
    to_camera, intrinsics = decode_poses(pose, height_px=100, width_px=200)
    torch.testing.assert_close(
        to_camera, torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3]])
    )
    torch.testing.assert_close(intrinsics, torch.tensor([[100.0, 0, 100], [0, 50, 50], [0, 0, 1]]))
