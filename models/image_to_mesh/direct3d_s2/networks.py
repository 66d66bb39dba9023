"""Networks as a release describes them: the official class name and its arguments.

It reads no file. Every layer is in half precision, first and last ones too, but the encoder of the
dense autoencoder, whose ends are not: the checkpoints store it so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from models.image_to_mesh.direct3d_s2.dense_vae import DenseVae
from models.image_to_mesh.direct3d_s2.refiner import Refiner
from models.image_to_mesh.direct3d_s2.sign_refiner import SignRefiner
from models.image_to_mesh.direct3d_s2.sparse_dit import SparseDiT
from models.image_to_mesh.direct3d_s2.sparse_vae import SparseVae
from models.image_to_mesh.trellis.ss_flow import SparseStructureFlow
from models.nn.backends import current_backends
from models.nn.precision import to_half

CLASSES: Mapping[str, Callable[..., nn.Module]] = {
    "DenseShapeVAE": DenseVae,
    "DenseDiT": SparseStructureFlow,
    "SparseSDFVAE": SparseVae,
    "SparseDiT": lambda **arguments: SparseDiT.from_config(arguments),
    "Voxel_RefinerXL": Refiner,
    "Voxel_RefinerXL_sign": SignRefiner,
}
"""The official class names; the dense flow is TRELLIS's."""


def build(class_name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network of this class with these arguments, its weights unset.

    Raises ValueError for a class that is not known.
    """
    if class_name not in CLASSES:
        raise ValueError(f"{class_name!r} is no network of Direct3D-S2: {', '.join(CLASSES)}.")
    return CLASSES[class_name](**arguments)


def halve(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Every layer in `dtype`, in place, but for norms and the ends of the dense encoder."""
    if isinstance(network, DenseVae):
        to_half(network.encoder, dtype)
        to_half(network.decoder, dtype, torso=_children(network.decoder))
        return network
    return to_half(network, dtype, torso=_children(network))


def _children(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_children()]


def chosen_dtype(device: torch.device) -> torch.dtype:
    """What `models.nn.backends` names; else fp16 on a GPU, as the networks were made, or fp32.

    Not bf16: fp16 weights lose three bits in it, and these networks have no layer in fp32 to mend.
    """
    asked = current_backends().dtype
    if asked != "auto":
        named: torch.dtype = getattr(torch, asked)
        return named
    return torch.float16 if device.type == "cuda" else torch.float32
