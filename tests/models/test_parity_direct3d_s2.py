"""Direct3D-S2's networks against files of the reference networks, and their names and shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from models.image_to_mesh.direct3d_s2.adaptive import adaptive_block, adaptive_kernel
from models.image_to_mesh.direct3d_s2.dense_vae import DenseVae, occupied
from models.image_to_mesh.direct3d_s2.networks import build, halve
from models.image_to_mesh.direct3d_s2.release import RELEASES
from models.image_to_mesh.direct3d_s2.sparse_decoder import SdfDecoder
from models.image_to_mesh.direct3d_s2.unet3d import UNet3d
from models.nn.sparse_tensor import SparseTensor
from models.nn.weights import on_meta
from tests.models.parity import Golden, agree, file, triton_on_cuda


@pytest.fixture
def computing(device: str) -> Iterator[None]:
    with triton_on_cuda(device, attention="sdpa"):
        yield


@file("d3ds2_adaptive_block")
def test_adaptive_block(golden: Golden) -> None:
    kernel = golden.load(adaptive_kernel(golden["in/x"].shape[1]))
    agree(adaptive_block(golden["in/x"], kernel), golden["out/y"])


@file("d3ds2_dense_vae")
def test_dense_vae(golden: Golden) -> None:
    network = golden.fill(DenseVae(**golden.config), abs=1e-4)
    logits = network.decode(golden["in/z"])
    agree(logits, golden["out/logits"])
    assert torch.equal(occupied(logits).long(), golden["out/index"])


@file("d3ds2_unet3d")
def test_unet(golden: Golden) -> None:
    config = golden.config
    network = UNet3d(
        config["in_channels"],
        config["block_out_channels"],
        config["layers_per_block"],
        config["layers_mid_block"],
        config["norm_num_groups"],
    )
    agree(golden.fill(network, abs=1e-4)(golden["in/x"]), golden["out/y"])


@file("d3ds2_sparse_vae_decoder_f1.0", "d3ds2_sparse_vae_decoder_f0.5")
@pytest.mark.parametrize("chunks", [1, 2])
def test_sparse_decoder(golden: Golden, chunks: int) -> None:
    """Whole and in chunks, row for row; the features too, as their spread."""
    config = {**golden.config, "chunk_size": chunks}
    factor = config.pop("factor")
    stored = golden if golden.weights() else golden.beside("d3ds2_sparse_vae_decoder_f1.0")
    network = stored.load(SdfDecoder(**config))
    latent = SparseTensor(golden["in/latent"], golden["in/coords"])
    decoded = network(latent, head=lambda features: features, factor=factor)

    rows = {tuple(row): n for n, row in enumerate(golden["out/coords"][:, 1:].tolist())}
    order = torch.tensor([rows[tuple(row)] for row in decoded.sdf.voxels().tolist()])
    agree(decoded.sdf.values.reshape(-1, 1), golden["out/sdf"][order])
    features = decoded.extra.values.movedim(1, -1).flatten(0, 3)
    spread = golden["out/feat_std"]
    agree(features.std(dim=0), spread)


NETWORKS = {
    "direct3d_s2_v11_dense_dit": "dense_flow",
    "direct3d_s2_v11_dense_vae": "dense_vae",
    "direct3d_s2_v11_sparse_vae_512": "sparse_vae_512",
    "direct3d_s2_v11_sparse_vae_1024": "sparse_vae_1024",
    "direct3d_s2_v11_refiner": "refiner",
    "direct3d_s2_v11_refiner_1024": "sign_refiner",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_names_shapes_and_dtypes(shared: Callable[[str], Path], name: str) -> None:
    """Of a whole network at full size, on the meta device."""
    listed = json.loads(shared(f"data/state_dicts/{name}.json").read_bytes())["tensors"]
    source = RELEASES["1.1"].networks[NETWORKS[name]]
    network = halve(on_meta(lambda: build(source.class_name, source.arguments)), torch.float16)
    ours = {
        key: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for key, tensor in network.state_dict().items()
    }
    assert ours == listed
