"""Group norm and SiLU: what stands before every convolution of the refiners' U-Nets.

It knows dense features [B, C, X, Y, Z], no U-Net and no gradients. A group of a patch is millions
of numbers, and PyTorch gives each to a single block of the GPU, which takes twenty times as long.
"""

from __future__ import annotations

from math import gcd, prod

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.image_to_mesh.direct3d_s2.conv3d import channels_last_on_gpu
from models.nn.fused.functional import ours_compute


class GroupNormSiLU(nn.GroupNorm):
    """In fp32; the result has the dtype of the input."""

    def forward(
        self,
        x: Tensor,  # [B, C, X, Y, Z]
        offset: Tensor | None = None,  # [C], added to x first
    ) -> Tensor:  # as x
        if ours_compute(x):
            return launch(
                channels_last_on_gpu(x), self.num_groups, self.weight, self.bias, self.eps, offset
            )
        return plain(x, self.num_groups, self.weight, self.bias, self.eps, offset)


def plain(
    x: Tensor,  # [B, C, X, Y, Z]
    groups: int,
    weight: Tensor,  # fp32 [C]
    bias: Tensor,  # fp32 [C]
    eps: float,
    offset: Tensor | None = None,  # [C]
) -> Tensor:  # as x
    """Group by group, and moments by parts."""
    column = (-1, 1, 1, 1)
    out = torch.empty_like(x)
    width = x.shape[1] // groups
    for item, normed in zip(x, out, strict=True):
        for start in range(0, x.shape[1], width):
            group = slice(start, start + width)
            values = item[group].float()
            if offset is not None:
                values = values + offset[group].float().view(column)
            mean, variance = moments(values)
            scale = weight[group] * torch.rsqrt(variance + eps)
            shift = bias[group] - mean * scale
            normed[group] = torch.addcmul(shift.view(column), values, scale.view(column))
    return F.silu(out, inplace=True)


AT_MOST = 1024


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of all numbers, from those of up to AT_MOST equal parts: both []."""
    parts = gcd(values.numel(), AT_MOST)
    variance, mean = torch.var_mean(values.reshape(parts, -1), dim=1, correction=0)
    return mean.mean(), variance.mean() + mean.var(correction=0)


BLOCK = 2048
"""Numbers that a program has at a time, 16 a thread."""
PROGRAMS = 1024
"""Of an item, at most: they fill a GPU."""


def launch(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    offset: Tensor | None = None,
) -> Tensor:
    """The same by our kernels, which read `x` twice; it is channels last."""
    from models.image_to_mesh.direct3d_s2.unet3d_triton import norm_silu, part_moments

    items, channels, *extent = x.shape
    voxels = prod(extent)
    tile = tile_of(channels, groups, offset=offset is not None)
    steps = -(-voxels // (tile["ROWS"] * PROGRAMS))
    span = steps * tile["ROWS"]
    parts = -(-voxels // span)
    means, squares = x.new_empty(2, items, groups, parts, dtype=torch.float32)
    out = torch.empty_like(x)
    add = weight if offset is None else offset  # where there is none, none is read
    with torch.cuda.device_of(x):
        part_moments[parts, items](x, add, means, squares, voxels, steps, **tile, num_warps=4)
        norm_silu[parts, items](
            *(x, add, means, squares, weight, bias, out),
            *(voxels, parts, span, steps, eps),
            **tile,
            PARTS=PROGRAMS,
            num_warps=4,
        )
    return out


def tile_of(channels: int, groups: int, *, offset: bool) -> dict[str, int]:
    """What the kernels are compiled for."""
    padded = 1 << (channels - 1).bit_length()
    return {
        "C": channels,
        "OFFSET": offset,
        "GROUPS": groups,
        "ROWS": max(BLOCK // padded, 1),
        "CHANNELS": padded,
    }
