"""Convolutions of dense features, laid out in memory as the matrix units of a GPU take them.

There the channels of a voxel lie beside each other (`torch.channels_last_3d`): cuDNN's fast kernels
want it so, and turn any other layout round before and after each convolution, which takes a quarter
of a U-Net's time. They also want channels in eights, and without are ten times as slow.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

EIGHT = 8
LAYOUT = torch.channels_last_3d


def laid_out(x: Tensor) -> Tensor:
    """[B, C, X, Y, Z], a voxel's channels beside each other on a GPU; elsewhere as it is."""
    return x.contiguous(memory_format=LAYOUT) if x.is_cuda else x


class Conv3d(nn.Conv3d):
    """As PyTorch's; on a GPU channels are filled up to eights with zeros, and cut off again."""

    def forward(self, x: Tensor) -> Tensor:  # [B, C, X, Y, Z] -> [B, C', X, Y, Z]
        return self._convolved(x, self.bias)

    def without_bias(self, x: Tensor) -> Tensor:
        """For who adds the bias with something else, in one pass."""
        return self._convolved(x, None)

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if not x.is_cuda:
            plain: Tensor = self._conv_forward(x, self.weight, bias)
            return plain
        weight, channels = self.weight, self.out_channels
        more, missing = -channels % EIGHT, -self.in_channels % EIGHT
        if missing or more:
            weight = F.pad(weight, (0,) * 6 + (0, missing, 0, more))
            bias = None if bias is None else F.pad(bias, (0, more))
        if missing:
            wide = x.new_zeros(x.shape[0], *x.shape[2:], self.in_channels + missing)
            wide = wide.movedim(-1, 1)
            wide[:, : self.in_channels] = x
            x = wide
        out: Tensor = self._conv_forward(laid_out(x), weight, bias)
        return out[:, :channels]
