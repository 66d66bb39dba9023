"""From folders of weights to a generator on a device.

It knows where a release keeps what; not how the folders came there (`models.weights`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.image_to_mesh.trellis.generator import Generator, Networks
from models.image_to_mesh.trellis.networks import build
from models.image_to_mesh.trellis.release import NetworkFile, Release, ReleaseUnfit
from models.nn.dinov2 import DinoV2, DinoV2Config, official_names
from models.nn.precision import TORSO, to_half
from models.nn.residency import Residency
from models.nn.weights import load_weights, on_meta

DINOV2_KEYS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "embed_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_ratio": "mlp_ratio",
    "num_register_tokens": "num_register_tokens",
}
"""Fields of our configuration, and of the `config.json` on the hub."""


def load_generator(
    release: Release,
    image_folder: Path,  # DINOv2: config.json, model.safetensors
    residency: Residency,
    dtype: torch.dtype,  # of the torsos
) -> Generator:
    """Every network with its weights; on the device, or in memory where they are off-loaded.

    Raises Unavailable where a file is missing, damaged, or not the network it should be.
    """
    home = torch.device("cpu") if residency.offload else residency.device
    loaded: dict[str, Any] = {
        name: load_network(file, home, dtype) for name, file in release.networks.items()
    }
    networks = Networks(image=load_dinov2(image_folder, home), **loaded)
    return Generator(networks, release.latent_mean, release.latent_std, residency)


def load_network(
    file: NetworkFile,
    device: torch.device,
    dtype: torch.dtype,
    build: Callable[[str, Mapping[str, Any]], nn.Module] = build,
    torso: Collection[str] = TORSO,
) -> nn.Module:
    """build: from the official class and its arguments. torso: what of it runs in `dtype`."""
    try:
        network = on_meta(partial(build, file.class_name, file.args))
    except (ValueError, TypeError, KeyError) as error:
        raise ReleaseUnfit(f"{file.weights.stem}: {error}") from error
    return load_weights(to_half(network, dtype, torso), file.weights, device)


def load_dinov2(folder: Path, device: torch.device) -> DinoV2:
    """In fp32, as the pipeline was trained with it."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        ours = DinoV2Config(**{key: int(config[name]) for key, name in DINOV2_KEYS.items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseUnfit(f"{path} does not describe DINOv2: {error!r}.") from error
    network = on_meta(partial(DinoV2, ours))
    return load_weights(network, folder / "model.safetensors", device, rename=official_names)
