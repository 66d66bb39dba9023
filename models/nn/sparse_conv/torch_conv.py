"""Sparse convolution in plain PyTorch: the reference, on CPU and any GPU.

It does not know where the kernel map came from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.nn.sparse_conv.kernel_map import KernelMap


def convolve(
    feats: Tensor,  # [N_in, Cin]
    weight: Tensor,  # [Cout, KX, KY, KZ, Cin]
    bias: Tensor | None,  # [Cout]
    kernel_map: KernelMap,
) -> Tensor:  # [N_out, Cout]
    """Gather, multiply and add, one weight offset after the other."""
    out = feats.new_zeros((kernel_map.n_out, weight.shape[0]), dtype=torch.float32)
    if bias is not None:
        out += bias
    matrices = weight.flatten(1, 3).unbind(1)
    for matrix, rows in zip(matrices, kernel_map.neighbours.unbind(0), strict=True):
        there = torch.nonzero(rows >= 0).squeeze(1)
        out.index_add_(0, there, (feats[rows[there].long()] @ matrix.T).float())
    return out.to(feats.dtype)
