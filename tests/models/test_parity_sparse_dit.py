"""The sparse DiT of Direct3D-S2 and its attention against files of the reference networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.image_to_mesh.direct3d_s2.sparse_dit import TORSO, SparseDiT
from models.nn.attention import Window, partition
from models.nn.backends import use_backends
from models.nn.precision import to_half
from models.nn.sparse_tensor import SparseTensor
from models.nn.spatial_sparse_attention import SpatialSparseAttention, blocks_of, reference
from models.nn.weights import on_meta

WITHIN = 4e-3
"""Absolute: what the files allow spatial sparse attention, which they computed in fp16."""

FULL_SIZE = [f"direct3d_s2_{v}_sparse_dit_{r}" for v in ("v11", "v10") for r in (512, 1024)]


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with use_backends(sparse="torch", attention="sdpa"), torch.no_grad():
        yield


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def apart(out: Tensor, expected: Tensor) -> float:
    assert out.shape == expected.shape
    return (out.double() - expected.double()).abs().max().item()


# -- the attention -------------------------------------------------------------------------------


class Branches:
    """The file's layer in a dtype, and what its branches make of the file's input."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        self.file, metadata = read(path)
        c = json.loads(metadata["config"])
        self.layer = SpatialSparseAttention(
            c["hidden"], c["Hq"], c["Hk"], c["D"],
            c["compression_block_size"], c["selection_block_size"], c["topk"],
            Window(c["window_size"], c["shift_window"]), c["compression_version"],
        )  # fmt: skip
        weights = {k[2:]: t for k, t in self.file.items() if k.startswith("w/")}
        self.layer.load_state_dict(weights, strict=True)
        self.layer.to(dtype)
        self.x = SparseTensor(self.file["in/feats"].to(dtype), self.file["in/coords"])
        self.blocks = blocks_of(self.x.sites, 8, 8)
        self.q, self.k, self.v = (
            layer(self.x.feats).unflatten(1, (-1, c["D"]))
            for layer in (self.layer.proj_q, self.layer.proj_k, self.layer.proj_v)
        )
        self.topk = c["topk"]

    def __getitem__(self, name: str) -> Tensor:
        return self.file[name]

    def chosen(self, keys: Tensor) -> Tensor:
        """int32 [G, N, topk], as the file has it."""
        _, chosen = reference.compressed_attention(self.q, keys, keys, self.blocks, self.topk)
        return chosen.transpose(0, 1)


FILE = pytest.mark.parametrize("name", [pytest.param("d3ds2_ssa_v11", id="d3ds2_ssa_v11")])


@FILE
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_branches(shared: Callable[[str], Path], name: str, dtype: torch.dtype) -> None:
    file = Branches(shared(f"data/parity/{name}.safetensors"), dtype)
    layer, x, first = file.layer, file.x, len(file["out/cmp"])
    placed = x.replace(file.k.flatten(1) + layer._within_block(x).to(dtype))
    keys, values = (
        layer.compression_key(placed),
        layer.compression_value(x.replace(file.v.flatten(1))),
    )
    assert torch.equal(keys.coords, file["out/ccoords"])
    assert apart(keys.feats.view(-1, 2, 32), file["out/ck"]) < WITHIN
    assert apart(values.feats.view(-1, 2, 32), file["out/cv"]) < WITHIN

    seen, _ = reference.compressed_attention(
        file.q, file["out/ck"].to(dtype), file["out/cv"].to(dtype), file.blocks, file.topk
    )
    assert apart(seen[:first], file["out/cmp"]) < WITHIN
    chosen = file.chosen(file["out/ck"].to(dtype))
    assert torch.equal(chosen, file["out/block_topk"])
    far = reference.selected_attention(file.q, file.k, file.v, chosen.transpose(0, 1), file.blocks)
    assert apart(far[:first], file["out/sel"]) < WITHIN
    near = reference.window_attention(file.q, file.k, file.v, partition(x.sites, layer.window))
    assert apart(near[:first], file["out/win"]) < WITHIN


@FILE
def test_layer_in_half_precision(shared: Callable[[str], Path], name: str) -> None:
    """As the release runs it: keys rounded alike, so that the same blocks are chosen everywhere."""
    file = Branches(shared(f"data/parity/{name}.safetensors"), torch.float16)
    assert apart(file.layer(file.x).feats, file["out/y"]) < WITHIN


@FILE
def test_layer_in_fp32(shared: Callable[[str], Path], name: str) -> None:
    """But for queries whose last block wins by less than fp16 told apart: there either is right."""
    file = Branches(shared(f"data/parity/{name}.safetensors"), torch.float32)
    x = file.x
    placed = x.replace(file.k.flatten(1) + file.layer._within_block(x))
    keys = file.layer.compression_key(placed).feats.view(-1, 2, 32)
    _, scores = reference.attend_to_blocks(file.q, keys, keys)
    best = scores.sort(dim=2, descending=True).values
    close = (best[..., file.topk - 1] - best[..., file.topk] < 2e-5).any(0)
    assert close.sum() <= 5
    y = file.layer(x).feats
    assert apart(y[~close], file["out/y"][~close]) < WITHIN


# -- the network ---------------------------------------------------------------------------------


def fill_as_the_reference(network: nn.Module, seed: int) -> None:
    """The weights of files that store only a seed, as `rand_init.py` beside them draws."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(network.named_parameters()):
        drawn = torch.randn(parameter.shape, generator=generator)
        leaf = name.rpartition(".")[2]
        if parameter.dim() >= 2:
            fan = parameter.shape[-2] if leaf == "kernel" else parameter[0].numel()
            drawn /= fan**0.5
        else:
            drawn = 0.1 * drawn + (1 if leaf == "weight" else 0)
        parameter.copy_(drawn.half().float())


@pytest.mark.parametrize("name", [pytest.param("d3ds2_sparse_dit", id="d3ds2_sparse_dit")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_sparse_dit(shared: Callable[[str], Path], name: str, dtype: torch.dtype) -> None:
    file, metadata = read(shared(f"data/parity/{name}.safetensors"))
    network = to_half(SparseDiT.from_config(json.loads(metadata["config"])), torch.float16, TORSO)
    fill_as_the_reference(network, seed=81)
    to_half(network, dtype, TORSO)
    x = SparseTensor(file["in/feats"].to(dtype), file["in/coords"])
    out = network(x, file["in/t"], file["in/cond"])
    assert out.dtype == dtype
    assert apart(out.feats, file["out/v"]) < WITHIN
    again = network(x, file["in/t"], network.contexts(file["in/cond"]))
    assert torch.equal(again.feats, out.feats)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_state_dict_at_full_size(shared: Callable[[str], Path], name: str) -> None:
    dump = json.loads(shared(f"data/state_dicts/{name}.json").read_text())
    network = on_meta(lambda: SparseDiT.from_config(dump["config_args"]))
    ours = {
        key: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for key, tensor in to_half(network, torch.float16, TORSO).state_dict().items()
    }
    assert ours == {
        k: {"shape": t["shape"], "dtype": t["dtype"]} for k, t in dump["tensors"].items()
    }
