"""Smoothing by a kernel of 3^3 that a small network predicts at every voxel.

It knows cubes of features and no patch. The kernel's weights add up to one in absolute value, and
it is applied three times.
"""

from __future__ import annotations

from itertools import product
from math import prod

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.image_to_mesh.direct3d_s2.conv3d import Conv3d, channels_last, channels_last_on_gpu
from models.nn.fused.functional import ours_compute

ROUNDS = 3
TAPS = 27


def adaptive_kernel(channels: int) -> nn.Sequential:
    """[B, channels, S, S, S] -> 27 weights of each voxel's neighbours, z fastest."""
    return nn.Sequential(
        Conv3d(channels, channels, 3, padding=1),
        nn.ReLU(inplace=True),
        Conv3d(channels, TAPS, 3, padding=1, bias=False),
    )


def adaptive_block(
    x: Tensor,  # [B, C, X, Y, Z]
    kernel: nn.Module,
    guide: Tensor | None = None,  # [B, C', X, Y, Z], what the kernel is predicted from; default x
) -> Tensor:  # as x
    guide = x if guide is None else guide
    if ours_compute(x):
        return launch(channels_last_on_gpu(x), planes_of(kernel(guide)))
    return smoothed(x, kernel(guide))


def smoothed(x: Tensor, weights: Tensor) -> Tensor:
    """[B, C, X, Y, Z] by [B, 27, X, Y, Z], one neighbour after the other; zeros beyond the
    border."""
    least = torch.finfo(weights.dtype).tiny  # PyTorch's own, 1e-12, is 0 in fp16
    weights = F.normalize(weights, p=1, dim=1, eps=least)
    extent = x.shape[2:]
    for _ in range(ROUNDS):
        around = F.pad(x, (1,) * 6)
        x = torch.zeros_like(x)
        for tap, start in enumerate(product(range(3), repeat=3)):
            i, j, k = (slice(low, low + size) for low, size in zip(start, extent, strict=True))
            x.addcmul_(around[:, :, i, j, k], weights[:, tap, None])
    return x


BLOCK = 128
"""Voxels of a program."""


def planes_of(weights: Tensor) -> Tensor:
    """[B, 27, X, Y, Z], as `Conv3d` gives it -> the same normed by our kernel, plane by plane."""
    from models.image_to_mesh.direct3d_s2.adaptive_triton import normed_planes

    if weights.stride(1) != 1:
        weights = channels_last(weights)
    voxels = prod(weights.shape[2:])
    planes = torch.empty_like(weights, memory_format=torch.contiguous_format)
    row = weights.stride(-1)  # more than 27 where some were cut off
    with torch.cuda.device_of(weights):
        normed_planes[-(-voxels // BLOCK), len(weights)](
            weights, planes, voxels, STRIDE=row, BLOCK=BLOCK, num_warps=4
        )
    return planes


def launch(x: Tensor, planes: Tensor) -> Tensor:
    """`smoothed` by our kernel, all neighbours at once; `x` is channels last."""
    from models.image_to_mesh.direct3d_s2.adaptive_triton import smooth

    items, channels, *extent = x.shape
    grid = (-(-prod(extent) // BLOCK), items)
    padded = 1 << (channels - 1).bit_length()
    with torch.cuda.device_of(x):
        for _ in range(ROUNDS):
            out = torch.empty_like(x)
            smooth[grid](
                *(x, planes, out, *extent), C=channels, BLOCK=BLOCK, CHANNELS=padded, num_warps=4
            )
            x = out
    return x
