"""Embeddings, windows and transformer blocks against files of the reference networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.nn.attention import Window
from models.nn.attention.windows import make_partition
from models.nn.embeddings import TimestepEmbedder, position_embedding, timestep_sinusoid
from models.nn.sparse_tensor import SparseTensor
from models.nn.sparse_transformer import ModulatedSparseCrossBlock, SparseBlock
from models.nn.transformer import ModulatedCrossBlock

RELATIVE = 1e-4
"""Of the largest value: what the files allow fp32 paths."""


class Golden:
    """One file: tensors by name (`in/…`, `out/…`, `w/…`) and the configuration."""

    def __init__(self, path: Path, device: str) -> None:
        self.device = device
        with safe_open(path, "pt", device=device) as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
            self.config = json.loads(file.metadata()["config"])

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def load_into(self, module: nn.Module) -> None:
        """Every weight of the file, in fp32; the module must have exactly these."""
        weights = {k[2:]: t.float() for k, t in self.tensors.items() if k.startswith("w/")}
        module.load_state_dict(weights, strict=True)
        module.to(self.device).eval()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """On CUDA the steps between products are our own kernels; the tolerances stay."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


@pytest.fixture
def golden(shared: Callable[[str], Path], request: pytest.FixtureRequest, device: str) -> Golden:
    return Golden(shared(f"data/parity/{request.param}.safetensors"), device)


def file(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("golden", [pytest.param(name, id=name)], indirect=True)


def agree(out: Tensor, expected: Tensor) -> None:
    assert out.shape == expected.shape
    assert (out - expected).abs().max() <= RELATIVE * expected.abs().max()


@file("trellis_timestep_embedder")
def test_timestep_embedder(golden: Golden) -> None:
    module = TimestepEmbedder(golden.config["hidden"])
    golden.load_into(module)
    agree(timestep_sinusoid(golden["in/t"]), golden["out/freq"])
    with torch.no_grad():
        agree(module(golden["in/t"]), golden["out/emb"])


@file("trellis_ape_128")
def test_position_embedding(golden: Golden) -> None:
    agree(position_embedding(golden["in/coords"], golden.config["channels"]), golden["out/emb"])


@file("trellis_dense_cross_block")
@torch.no_grad()
def test_dense_cross_block(golden: Golden) -> None:
    config = golden.config
    block = ModulatedCrossBlock(
        config["channels"],
        config["ctx_channels"],
        config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        qk_rms_norm=config["qk_rms_norm"],
    )
    golden.load_into(block)
    x, mod, context = golden["in/x"], golden["in/mod"], golden["in/ctx"]
    agree(block(x, mod, context), golden["out/y"])
    agree(block(x, mod, block.cross_attn.keys_values(context)), golden["out/y"])


@file("trellis_sparse_cross_block")
@torch.no_grad()
def test_sparse_cross_block(golden: Golden) -> None:
    config = golden.config
    block = ModulatedSparseCrossBlock(
        config["channels"],
        config["ctx"],
        config["heads"],
        mlp_ratio=config["mlp_ratio"],
        qk_rms_norm=config["qk_rms_norm"],
    )
    golden.load_into(block)
    x = SparseTensor(golden["in/feats"], golden["in/coords"])
    agree(block(x, golden["in/mod"], golden["in/ctx"]).feats, golden["out/feats"])


@pytest.mark.parametrize(
    "golden",
    [
        pytest.param("trellis_sparse_block_win_s0", id="trellis_sparse_block_win_s0"),
        pytest.param("trellis_sparse_block_win_s4", id="trellis_sparse_block_win_s4"),
    ],
    indirect=True,
)
@torch.no_grad()
def test_windowed_block(golden: Golden) -> None:
    config = golden.config
    block = SparseBlock(
        config["channels"],
        config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        window=Window(config["window_size"], config["shift_window"]),
    )
    golden.load_into(block)
    x = SparseTensor(golden["in/feats"], golden["in/coords"])
    agree(block(x).feats, golden["out/feats"])


@file("trellis_window_partition_s0")
def test_window_partition(golden: Golden) -> None:
    coords = golden["in/coords"]
    window = Window(golden.config["window"], golden.config["shift"])
    place = make_partition(coords, window)
    assert list(place.windows.lengths) == golden["out/seq_lens"].tolist()
    first = place.order[[rows.start for rows in place.windows.slices()]]
    assert torch.equal(coords[first, 0].long(), golden["out/seq_batch"])
    number = torch.arange(len(place.windows)).repeat_interleave(torch.tensor(place.windows.lengths))
    assert torch.equal(number[place.back.cpu()], golden["out/window_id_of_token"].cpu())
