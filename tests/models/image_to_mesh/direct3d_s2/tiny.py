"""Both releases of Direct3D-S2 in miniature: the official layout and names, random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.image_to_mesh.direct3d_s2.blocks import EDGE, Blocks
from models.image_to_mesh.direct3d_s2.generator import Generator
from models.image_to_mesh.direct3d_s2.networks import build, halve
from models.image_to_mesh.direct3d_s2.release import RELEASES, Arguments, Release, Sampler
from models.image_to_mesh.direct3d_s2.sparse_decoder import Decoded
from models.nn.sparse_tensor import SparseTensor
from tests.models.image_to_mesh.trellis.tiny import COND

STEPS = 3
COARSE = 4  # cells along the grid; 32 voxels, and 64 in the finer one
SPARSE_VAE = {
    "embed_dim": 8,
    "model_channels_encoder": 512,  # a sixteenth of it is normalised in 32 groups
    "num_blocks_encoder": 0,
    "num_heads_encoder": 2,
    "model_channels_decoder": 64,
    "num_blocks_decoder": 2,
    "num_heads_decoder": 2,
}
SPARSE_DIT = {
    "in_channels": 8,
    "out_channels": 8,
    "model_channels": 32,
    "cond_channels": COND,
    "num_blocks": 2,  # the second shifts its windows
    "num_heads": 2,
    "num_kv_heads": 2,
    "mlp_ratio": 1,
}
WIDE, TALL = 0.33, 0.44
"""Half the egg's extents; where its distance is a level it fills 0.95 of the grid."""
STEEP = 16
UNET = {"layers_per_block": 1, "layers_mid_block": 0, "widths": (8, 8, 8, 8)}
CHANGED: Mapping[str, Arguments] = {
    "dense_vae": {
        "embed_dim": 8,
        "model_channels_encoder": (8, 8, 16),
        "model_channels_decoder": (16, 8, 8),
        **dict.fromkeys(("num_res_blocks_encoder", "num_res_blocks_decoder"), 1),
        **dict.fromkeys(("num_res_blocks_middle_encoder", "num_res_blocks_middle_decoder"), 1),
    },
    "dense_flow": {
        "resolution": COARSE // 4,
        "model_channels": 32,
        "cond_channels": COND,
        "num_blocks": 2,
        "num_heads": 2,
    },
    "sparse_vae_512": {**SPARSE_VAE, "resolution": COARSE},
    "sparse_vae_1024": {**SPARSE_VAE, "resolution": 2 * COARSE, "chunk_size": 2},
    "sparse_flow_512": {**SPARSE_DIT, "resolution": COARSE},
    "sparse_flow_1024": {**SPARSE_DIT, "resolution": 2 * COARSE},
    "refiner": {**UNET, "patch_size": 16, "resolution": COARSE * EDGE, "feature_channels": 4},
    "sign_refiner": {**UNET, "patch_size": 16, "resolution": COARSE * EDGE},
}
SAMPLERS = {
    "dense": Sampler(STEPS, 7.0, 6.0),
    "sparse_512": Sampler(STEPS, 7.0, 6.0),
    "sparse_1024": Sampler(STEPS - 1, 7.0, 8.0),
}


def tiny_release(version: str) -> Release:
    """The release with its own attention, block sizes and files, and narrow networks."""
    release = RELEASES[version]
    networks = {
        name: replace(source, arguments={**source.arguments, **CHANGED[name]})
        for name, source in release.networks.items()
    }
    return replace(release, networks=networks, samplers=SAMPLERS)


def checkpoints(release: Release, seed: int = 0) -> dict[str, dict[str, dict[str, Tensor]]]:
    """What the official files hold: by stem, by network, the fp16 state dict."""
    torch.manual_seed(seed)
    files: dict[str, dict[str, dict[str, Tensor]]] = {}
    for source in release.networks.values():
        network = halve(_random(build(source.class_name, source.arguments)), torch.float16)
        files.setdefault(source.file, {})[source.prefix] = network.state_dict()
    return files


def write_safetensors(release: Release, folder: Path) -> None:
    """`folder` as the entry of this release, converted."""
    place = folder / release.folder
    place.mkdir(parents=True)
    for stem, networks in checkpoints(release).items():
        save_file(
            {f"{n}.{name}": t for n, state in networks.items() for name, t in state.items()},
            place / f"{stem}.safetensors",
        )


def write_pickles(release: Release, folder: Path) -> None:
    """The same as published."""
    place = folder / release.folder
    place.mkdir(parents=True)
    for stem, networks in checkpoints(release).items():
        torch.save(networks, place / f"{stem}.ckpt")


def _random(network: nn.Module) -> nn.Module:
    """Every matrix keeps the size of what passes through it; norms and biases nearly neutral."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("kernel"):
                parameter.normal_(std=(parameter.numel() / parameter.shape[-1]) ** -0.5)
            elif parameter.dim() >= 2:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif name.endswith(("gamma", "weight")):
                parameter.normal_(1, 0.1)
            else:
                parameter.normal_(std=0.1)
    return network.eval()


class Everywhere(nn.Module):
    """In the place of the dense decoder: every cell holds a token."""

    def forward(self, latent: Tensor) -> Tensor:
        return latent.new_ones(1, 1, COARSE, COARSE, COARSE)


class Egg(nn.Module):
    """In the place of a sparse decoder: an egg that stands upright, where there are cells."""

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution
        self.out_resolution = resolution * EDGE

    def forward(self, latent: SparseTensor, head: object = None) -> Decoded:
        cells = latent.coords[:, 1:]
        empty = torch.zeros(len(cells), 1, EDGE, EDGE, EDGE, device=cells.device)
        places = Blocks(cells, empty, self.out_resolution).voxels()
        sdf = (STEEP * egg(places, self.out_resolution)).clamp(-1, 1)
        decoded = Blocks(cells, sdf.view_as(empty), self.out_resolution)
        return Decoded(decoded, decoded)


def egg(places: Tensor, resolution: int) -> Tensor:
    """int [..., 3] of a grid -> nearly the distance to the egg, in units of the grid."""
    x, y, z = (places / resolution - 0.5).unbind(-1)
    up = y / TALL
    across = torch.sqrt(x**2 + z**2) / (WIDE * (1 - 0.25 * up))
    return WIDE * (torch.sqrt(across**2 + up**2) - 1)


class Sides(nn.Module):
    """In the place of the refiner of signs: inside and outside of the egg."""

    def forward(self, sdf: Blocks, on_patch: object) -> Tensor:
        side = sdf.resolution // 2
        ticks = torch.arange(side, device=sdf.cells.device)
        places = torch.stack(torch.meshgrid(ticks, ticks, ticks, indexing="ij"), dim=-1)
        on_patch(1, 1)
        return egg(places, side).sign().to(torch.int8)


class PassThrough(nn.Module):
    """In the place of the refiner: the distances as they are, as a dense grid."""

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.resolution = resolution

    def head(self, features: Tensor) -> Tensor:
        return features

    def forward(self, decoded: Decoded, on_patch: object) -> Tensor:
        sdf = decoded.sdf
        grid = sdf.patch((0, 0, 0), sdf.side, sdf.values.new_ones(1))
        assert grid is not None
        on_patch(1, 1)
        return grid[0]


def with_eggs(generator: Generator) -> Generator:
    """The same, but what decodes a surface always decodes an egg."""
    refined = generator.networks.sign_refiner is not None
    networks = replace(
        generator.networks,
        dense_vae=Everywhere(),
        sparse_vae_512=Egg(COARSE),
        refiner=PassThrough(COARSE * EDGE),
        sparse_vae_1024=Egg(2 * COARSE),
        sign_refiner=Sides() if refined else None,
    )
    return replace(generator, networks=networks)
