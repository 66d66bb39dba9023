"""Direct3D-S2's networks against files of the reference networks, and their names and shapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from models.image_to_mesh.direct3d_s2.adaptive import adaptive_block, adaptive_kernel
from models.image_to_mesh.direct3d_s2.dense_vae import DenseVae, occupied
from models.image_to_mesh.direct3d_s2.networks import build, halve
from models.image_to_mesh.direct3d_s2.release import RELEASES
from models.image_to_mesh.direct3d_s2.sparse_decoder import SdfDecoder
from models.image_to_mesh.direct3d_s2.unet3d import UNet3d
from models.nn.backends import use_backends
from models.nn.sparse_tensor import SparseTensor
from models.nn.weights import on_meta

RELATIVE = 1e-4
"""Of the largest value: what the files allow fp32 paths."""


class Golden:
    """One file: tensors by name (`in/…`, `out/…`, `w/…`) and its configuration."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        with safe_open(path, "pt", device=device) as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}
            self.metadata = file.metadata()
        self.config = json.loads(self.metadata["config"])
        self.path, self.device = path, device

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def weights(self) -> dict[str, Tensor]:
        return {k[2:]: t.float() for k, t in self.tensors.items() if k.startswith("w/")}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """On CUDA our own kernels convolve."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)


@pytest.fixture
def golden(
    shared: Callable[[str], Path], request: pytest.FixtureRequest, device: str
) -> Iterator[Golden]:
    """Tolerances are the same on both devices: dense convolutions compute in whole fp32 too."""
    backends = use_backends(sparse="triton" if device == "cuda" else "torch", attention="sdpa")
    whole = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with backends, whole, torch.no_grad():
        yield Golden(shared(f"data/parity/{request.param}.safetensors"), device)


def file(*names: str) -> pytest.MarkDecorator:
    params = [pytest.param(name, id=name) for name in names]
    return pytest.mark.parametrize("golden", params, indirect=True)


def agree(out: Tensor, expected: Tensor) -> None:
    assert out.shape == expected.shape
    assert (out - expected).abs().max() <= RELATIVE * expected.abs().max()


def seeded(network: nn.Module, golden: Golden) -> nn.Module:
    """The random weights of a file that stores only a seed, drawn as its neighbour draws them."""
    generator = torch.Generator().manual_seed(int(golden.metadata["weight_seed"]))
    sums = json.loads(golden.metadata["weight_abs_sums"])
    parameters = sorted(network.named_parameters())
    assert {name for name, _ in parameters} == set(sums)
    for name, parameter in parameters:
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() >= 2:
            values = drawn / max(parameter[0].numel(), 1) ** 0.5
        elif name.endswith("weight"):
            values = 1 + 0.1 * drawn
        else:
            values = 0.1 * drawn
        parameter.copy_(values.half().float())
        assert parameter.double().abs().sum().item() == pytest.approx(sums[name], abs=1e-4)
    return network.to(golden.device).eval()


@file("d3ds2_adaptive_block")
def test_adaptive_block(golden: Golden) -> None:
    kernel = adaptive_kernel(golden["in/x"].shape[1])
    kernel.load_state_dict(golden.weights(), strict=True)
    kernel.to(golden.device)
    agree(adaptive_block(golden["in/x"], kernel), golden["out/y"])


@file("d3ds2_dense_vae")
def test_dense_vae(golden: Golden) -> None:
    network = seeded(DenseVae(**golden.config), golden)
    assert isinstance(network, DenseVae)
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
    agree(seeded(network, golden)(golden["in/x"]), golden["out/y"])


@file("d3ds2_sparse_vae_decoder_f1.0", "d3ds2_sparse_vae_decoder_f0.5")
@pytest.mark.parametrize("chunks", [1, 2])
def test_sparse_decoder(golden: Golden, chunks: int) -> None:
    """Whole and in chunks, row for row; the features too, as their spread."""
    config = {**golden.config, "chunk_size": chunks}
    factor = config.pop("factor")
    stored = golden if golden.weights() else Golden(golden.path.with_name(WHOLE), golden.device)
    network = SdfDecoder(**config)
    network.load_state_dict(stored.weights(), strict=True)
    latent = SparseTensor(golden["in/latent"], golden["in/coords"])
    decoded = network.to(golden.device).eval()(
        latent, head=lambda features: features, factor=factor
    )

    rows = {tuple(row): n for n, row in enumerate(golden["out/coords"][:, 1:].tolist())}
    order = torch.tensor([rows[tuple(row)] for row in decoded.sdf.voxels().tolist()])
    agree(decoded.sdf.values.reshape(-1, 1), golden["out/sdf"][order])
    features = decoded.extra.values.movedim(1, -1).flatten(0, 3)
    spread = golden["out/feat_std"]
    agree(features.std(dim=0), spread)


WHOLE = "d3ds2_sparse_vae_decoder_f1.0.safetensors"

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
