"""The parts of BiRefNet's decoder: convolutions around a pyramid of deformable kernels.

Parameters carry the names of the release. It knows neither scales nor how the parts are joined.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.image_to_mesh.preprocess.birefnet.deformable import DeformableConv2d

KERNELS = (1, 3, 7)


class DecoderBlock(nn.Module):
    """Into `inner` channels, through the deformable pyramid, out into `out_width`."""

    def __init__(self, width: int, out_width: int, inner: int, branch: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(width, inner, 3, padding=1)
        self.bn_in = nn.BatchNorm2d(inner)
        self.dec_att = DeformablePyramid(inner, branch)
        self.conv_out = nn.Conv2d(inner, out_width, 3, padding=1)
        self.bn_out = nn.BatchNorm2d(out_width)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, D, H, W]
        x = self.dec_att(self.bn_in(self.conv_in(x)).relu_())
        out: Tensor = self.bn_out(self.conv_out(x))
        return out


class DeformablePyramid(nn.Module):
    """Atrous spatial pyramid pooling (arXiv 1706.05587) with deformable kernels of 1, 1, 3 and 7
    pixels in place of the dilated ones, and the mean of the whole beside them."""

    def __init__(self, width: int, branch: int) -> None:
        super().__init__()
        self.aspp1 = DeformableBranch(width, branch, 1)
        self.aspp_deforms = nn.ModuleList(DeformableBranch(width, branch, side) for side in KERNELS)
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, branch, 1, bias=False),
            nn.BatchNorm2d(branch),
            nn.ReLU(),
        )
        self.conv1 = nn.Conv2d(branch * (2 + len(KERNELS)), width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W], of the same shape after
        seen = [self.aspp1(x), *(branch(x) for branch in self.aspp_deforms)]
        seen.append(self.global_avg_pool(x).expand_as(seen[0]))
        out: Tensor = self.bn1(self.conv1(torch.cat(seen, dim=1))).relu_()
        return out


class DeformableBranch(nn.Module):
    def __init__(self, width: int, branch: int, side: int) -> None:
        super().__init__()
        self.atrous_conv = DeformableConv2d(width, branch, side)
        self.bn = nn.BatchNorm2d(branch)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.atrous_conv(x)).relu_()
        return out


class ImageBlock(nn.Module):
    """Pixels of the image itself, brought to the decoder's width: two convolutions in a row."""

    def __init__(self, width: int, out_width: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1)
        self.conv_out = nn.Conv2d(inner, out_width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_out(self.conv1(x))
        return out


class LateralBlock(nn.Module):
    """Features of the backbone, brought to the decoder's width."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out
