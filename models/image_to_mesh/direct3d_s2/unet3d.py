"""A dense 3-D U-Net with the official parameter names: what both refiners are made of.

It knows cubes of features, not what they mean, and no gradients: it is for inference. After
Ronneberger et al., U-Net, 2015, with the residual blocks and the layout of diffusers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from models.image_to_mesh.direct3d_s2.conv3d import Conv3d, channels_last_on_gpu
from models.image_to_mesh.direct3d_s2.group_norm import GroupNormSiLU
from models.nn.fused.functional import ours_compute

EPS = 1e-5


class UNet3d(nn.Module):
    """[B, in_channels, S, S, S] -> [B, widths[0], S, S, S]; S a multiple of two to the levels - 1.

    layers: residual blocks a level on the way down; one more on the way up.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],  # of each level, fine to coarse
        layers: int,
        layers_middle: int,
        groups: int = 4,
    ) -> None:
        super().__init__()
        self.conv_in = Conv3d(in_channels, widths[0], 3, padding=1)
        below = [widths[0], *widths[:-1]]  # what comes into each level from the finer one
        self.down_blocks = nn.ModuleList(
            _Down(source, width, layers, groups, last=level == len(widths) - 1)
            for level, (source, width) in enumerate(zip(below, widths, strict=True))
        )
        self.mid_block = _Middle(widths[-1], layers_middle, groups)
        above = [*widths[1:], widths[-1]]  # what comes into each level from the coarser one
        self.up_blocks = nn.ModuleList(
            _Up(coarse, width, source, layers + 1, groups, last=level == 0)
            for level, (coarse, width, source) in reversed(
                list(enumerate(zip(above, widths, below, strict=True)))
            )
        )
        self.conv_norm_out = GroupNormSiLU(groups, widths[0], eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        skips = [x]
        for down in self.down_blocks:
            x = down(x, skips)
        x = self.mid_block(x)
        for up in self.up_blocks:
            x = up(x, skips)
        out: Tensor = self.conv_norm_out(x)
        return out


class _Residual(nn.Module):
    """norm - SiLU - convolution, twice, beside a skip."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = GroupNormSiLU(groups, channels, eps=EPS)
        self.conv1 = Conv3d(channels, out_channels, 3, padding=1)
        self.norm2 = GroupNormSiLU(groups, out_channels, eps=EPS)
        self.conv2 = Conv3d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut: Conv3d | None = None
        if channels != out_channels:
            self.conv_shortcut = Conv3d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1.without_bias(self.norm1(x))
        h = self.conv2.without_bias(self.norm2(h, self.conv1.bias))
        bias = cast(Tensor, self.conv2.bias)
        if self.conv_shortcut is not None:
            x = self.conv_shortcut.without_bias(x)
            bias = bias + cast(Tensor, self.conv_shortcut.bias)
        return summed(h, x, bias)


def summed(h: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
    """[B, C, X, Y, Z], the same and [C]; may overwrite the first. Rounded once."""
    if ours_compute(h):
        return launch(channels_last_on_gpu(h), channels_last_on_gpu(skip), bias)
    return plain_sum(h, skip, bias)


def plain_sum(h: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
    return h.float().add_(skip).add_(bias.view(-1, 1, 1, 1)).to(h.dtype)


BLOCK = 1024


def launch(h: Tensor, skip: Tensor, bias: Tensor) -> Tensor:
    """The same by our kernel, in one pass; both are channels last."""
    from models.image_to_mesh.direct3d_s2.unet3d_triton import add_skip

    numbers = h.numel()
    with torch.cuda.device_of(h):
        add_skip[(-(-numbers // BLOCK),)](
            h, skip, bias, numbers, C=h.shape[1], BLOCK=BLOCK, num_warps=4
        )
    return h


class _Halved(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv3d(channels, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class _Doubled(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose3d(channels, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class _Down(nn.Module):
    def __init__(
        self, channels: int, out_channels: int, layers: int, groups: int, *, last: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            _Residual(out_channels if i else channels, out_channels, groups) for i in range(layers)
        )
        self.downsamplers = nn.ModuleList([] if last else [_Halved(out_channels)])

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
            skips.append(x)
        return x


class _Middle(nn.Module):
    def __init__(self, channels: int, layers: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            _Residual(channels, channels, groups) for _ in range(layers + 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.resnets:
            x = layer(x)
        return x


class _Up(nn.Module):
    """coarse: channels that come from below; source: of the oldest skip, the others are wide."""

    def __init__(
        self, coarse: int, width: int, source: int, layers: int, groups: int, *, last: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            _Residual(
                (width if i else coarse) + (source if i == layers - 1 else width), width, groups
            )
            for i in range(layers)
        )
        self.upsamplers = nn.ModuleList([] if last else [_Doubled(width)])

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        for layer in self.resnets:
            x = layer(torch.cat((x, skips.pop()), dim=1))
        for layer in self.upsamplers:
            x = layer(x)
        return x
