"""Group norm and SiLU: what stands before every convolution of the refiners' U-Nets.

It knows dense features [B, C, X, Y, Z], no U-Net. A group of a patch is millions of numbers, and
PyTorch gives each to a single block of the GPU, which takes twenty times as long.
"""

from __future__ import annotations

from math import gcd

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.nn.fused.functional import ours_compute


class GroupNormSiLU(nn.GroupNorm):
    """In fp32; the result has the dtype of the input."""

    def forward(self, x: Tensor) -> Tensor:  # [B, C, X, Y, Z]
        if ours_compute(x):
            return launch(x.contiguous(), self.num_groups, self.weight, self.bias, self.eps)
        return plain(x, self.num_groups, self.weight, self.bias, self.eps)


def plain(
    x: Tensor,  # [B, C, X, Y, Z]
    groups: int,
    weight: Tensor,  # fp32 [C]
    bias: Tensor,  # fp32 [C]
    eps: float,
) -> Tensor:  # as x
    """Group by group, and moments by parts."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    width = x.shape[1] // groups
    for item, normed in zip(x, out, strict=True):
        for start in range(0, x.shape[1], width):
            group = slice(start, start + width)
            values = item[group].float()
            mean, variance = moments(values)
            scale = weight[group] * torch.rsqrt(variance + eps)
            shift = bias[group] - mean * scale
            column = (-1, 1, 1, 1)
            normed[group] = torch.addcmul(shift.view(column), values, scale.view(column))
    return F.silu(out, inplace=True)


PARTS = 1024


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of all numbers, from those of up to PARTS equal parts: both []."""
    parts = gcd(values.numel(), PARTS)
    variance, mean = torch.var_mean(values.reshape(parts, -1), dim=1, correction=0)
    return mean.mean(), variance.mean() + mean.var(correction=0)


BLOCK = 4096
"""Numbers that a program has at a time, 32 a thread."""
PROGRAMS = 256
"""For a group, and then for a channel, at most: four groups of them fill a GPU."""


def launch(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The same by our kernels, which read `x` twice; all contiguous."""
    from models.image_to_mesh.direct3d_s2.group_norm_triton import norm_silu, part_moments

    items, channels, voxels = x.shape[0], x.shape[1], x[0, 0].numel()
    width = channels // groups
    numbers = width * voxels
    parts, steps = _shared_out(numbers)
    means, squares = x.new_empty(2, items * groups, parts, dtype=torch.float32)
    out, span = torch.empty_like(x), steps * BLOCK
    programs, blocks = _shared_out(voxels)
    with torch.cuda.device_of(x):
        part_moments[parts, items * groups](
            x, means, squares, numbers, steps, BLOCK=BLOCK, num_warps=4
        )
        norm_silu[programs, items * channels](
            *(x, means, squares, weight, bias, out),
            *(channels, width, voxels, parts, span, blocks, eps),
            BLOCK=BLOCK,
            PARTS=PROGRAMS,
            num_warps=4,
        )
    return out


def _shared_out(numbers: int) -> tuple[int, int]:
    """Programs, and blocks of each: none has nothing to do."""
    steps = -(-numbers // (BLOCK * PROGRAMS))
    return -(-numbers // (BLOCK * steps)), steps
