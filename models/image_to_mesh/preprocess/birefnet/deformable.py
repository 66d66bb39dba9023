"""Deformable convolution v2: each tap of the kernel looks where the features tell it to look.

Zhu et al., Deformable ConvNets v2, 2019 (arXiv 1811.11168), in plain PyTorch: a bilinear gather and
one matrix product. It knows nothing of images; offsets are in pixels of its own input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

GATHER_BYTES = 64 << 20
"""Sampled columns held at once. A 7x7 kernel repeats its input 49 times: whole, 400 MB in half
precision at BiRefNet's last level."""


def deform_conv2d(
    x: Tensor,  # [B, C, H, W]
    offset: Tensor,  # [B, 2 * K, H, W]: (dy, dx) of each tap, pixels
    modulation: Tensor,  # [B, K, H, W]: factor of each tap
    weight: Tensor,  # [D, C, k, k], k odd, K = k * k
    band: Callable[..., Tensor] | None = None,  # in place of `deform_band`
) -> Tensor:  # [B, D, H, W]
    """Modulated deformable convolution: stride 1, padding k // 2, no bias; outside is zero."""
    band = band or deform_band
    channels, height, width = x.shape[1:]
    taps = weight.shape[2] * weight.shape[3]
    kernel = weight.flatten(2).transpose(1, 2).flatten(1).T  # [K * C, D]
    rows_at_once = max(1, GATHER_BYTES // (taps * channels * width * x.element_size()))
    out = x.new_empty(len(x), height * width, len(weight))
    for b in range(len(x)):
        image = x[b].flatten(1).T.contiguous()  # [H * W, C]: a pixel's channels lie together
        for top in range(0, height, rows_at_once):
            rows = slice(top, min(top + rows_at_once, height))
            pixels = slice(rows.start * width, rows.stop * width)
            out[b, pixels] = band(
                image, offset[b, :, rows], modulation[b, :, rows], kernel, top, height
            )
    return out.transpose(1, 2).reshape(len(x), len(weight), height, width)


def deform_band(
    image: Tensor,  # [H * W, C]
    offset: Tensor,  # [2 * K, R, W] of R rows
    modulation: Tensor,  # [K, R, W]
    kernel: Tensor,  # [K * C, D]
    top: int,  # the first of the rows
    height: int,  # H
) -> Tensor:  # [R * W, D]
    """The convolution of a few rows."""
    side, width = math.isqrt(len(modulation)), offset.shape[2]
    y, x = _positions(offset, side, top)
    return _sample(image, y, x, modulation.flatten(1).T, height, width) @ kernel


class Band(nn.Module):
    """`deform_band` as a part of the network, without parameters: what runs before each of its
    parts (`models.nn.interruption`) runs before each band. On two cores of a busy machine the last
    kernel of 7x7 takes a sixth of the whole network's time, 20 s, in 13 of them."""

    def forward(self, *arguments: Any) -> Tensor:
        return deform_band(*arguments)


def _positions(offset: Tensor, side: int, top: int) -> tuple[Tensor, Tensor]:
    """Where each tap looks: offset [2 * K, R, W] of rows from `top` on -> y, x [R * W, K].

    In fp32 at least: in fp16 a column beyond 256 has no quarters of a pixel.
    """
    _, rows, width = offset.shape
    dtype, device = torch.promote_types(offset.dtype, torch.float32), offset.device
    moved = offset.to(dtype).unflatten(0, (side * side, 2)).permute(2, 3, 0, 1)  # [R, W, K, 2]
    tap = torch.arange(side, device=device, dtype=dtype) - side // 2
    row = torch.arange(top, top + rows, device=device, dtype=dtype)
    column = torch.arange(width, device=device, dtype=dtype)
    y = moved[..., 0] + tap.repeat_interleave(side) + row[:, None, None]
    x = moved[..., 1] + tap.repeat(side) + column[:, None]
    return y.flatten(0, 1), x.flatten(0, 1)


def _sample(
    image: Tensor,  # [H * W, C]
    y: Tensor,  # [P, K] pixels
    x: Tensor,  # [P, K] pixels
    modulation: Tensor,  # [P, K]
    height: int,
    width: int,
) -> Tensor:  # [P, K * C]
    """Bilinear samples times their factors; each corner outside the image counts as zero.

    A sample is a weighted sum of four pixels, which is what an embedding bag is: one pass, with no
    copy of the four corners.
    """
    # What lies far out, or is no number, looks just outside: an index must exist in any case.
    y = torch.nan_to_num(y, nan=-2.0).clamp(-2, height + 1)
    x = torch.nan_to_num(x, nan=-2.0).clamp(-2, width + 1)
    low_y, low_x = y.floor(), x.floor()
    corners_y = torch.stack((low_y, low_y, low_y + 1, low_y + 1), dim=-1)  # [P, K, 4]
    corners_x = torch.stack((low_x, low_x + 1, low_x, low_x + 1), dim=-1)
    shares = (1 - (y[..., None] - corners_y).abs()) * (1 - (x[..., None] - corners_x).abs())
    shares *= (corners_y >= 0) & (corners_y < height) & (corners_x >= 0) & (corners_x < width)
    shares *= modulation[..., None]
    index = corners_y.clamp_(0, height - 1).mul_(width).add_(corners_x.clamp_(0, width - 1))
    samples: Tensor = F.embedding_bag(
        index.int().flatten(0, 1),
        image,
        per_sample_weights=shares.to(image.dtype).flatten(0, 1),
        mode="sum",
    )
    return samples.view(len(y), -1)


class DeformableConv2d(nn.Module):
    """Offsets and factors by a convolution each, then the deformable one. Names as released."""

    def __init__(self, width: int, out_width: int, side: int) -> None:
        super().__init__()
        taps, padding = side * side, side // 2
        self.offset_conv = nn.Conv2d(width, 2 * taps, side, padding=padding)
        self.modulator_conv = nn.Conv2d(width, taps, side, padding=padding)
        self.regular_conv = nn.Conv2d(width, out_width, side, padding=padding, bias=False)
        self.band = Band()

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, D, H, W]
        return deform_conv2d(
            x,
            self.offset_conv(x),
            2 * torch.sigmoid(self.modulator_conv(x)),
            self.regular_conv.weight,
            self.band,
        )
