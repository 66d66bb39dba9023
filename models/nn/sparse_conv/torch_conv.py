"""Sparse convolution in plain PyTorch: the reference, on CPU and on any GPU.

It does not know where the kernel map came from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.nn.sparse_conv.kernel_map import KernelMap

_CPU_BYTES = 4 << 20  # what one step gathers and multiplies stays in the second-level cache
_GPU_BYTES = 256 << 20


def convolve(
    feats: Tensor,  # [N_in, Cin]
    weight: Tensor,  # [Cout, KX, KY, KZ, Cin]
    bias: Tensor | None,  # [Cout]
    kernel_map: KernelMap,
) -> Tensor:  # [N_out, Cout]
    """Gather, multiply, add: for a run of output rows, one weight offset after the other.

    The run is as long as keeps the memory in bounds. Sums are fp32 (fp64 for fp64); products of
    fp16 and bf16 are formed in fp32 on CPU, and rounded to the input's dtype on a GPU.
    """
    wide = torch.promote_types(feats.dtype, torch.float32)
    multiplied = wide if feats.device.type == "cpu" else feats.dtype
    matrices = weight.flatten(1, 3).permute(1, 2, 0).to(multiplied).contiguous()  # [V, Cin, Cout]
    out = feats.new_empty((kernel_map.n_out, weight.shape[0]))
    step = _rows_at_once(feats, weight.shape[0], wide)
    for start in range(0, len(out), step):
        found = kernel_map.neighbours[:, start : start + step]
        total = feats.new_zeros((found.shape[1], weight.shape[0]), dtype=wide)
        if bias is not None:
            total += bias
        for matrix, inputs in zip(matrices, found, strict=True):
            outputs = torch.nonzero(inputs >= 0).squeeze(1)
            met = feats.index_select(0, inputs.index_select(0, outputs))
            total.index_add_(0, outputs, (met.to(multiplied) @ matrix).to(wide))
        out[start : start + step] = total
    return out


def _rows_at_once(feats: Tensor, channels_out: int, wide: torch.dtype) -> int:
    available = _CPU_BYTES if feats.device.type == "cpu" else _GPU_BYTES
    return max(1024, available // (wide.itemsize * (feats.shape[1] + channels_out)))
