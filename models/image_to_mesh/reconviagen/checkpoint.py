"""From folders of weights to ReconViaGen's generator on a device.

It knows where the release keeps what; not how the folders came there (`models.weights`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from models.image_to_mesh.reconviagen import latent_condition, structure_condition
from models.image_to_mesh.reconviagen.generator import Generator, Networks
from models.image_to_mesh.reconviagen.networks import build
from models.image_to_mesh.reconviagen.vggt.aggregator import AggregatorConfig
from models.image_to_mesh.reconviagen.vggt.network import VGGT_1B, Vggt, without_other_heads
from models.image_to_mesh.trellis import generator as trellis
from models.image_to_mesh.trellis.checkpoint import load_dinov2, load_network
from models.image_to_mesh.trellis.release import NETWORKS as TRELLIS_NETWORKS
from models.image_to_mesh.trellis.release import Release, ReleaseUnfit
from models.nn.dinov2 import DinoV2Config
from models.nn.precision import TORSO
from models.nn.residency import Residency
from models.nn.weights import load_weights, on_meta

TORSOS = (*TORSO, *structure_condition.TORSO, *latent_condition.TORSO)


@dataclass(frozen=True)
class Folders:
    """Each with config.json and model.safetensors. image: of DINOv2."""

    image: Path
    vggt: Path


def load_generator(
    release: Release,
    folders: Folders,
    residency: Residency,
    dtype: torch.dtype,  # of the torsos
    vggt: Callable[[], Vggt] | None = None,
) -> Generator:
    """Every network with its weights; on the device, or in memory where they are off-loaded.

    vggt: makes the network in place of what its configuration says.
    Raises Unavailable where a file is missing, damaged, or not the network it should be.
    """
    home = torch.device("cpu") if residency.offload else residency.device
    loaded: dict[str, Any] = {
        name: load_network(file, home, dtype, build, TORSOS)
        for name, file in release.networks.items()
    }
    of_trellis = {name: loaded.pop(name) for name in TRELLIS_NETWORKS}
    base = trellis.Generator(
        trellis.Networks(image=load_dinov2(folders.image, home), **of_trellis),
        release.latent_mean,
        release.latent_std,
        residency,
    )
    return Generator(base, Networks(vggt=load_vggt(folders.vggt, home, dtype, vggt), **loaded))


def load_vggt(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    make: Callable[[], Vggt] | None = None,
) -> Vggt:
    """The aggregator with its layers in `dtype`, the camera head in fp32."""
    network = on_meta(make or partial(Vggt, read_vggt_config(folder / "config.json"))).halve(dtype)
    return load_weights(network, folder / "model.safetensors", device, rename=without_other_heads)


def read_vggt_config(path: Path) -> AggregatorConfig:
    """What a release may say of a VGGT: three sizes, those of VGGT-1B where it is silent."""
    try:
        config = json.loads(path.read_bytes())
        side, patch, width = (
            int(config.get(key, getattr(VGGT_1B, key)))
            for key in ("img_size", "patch_size", "embed_dim")
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ReleaseUnfit(f"{path} does not describe VGGT: {error!r}.") from error
    vision = replace(DinoV2Config(), img_size=side, patch_size=patch, embed_dim=width)
    return replace(VGGT_1B, img_size=side, patch_size=patch, embed_dim=width, vision=vision)
