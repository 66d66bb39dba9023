"""Embeddings, windows and transformer blocks against files of the reference networks."""

from __future__ import annotations

import torch

from models.nn.attention import Window
from models.nn.attention.windows import make_partition
from models.nn.embeddings import TimestepEmbedder, position_embedding, timestep_sinusoid
from models.nn.sparse_tensor import SparseTensor
from models.nn.sparse_transformer import ModulatedSparseCrossBlock, SparseBlock
from models.nn.transformer import ModulatedCrossBlock
from tests.models.parity import Golden, agree, file


@file("trellis_timestep_embedder")
def test_timestep_embedder(golden: Golden) -> None:
    module = golden.load(TimestepEmbedder(golden.config["hidden"]))
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
    golden.load(block)
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
    golden.load(block)
    x = SparseTensor(golden["in/feats"], golden["in/coords"])
    agree(block(x, golden["in/mod"], golden["in/ctx"]).feats, golden["out/feats"])


@file("trellis_sparse_block_win_s0", "trellis_sparse_block_win_s4")
@torch.no_grad()
def test_windowed_block(golden: Golden) -> None:
    config = golden.config
    block = SparseBlock(
        config["channels"],
        config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        window=Window(config["window_size"], config["shift_window"]),
    )
    golden.load(block)
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
