"""A release of TRELLIS in miniature: the official layout and names, random weights, a few MB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from models.image_to_mesh.trellis.networks import build
from models.nn.dinov2 import DinoV2, DinoV2Config
from models.nn.precision import to_half

STEPS = 3
COND = 32  # channels of the tiny DINOv2
TRANSFORMER = {"num_blocks": 2, "num_heads": 2, "mlp_ratio": 2, "use_fp16": True}
FLOW = {**TRANSFORMER, "cond_channels": COND, "pe_mode": "ape", "qk_rms_norm": True}
DECODER = {**TRANSFORMER, "resolution": 8, "latent_channels": 8, "attn_mode": "swin"}
GAUSSIANS = {
    "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
    "perturb_offset": True,
    "voxel_size": 1.5,
    "num_gaussians": 4,
    "2d_filter_kernel_size": 0.1,
    "3d_filter_kernel_size": 0.0009,
    "scaling_bias": 0.004,
    "opacity_bias": 0.1,
    "scaling_activation": "softplus",
}
LATENT = {"in_channels": 8, "out_channels": 8, "model_channels": 32}

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "sparse_structure_flow_model": (
        "SparseStructureFlowModel",
        {**FLOW, **LATENT, "resolution": 2, "patch_size": 1},
    ),
    "sparse_structure_decoder": (
        "SparseStructureDecoder",
        {
            "out_channels": 1,
            "latent_channels": 8,
            "num_res_blocks": 1,
            "num_res_blocks_middle": 1,
            "channels": [16, 8, 8],
            "use_fp16": True,
        },
    ),
    "slat_flow_model": (
        "ElasticSLatFlowModel",
        {
            **FLOW,
            **LATENT,
            "resolution": 8,
            "patch_size": 2,
            "num_io_res_blocks": 2,
            "io_block_channels": [16],
        },
    ),
    "slat_decoder_mesh": (
        "ElasticSLatMeshDecoder",
        {
            **DECODER,
            "model_channels": 256,
            "window_size": 8,
            "representation_config": {"use_color": True},
        },
    ),
    "slat_decoder_gs": (
        "ElasticSLatGaussianDecoder",
        {**DECODER, "model_channels": 32, "window_size": 8, "representation_config": GAUSSIANS},
    ),
}
DINOV2 = {
    "image_size": 518,
    "patch_size": 14,
    "hidden_size": COND,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "num_register_tokens": 4,
}


def write_release(folder: Path, seed: int = 0) -> None:
    """`pipeline.json`, and the configuration and fp16 weights of every network."""
    torch.manual_seed(seed)
    (folder / "ckpts").mkdir(parents=True)
    sampler = {
        "name": "FlowEulerGuidanceIntervalSampler",
        "args": {"sigma_min": 1e-5},
        "params": {
            "steps": STEPS,
            "cfg_strength": 5.0,
            "cfg_interval": [0.5, 1.0],
            "rescale_t": 3.0,
        },
    }
    args = {
        "models": {name: f"ckpts/{name}_fp16" for name in NETWORKS},
        "sparse_structure_sampler": sampler,
        "slat_sampler": sampler,
        "slat_normalization": {"mean": [0.5] * 8, "std": [2.0] * 8},
        "image_cond_model": "dinov2_vitl14_reg",
    }
    _json(folder / "pipeline.json", {"name": "TrellisImageTo3DPipeline", "args": args})
    for name, (class_name, arguments) in NETWORKS.items():
        _json(folder / f"ckpts/{name}_fp16.json", {"name": class_name, "args": arguments})
        network = to_half(_random(build(class_name, arguments)), torch.float16)
        save_file(network.state_dict(), folder / f"ckpts/{name}_fp16.safetensors")


def write_dinov2(folder: Path, seed: int = 1, patch: int = 14) -> None:
    """As on the hub: `config.json`, and weights under the names of the transformers library."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    _json(folder / "config.json", DINOV2 | {"patch_size": patch})
    network = _random(DinoV2(DinoV2Config(518, patch, COND, 1, 2, 2, 4)))
    save_file(transformers_names(network), folder / "model.safetensors")


def transformers_names(network: DinoV2) -> dict[str, torch.Tensor]:
    """What `Dinov2WithRegistersModel.state_dict()` would hold."""
    fixed = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "register_tokens": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    renamed = {}
    for name, tensor in network.state_dict().items():
        if name in fixed:
            renamed[fixed[name]] = tensor
            continue
        _, index, *rest = name.split(".")
        layer, last = f"encoder.layer.{index}", ".".join(rest)
        if last.startswith("attn.qkv"):
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[f"{layer}.attention.attention.{part}.{rest[-1]}"] = third.contiguous()
        elif last.startswith("attn.proj"):
            renamed[f"{layer}.attention.output.dense.{rest[-1]}"] = tensor
        elif last.endswith("gamma"):
            renamed[f"{layer}.layer_scale{last[2]}.lambda1"] = tensor
        else:
            renamed[f"{layer}.{last}"] = tensor
    return renamed


def _random(network: nn.Module) -> nn.Module:
    """Every matrix keeps the size of what passes through it; norms and biases nearly neutral."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() >= 2 and "token" not in name:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif name.endswith(("gamma", "weight")):
                parameter.normal_(1, 0.1)
            else:
                parameter.normal_(std=0.1)
    return network.eval()


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))
