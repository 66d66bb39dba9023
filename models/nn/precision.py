"""Half precision for the torso of a network: its linear and convolution layers, and nothing else.

It does not know the networks: a torso is told by the names its parts have in every checkpoint.
Norms, gains, embeddings, first and last layers stay in fp32, as the checkpoints store them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeVar

import torch
from torch import nn

from models.nn.backends import current_backends
from models.nn.sparse_conv import StoredConv3d

N = TypeVar("N", bound=nn.Module)

TORSO = ("blocks", "input_blocks", "middle_block", "out_blocks", "upsample")
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d, StoredConv3d)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
FIRST_WITH_BFLOAT16 = (8, 0)


def to_half(network: N, dtype: torch.dtype, torso: Collection[str] = TORSO) -> N:
    """Bring the torso's layers of `network` to `dtype` and all else to fp32, in place; returns it.

    torso: children of `network` that make it up; those it does not have are ignored.
    dtype: torch.float32 undoes it. One tensor at a time: the network is never held twice.
    """
    if dtype not in DTYPES:
        raise ValueError(f"a torso runs in float16, bfloat16 or float32, not in {dtype}")
    halved = set(torso_layers(network, torso))
    for module in network.modules():
        target = dtype if module in halved else torch.float32
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(target)
    return network


def torso_layers(network: nn.Module, torso: Collection[str] = TORSO) -> Iterator[nn.Module]:
    """The linear and convolution layers of the torso."""
    for name, child in network.named_children():
        if name in torso:
            yield from (layer for layer in child.modules() if isinstance(layer, LAYERS))


def torso_dtype(network: nn.Module, torso: Collection[str] = TORSO) -> torch.dtype:
    """What its torso computes in, told by the first layer there; fp32 where it has none."""
    for layer in torso_layers(network, torso):
        return next(layer.parameters()).dtype
    return torch.float32


def chosen_dtype(device: torch.device) -> torch.dtype:
    """What a torso shall run in on `device`: what `models.nn.backends` names, or the best there.

    "auto" is bf16 from compute capability 8.0, fp16 below (where bf16 is emulated), fp32 on a CPU.
    """
    asked = current_backends().dtype
    if asked != "auto":
        named: torch.dtype = getattr(torch, asked)
        return named
    if device.type != "cuda":
        return torch.float32
    modern = torch.cuda.get_device_capability(device) >= FIRST_WITH_BFLOAT16
    return torch.bfloat16 if modern else torch.float16
