"""From folders of weights to a generator on a device.

It knows where a release keeps what; not how the folders came there (`models.weights`). Encoders are
not loaded: nothing here encodes.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from models.image_to_mesh.direct3d_s2.generator import Generator, Networks
from models.image_to_mesh.direct3d_s2.networks import build, halve
from models.image_to_mesh.direct3d_s2.release import NetworkSource, Release
from models.image_to_mesh.direct3d_s2.sparse_vae import SparseVae
from models.image_to_mesh.trellis.checkpoint import load_dinov2
from models.nn.residency import Residency
from models.nn.weights import load_weights, on_meta

OPTIONAL = "sign_refiner"
DECODED = ("dense_vae", "sparse_vae_512", "sparse_vae_1024")


def load_generator(
    release: Release,
    folder: Path,  # the entry's
    image_folder: Path,  # DINOv2: config.json, model.safetensors
    residency: Residency,
    dtype: torch.dtype,
) -> Generator:
    """Every network with its weights; on the device, or in memory where they are off-loaded.

    Raises Unavailable where a file is missing, damaged, or not the network it should be.
    """
    home = torch.device("cpu") if residency.offload else residency.device
    place = folder / release.folder
    loaded: dict[str, Any] = {
        name: _load(source, place, home, dtype, decoder=name in DECODED)
        for name, source in release.networks.items()
        if name != OPTIONAL or _path(source, place).is_file()
    }
    loaded.setdefault(OPTIONAL, None)
    return Generator(Networks(image=load_dinov2(image_folder, home), **loaded), release, residency)


def _load(
    source: NetworkSource, place: Path, device: torch.device, dtype: torch.dtype, *, decoder: bool
) -> nn.Module:
    network = halve(on_meta(partial(build, source.class_name, source.arguments)), dtype)
    prefix = f"{source.prefix}."
    if decoder:
        network, prefix = cast(SparseVae, network).decoder, f"{prefix}decoder."
    return load_weights(network, _path(source, place), device, prefix=prefix)


def _path(source: NetworkSource, place: Path) -> Path:
    return place / f"{source.file}.safetensors"
