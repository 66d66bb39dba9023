"""What the two releases say of themselves: files, networks, schedules.

Literal, as their `config.yaml` has it at the commit the catalogue names; it opens no file. A tensor
of another shape than these arguments give is refused when the weights are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Sampler:
    """steps: Euler steps; guidance: 1 is none; shift: above 1, more of the steps lie near the
    noise."""

    steps: int
    guidance: float
    shift: float


@dataclass(frozen=True)
class NetworkSource:
    """class_name, arguments: of the network. file: stem of its weights. prefix: of their names."""

    class_name: str
    arguments: Arguments
    file: str
    prefix: str


@dataclass(frozen=True)
class Release:
    """entry: in the catalogue of weights. folder: inside of it.

    sign_refiner is the one part a release may lack: without it what has no value is outside.
    surface_level: distance at which the final surface lies; the refined 512^3 field is read at
    twice that.
    """

    version: str
    entry: str
    folder: str
    networks: Mapping[str, NetworkSource]
    samplers: Mapping[str, Sampler] = field(
        default_factory=lambda: {
            "dense": Sampler(50, 7.0, 6.0),
            "sparse_512": Sampler(30, 7.0, 6.0),
            "sparse_1024": Sampler(15, 7.0, 8.0),
        }
    )
    surface_level: float = 0.2


DENSE_VAE: Arguments = {
    "embed_dim": 8,
    "model_channels_encoder": (32, 128, 512),
    "num_res_blocks_encoder": 2,
    "num_res_blocks_middle_encoder": 2,
    "model_channels_decoder": (512, 128, 64),
    "num_res_blocks_decoder": 4,
    "num_res_blocks_middle_decoder": 4,
}
DENSE_DIT: Arguments = {
    "resolution": 16,
    "in_channels": 8,
    "out_channels": 8,
    "model_channels": 1024,
    "cond_channels": 1024,
    "num_blocks": 24,
    "num_heads": 16,
    "mlp_ratio": 4,
    "patch_size": 1,
    "qk_rms_norm": True,
}
SPARSE_VAE: Arguments = {
    "embed_dim": 16,
    "model_channels_encoder": 512,
    "num_heads_encoder": 8,
    "num_blocks_encoder": 4,
    "model_channels_decoder": 512,
    "num_heads_decoder": 8,
    "num_blocks_decoder": 4,
}
SPARSE_DIT: Arguments = {
    "in_channels": 16,
    "out_channels": 16,
    "model_channels": 1024,
    "cond_channels": 1024,
    "num_blocks": 24,
    "num_heads": 32,
    "num_kv_heads": 2,
    "selection_block_size": 8,
    "qk_rms_norm": True,
}
V1_0: Arguments = {
    "compression_block_size": 4,
    "compression_version": "v2",
    "sparse_conditions": True,
}
V1_1: Arguments = {
    "compression_block_size": 8,
    "compression_version": "v1",
    "sparse_conditions": False,
}
REFINER: Arguments = {"layers_per_block": 2, "layers_mid_block": 2}


def _release(version: str, attention: Arguments, top_k: tuple[int, int]) -> Release:
    coarse = {"resolution": 64, "factor": 1.0, "topk": top_k[0]}
    fine = {"resolution": 128, "factor": 0.5, "topk": top_k[1]}
    dashed = version.replace(".", "-")
    return Release(
        version,
        f"direct3d-s2-v{dashed}",
        f"direct3d-s2-v-{dashed}",
        {
            "dense_vae": NetworkSource("DenseShapeVAE", DENSE_VAE, "model_dense", "vae"),
            "dense_flow": NetworkSource("DenseDiT", DENSE_DIT, "model_dense", "dit"),
            "sparse_vae_512": NetworkSource(
                "SparseSDFVAE", {**SPARSE_VAE, "resolution": 64}, "model_sparse_512", "vae"
            ),
            "sparse_flow_512": NetworkSource(
                "SparseDiT", {**SPARSE_DIT, **attention, **coarse}, "model_sparse_512", "dit"
            ),
            "sparse_vae_1024": NetworkSource(
                "SparseSDFVAE",
                {**SPARSE_VAE, "resolution": 128, "chunk_size": 4},
                "model_sparse_1024",
                "vae",
            ),
            "sparse_flow_1024": NetworkSource(
                "SparseDiT", {**SPARSE_DIT, **attention, **fine}, "model_sparse_1024", "dit"
            ),
            "refiner": NetworkSource(
                "Voxel_RefinerXL", {**REFINER, "patch_size": 192}, "model_refiner", "refiner"
            ),
            "sign_refiner": NetworkSource(
                "Voxel_RefinerXL_sign",
                {**REFINER, "patch_size": 256},
                "model_refiner_1024",
                "refiner",
            ),
        },
    )


RELEASES: Mapping[str, Release] = {
    "1.1": _release("1.1", V1_1, (8, 8)),
    "1.0": _release("1.0", V1_0, (32, 8)),
}
