"""From folders of weights to ReconViaGen's generator on a device.

It knows where the release keeps what; not how the folders came there (`models.weights`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.image_to_mesh.reconviagen import latent_condition, structure_condition
from models.image_to_mesh.reconviagen.generator import Generator, Networks
from models.image_to_mesh.reconviagen.networks import build
from models.image_to_mesh.reconviagen.vggt.network import Vggt, without_other_heads
from models.image_to_mesh.trellis import generator as trellis
from models.image_to_mesh.trellis.checkpoint import load_dinov2, load_network
from models.image_to_mesh.trellis.release import NETWORKS as TRELLIS_NETWORKS
from models.image_to_mesh.trellis.release import Release
from models.nn.precision import TORSO
from models.nn.residency import Residency
from models.nn.weights import load_weights, on_meta

TORSOS = (*TORSO, *structure_condition.TORSO, *latent_condition.TORSO)


@dataclass(frozen=True)
class Folders:
    """image: DINOv2's config.json and model.safetensors. vggt: model.safetensors."""

    image: Path
    vggt: Path


def load_generator(
    release: Release,
    folders: Folders,
    residency: Residency,
    dtype: torch.dtype,  # of the torsos
    vggt: Callable[[], Vggt] = Vggt,
) -> Generator:
    """Every network with its weights; on the device, or in memory where they are off-loaded.

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
    folder: Path, device: torch.device, dtype: torch.dtype, empty: Callable[[], Vggt] = Vggt
) -> Vggt:
    """The aggregator with its layers in `dtype`, the camera head in fp32."""
    network = on_meta(empty).halve(dtype)
    return load_weights(network, folder / "model.safetensors", device, rename=without_other_heads)
