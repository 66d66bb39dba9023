"""Smoothing by a kernel of 3^3 that a small network predicts at every voxel.

It knows cubes of features and no patch. The kernel's weights add up to one in absolute value, and
it is applied three times.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.nn.fused.functional import ours_compute

ROUNDS = 3


def adaptive_kernel(channels: int) -> nn.Sequential:
    """[B, channels, S, S, S] -> 27 weights of each voxel's neighbours, z fastest."""
    return nn.Sequential(
        nn.Conv3d(channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(channels, 27, 3, padding=1, bias=False),
    )


def adaptive_block(
    x: Tensor,  # [B, C, X, Y, Z]
    kernel: nn.Module,
    guide: Tensor | None = None,  # [B, C', X, Y, Z], what the kernel is predicted from; default x
) -> Tensor:  # as x
    weights = F.normalize(kernel(x if guide is None else guide), p=1, dim=1)
    for _ in range(ROUNDS):
        x = _smoothed(x, weights)
    return x


def _smoothed(x: Tensor, weights: Tensor) -> Tensor:
    """Each voxel's neighbourhood weighed by its own 27 numbers; zeros beyond the border."""
    if ours_compute(x):
        return launch(x.contiguous(), weights.contiguous())
    return smoothed_by_taps(x, weights)


def smoothed_by_taps(x: Tensor, weights: Tensor) -> Tensor:
    """[B, C, X, Y, Z], [B, 27, X, Y, Z] -> [B, C, X, Y, Z], one neighbour after the other."""
    around = F.pad(x, (1,) * 6)
    extent = x.shape[2:]
    out = torch.zeros_like(x)
    for tap, start in enumerate(product(range(3), repeat=3)):
        i, j, k = (slice(low, low + size) for low, size in zip(start, extent, strict=True))
        out.addcmul_(around[:, :, i, j, k], weights[:, tap, None])
    return out


BLOCK = 256
"""Voxels of a program: eight channels of them are 16 numbers a thread."""


def launch(x: Tensor, weights: Tensor) -> Tensor:
    """The same by our kernel, all neighbours at once; both contiguous."""
    from models.image_to_mesh.direct3d_s2.adaptive_triton import smooth

    items, channels, *extent = x.shape
    out = torch.empty_like(x)
    voxels = extent[0] * extent[1] * extent[2]
    grid = (-(-voxels // BLOCK), items)
    padded = 1 << (channels - 1).bit_length()
    with torch.cuda.device_of(x):
        smooth[grid](x, weights, out, channels, *extent, BLOCK=BLOCK, CHANNELS=padded, num_warps=4)
    return out
