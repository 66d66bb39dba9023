"""Windows, attention layers, embeddings, blocks and precision on fresh input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.nn.attention import (
    CrossAttention,
    QKRMSNorm,
    Segments,
    SelfAttention,
    SparseSelfAttention,
    Window,
    partition,
    reference,
)
from models.nn.backends import use_backends
from models.nn.embeddings import (
    TimestepEmbedder,
    grid_position_embedding,
    position_embedding,
    timestep_sinusoid,
)
from models.nn.norms import LayerNorm32
from models.nn.precision import chosen_dtype, to_half, torso_dtype
from models.nn.sparse_conv import SparseConv3d
from models.nn.sparse_tensor import SparseTensor
from models.nn.sparse_transformer import ModulatedSparseCrossBlock, SparseBlock, swin_window
from models.nn.transformer import ModulatedCrossBlock

TOLERANCE = 1e-5
"""fp32 against fp64: sums of at most 256 products of values near one."""


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.from_numpy(rng.standard_normal(shape)).float()


def voxels(rng: np.random.Generator, counts: list[int], grid: int = 12) -> Tensor:
    """int32 coordinates [N, 4]: `counts` voxels of a grid^3 for each item, in any order."""
    items = []
    for item, count in enumerate(counts):
        cells = rng.choice(grid**3, count, replace=False)
        xyz = np.stack(np.unravel_index(cells, (grid,) * 3), axis=1)
        items.append(np.insert(xyz, 0, item, axis=1))
    return torch.from_numpy(np.concatenate(items)).int()


def error(out: Tensor, expected: Tensor) -> float:
    assert out.shape == expected.shape
    return float((out.double() - expected.double()).abs().max())


# -- windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [Window(4), Window(4, 2), Window(5, 2), Window(1)])
def test_rows_share_a_window_when_their_shifted_coordinates_do(
    rng: np.random.Generator, window: Window
) -> None:
    coords = voxels(rng, [70, 110])
    place = partition(SparseTensor(coords.float(), coords).sites, window)
    windows = [place.order[rows].tolist() for rows in place.windows.slices()]
    assert sorted(sum(windows, [])) == list(range(180))
    assert torch.equal(place.order[place.back], torch.arange(180))

    def cube(row: int) -> tuple[int, ...]:
        b, *xyz = coords[row].tolist()
        return (b, *((c + window.shift) // window.size for c in xyz))

    cubes = [{cube(row) for row in rows} for rows in windows]
    assert all(len(one) == 1 for one in cubes)
    assert [one.pop() for one in cubes] == sorted({cube(row) for row in range(180)})


def test_a_partition_is_made_once_for_all_tensors_of_the_sites(rng: np.random.Generator) -> None:
    x = SparseTensor(normal(rng, 30, 4), voxels(rng, [30]))
    again = partition(x.replace(x.feats * 2).sites, Window(4))
    assert partition(x.sites, Window(4)) is again
    assert partition(x.sites, Window(4, 2)) is not again


@pytest.mark.parametrize(("size", "shift"), [(0, 0), (4, 4), (4, -1)])
def test_windows_that_are_none(size: int, shift: int) -> None:
    with pytest.raises(ValueError, match=f"size {size} and shift {shift}"):
        Window(size, shift)


def test_every_second_block_is_shifted_by_half_a_window() -> None:
    assert [swin_window(8, index).shift for index in range(4)] == [0, 4, 0, 4]


# -- attention layers ----------------------------------------------------------------------------


@torch.no_grad()
def test_qk_norm_is_l2_times_gain_and_root_of_the_width(rng: np.random.Generator) -> None:
    norm = QKRMSNorm(heads=3, width=16)
    norm.gamma.data = normal(rng, 3, 16)
    x = 5 * normal(rng, 7, 3, 16)
    exact = x.double() / x.double().norm(dim=-1, keepdim=True) * norm.gamma.double() * 4
    assert error(norm(x), exact) < TOLERANCE
    assert norm(x.half()).dtype == torch.float16


def self_attention_exact(layer: SelfAttention, x: Tensor, rows: Segments) -> Tensor:
    """The layer in fp64, with the loop over sequences."""
    heads, channels = layer.heads, x.shape[1]
    qkv = x.double() @ layer.to_qkv.weight.double().T + layer.to_qkv.bias.double()
    q, k, v = (part.view(-1, heads, channels // heads) for part in qkv.split(channels, dim=1))
    if layer.q_rms_norm is not None and layer.k_rms_norm is not None:
        root = math.sqrt(channels // heads)
        q = q / q.norm(dim=-1, keepdim=True) * layer.q_rms_norm.gamma.double() * root
        k = k / k.norm(dim=-1, keepdim=True) * layer.k_rms_norm.gamma.double() * root
    h = reference.attend_varlen(q, k, v, rows, rows).flatten(1)
    return h @ layer.to_out.weight.double().T + layer.to_out.bias.double()


@pytest.mark.parametrize("window", [None, Window(4, 2)], ids=["full", "windowed"])
@pytest.mark.parametrize("qk_rms_norm", [False, True], ids=["plain", "qk_norm"])
@torch.no_grad()
def test_sparse_self_attention(
    rng: np.random.Generator, window: Window | None, qk_rms_norm: bool
) -> None:
    torch.manual_seed(int(rng.integers(1 << 30)))
    layer = SparseSelfAttention(32, 4, qk_rms_norm=qk_rms_norm, window=window)
    x = SparseTensor(normal(rng, 90, 32), voxels(rng, [60, 30]))
    if window is None:
        exact = self_attention_exact(layer, x.feats, Segments([60, 30]))
    else:
        place = partition(x.sites, window)
        exact = self_attention_exact(layer, x.feats[place.order], place.windows)[place.back]
    assert error(layer(x).feats, exact) < TOLERANCE


@torch.no_grad()
def test_equal_tokens_weigh_as_one(rng: np.random.Generator) -> None:
    """The zeros of an unconditional pass, 9 tokens or 1: one result, beside a real context."""
    layer = CrossAttention(32, 24, 4)
    x, context = normal(rng, 2, 11, 32), normal(rng, 1, 9, 24)
    both = layer(x, torch.cat([context, torch.zeros(1, 9, 24)]))
    short = layer(x, layer.keys_values([context[0], torch.zeros(1, 24)]))
    assert error(short, both) < TOLERANCE


@torch.no_grad()
def test_contexts_of_different_lengths_equal_items_alone(rng: np.random.Generator) -> None:
    layer = CrossAttention(32, 24, 4)
    x = normal(rng, 3, 11, 32)
    contexts = [normal(rng, length, 24) for length in (5, 17, 2)]
    together = layer(x, layer.keys_values(contexts))
    packed = layer(x.flatten(0, 1), layer.keys_values(contexts), Segments([11] * 3))
    for i, context in enumerate(contexts):
        assert error(together[i], layer(x[i : i + 1], context[None])[0]) < TOLERANCE
    assert torch.equal(packed, together.flatten(0, 1))


# -- embeddings ----------------------------------------------------------------------------------


def test_time_is_cosines_then_sines() -> None:
    out = timestep_sinusoid(torch.tensor([0.0, 700.0]), 8)
    assert torch.equal(out[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    angles = [700 * 10_000 ** (-i / 4) for i in range(4)]
    exact = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    assert error(out[1], torch.tensor(exact, dtype=torch.float64)) < 1e-4  # 700 in fp32: 6e-5


def test_position_is_sines_then_cosines_of_each_axis_and_zeros_at_the_end() -> None:
    out = position_embedding(torch.tensor([[3, 0, 5]]), 16)
    axes = [[math.sin(p), math.sin(p / 100), math.cos(p), math.cos(p / 100)] for p in (3, 0, 5)]
    exact = torch.tensor([sum(axes, []) + [0.0] * 4], dtype=torch.float64)
    assert error(out, exact) < 1e-6
    assert not position_embedding(torch.ones(1, 3), 1024)[0, 1020:].any()


def test_grid_has_x_the_slowest() -> None:
    grid = grid_position_embedding(4, 18)
    assert torch.equal(
        grid[1 * 16 + 2 * 4 + 3], position_embedding(torch.tensor([[1, 2, 3]]), 18)[0]
    )


# -- blocks --------------------------------------------------------------------------------------


def cross_blocks(rng: np.random.Generator) -> tuple[ModulatedCrossBlock, ModulatedSparseCrossBlock]:
    torch.manual_seed(int(rng.integers(1 << 30)))
    dense = ModulatedCrossBlock(32, 24, 4, mlp_ratio=2, qk_rms_norm=True)
    sparse = ModulatedSparseCrossBlock(32, 24, 4, mlp_ratio=2, qk_rms_norm=True)
    sparse.load_state_dict(dense.state_dict())
    return dense, sparse


@pytest.mark.parametrize("counts", [[40], [25, 25], [31, 7, 12]], ids=str)
@torch.no_grad()
def test_sparse_cross_block_is_the_dense_one_item_by_item(
    rng: np.random.Generator, counts: list[int]
) -> None:
    dense, sparse = cross_blocks(rng)
    x = SparseTensor(normal(rng, sum(counts), 32), voxels(rng, counts))
    mod, context = normal(rng, len(counts), 32), normal(rng, len(counts), 9, 24)
    out = sparse(x, mod, context)
    for i, rows in enumerate(x.layout):
        alone = dense(x.feats[rows][None], mod[i : i + 1], context[i : i + 1])[0]
        assert error(out.feats[rows], alone) < TOLERANCE


@torch.no_grad()
def test_gates_of_zero_leave_cross_attention_alone(rng: np.random.Generator) -> None:
    """Chunk 3 gates the self-attention, chunk 6 the feed-forward; cross-attention has no gate."""
    block, _ = cross_blocks(rng)
    last = block.adaLN_modulation[1]
    last.weight.zero_()
    last.bias.copy_(torch.cat([torch.full((32,), f) for f in (0.3, -0.2, 0.0, 0.1, 0.4, 0.0)]))
    x, context = normal(rng, 2, 10, 32), normal(rng, 2, 5, 24)
    exact = x + block.cross_attn(block.norm2(x), context)
    assert error(block(x, normal(rng, 2, 32), context), exact) < TOLERANCE
    last.bias[64:96] = 0.5
    assert error(block(x, normal(rng, 2, 32), context), exact) > 0.01


@torch.no_grad()
def test_a_window_sees_nothing_of_the_others(rng: np.random.Generator) -> None:
    block = SparseBlock(32, 4, window=Window(6))
    x = SparseTensor(normal(rng, 80, 32), voxels(rng, [80]))
    before = block(x).feats
    corner = (x.coords[:, 1:] < 6).all(1)
    assert 0 < corner.sum() < 80
    after = block(x.replace(torch.where(corner[:, None], x.feats, x.feats + 1))).feats
    assert error(after[corner], before[corner]) < TOLERANCE
    assert not torch.equal(after[~corner], before[~corner])


@torch.no_grad()
def test_a_compiled_block_is_the_block(rng: np.random.Generator) -> None:
    """The dense block traces into one graph: no look-up of a backend breaks it."""
    block, _ = cross_blocks(rng)
    x, mod, context = normal(rng, 2, 10, 32), normal(rng, 2, 32), normal(rng, 2, 5, 24)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    assert error(compiled(x, mod, context), block(x, mod, context)) < TOLERANCE
    kv = block.cross_attn.keys_values([context[0], torch.zeros(1, 24)])
    assert error(compiled(x, mod, kv), block(x, mod, kv)) < TOLERANCE


# -- precision -----------------------------------------------------------------------------------


class Network(nn.Module):
    """What every flow has: an embedder and outer layers around a stack of blocks."""

    def __init__(self, channels: int, context_channels: int, heads: int) -> None:
        super().__init__()
        self.t_embedder = TimestepEmbedder(channels)
        self.input_layer = nn.Linear(8, channels)
        block = ModulatedCrossBlock(channels, context_channels, heads, qk_rms_norm=True)
        self.blocks = nn.ModuleList([block])
        self.out_layer = nn.Linear(channels, 8)
        self.register_buffer("pos_emb", torch.zeros(4096, channels))


def test_dtypes_and_names_are_those_of_the_checkpoint(shared: Callable[[str], Path]) -> None:
    path = shared("data/state_dicts/trellis_ss_flow_img_dit_L_16l8.json")
    listed = json.loads(path.read_text())["tensors"]
    with torch.device("meta"):
        network = Network(1024, 1024, 16)
    to_half(network, torch.float16)
    found = {
        name: {"shape": list(t.shape), "dtype": str(t.dtype).removeprefix("torch.")}
        for name, t in network.state_dict().items()
    }
    first = {k: v for k, v in listed.items() if "blocks." not in k or k.startswith("blocks.0.")}
    assert found == first


@pytest.mark.parametrize(
    "part", ["blocks", "input_blocks", "middle_block", "out_blocks", "upsample", "out_layer"]
)
def test_every_part_of_a_torso_is_halved_but_its_norms(part: str) -> None:
    layers = nn.Linear(4, 4), nn.Conv3d(4, 4, 3), SparseConv3d(4, 4, 3), LayerNorm32(4)
    network = nn.Module()
    network.add_module(part, nn.Sequential(*layers))
    to_half(network, torch.float16)
    found = [next(layer.parameters()).dtype for layer in layers]
    half = torch.float32 if part == "out_layer" else torch.float16
    assert found == [half, half, half, torch.float32]


def test_a_torso_in_half_runs_close_to_fp32(rng: np.random.Generator) -> None:
    network = Network(32, 24, 4)
    block = network.blocks[0]
    x, mod, context = normal(rng, 2, 10, 32), normal(rng, 2, 32), normal(rng, 2, 5, 24)
    with torch.no_grad():
        exact = block(x, mod, context)
        # 8 bits of mantissa in bf16, 11 in fp16; some ten roundings of values up to 8 add up.
        for dtype, tolerance in ((torch.bfloat16, 0.2), (torch.float16, 0.02)):
            assert torso_dtype(to_half(network, dtype)) == dtype
            out = block(x.to(dtype), mod.to(dtype), context.to(dtype))
            assert out.dtype == dtype
            assert 0 < error(out, exact) < tolerance
    assert torso_dtype(to_half(network, torch.float32)) == torch.float32
    assert torso_dtype(nn.Sequential(nn.Linear(2, 2))) == torch.float32
    with pytest.raises(ValueError, match=r"not in torch\.float64"):
        to_half(network, torch.float64)


def test_the_dtype_is_what_the_guard_said_or_the_best_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    with use_backends(dtype="auto"):
        assert chosen_dtype(cpu) == torch.float32
        for capability, dtype in (((7, 5), torch.float16), ((8, 6), torch.bfloat16)):
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
            assert chosen_dtype(cuda) == dtype
    with use_backends(dtype="float16"):
        assert chosen_dtype(cpu) == chosen_dtype(cuda) == torch.float16
