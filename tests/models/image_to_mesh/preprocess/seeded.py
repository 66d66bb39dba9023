"""Weights from their names: the same everywhere, so that a parity file need not store them."""

from __future__ import annotations

import zlib
from typing import TypeVar

import numpy as np
import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


def seeded(network: N) -> N:
    """Fill parameters and statistics in place, each from a generator seeded with its name's CRC.

    Norms lie near 1, their variances in 0.5 to 1.5; matrices keep a signal's size; offsets of
    deformable kernels come out at a pixel or two. RandomState's stream is frozen by numpy.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tensor.shape)
            tensor.copy_(_scaled(name, torch.from_numpy(np.asarray(values))))
    return network.eval().requires_grad_(False)


def _scaled(name: str, normal: torch.Tensor) -> torch.Tensor:
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return 0.5 + normal.abs().clamp(max=1)
    if leaf == "weight" and normal.ndim == 1:
        return 1 + 0.1 * normal
    if leaf == "relative_position_bias_table":
        return 0.5 * normal
    if leaf == "weight":
        return 1.4 * normal / normal[0].numel() ** 0.5
    return 0.1 * normal
