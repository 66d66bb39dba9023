"""Convolutions of dense features, laid out in memory as the matrix units of a GPU take them.

There the channels of a voxel lie beside each other (`torch.channels_last_3d`): cuDNN's fast kernels
want it so, and turn any other layout round before and after each convolution, which takes much of a
U-Net's time. They also want channels in eights: from or to a single one they take several times as
long as from or to eight. It knows no network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

CHANNEL_STEP = 8


def channels_last(x: Tensor) -> Tensor:
    """[B, C, X, Y, Z] with a voxel's channels beside each other."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def channels_last_on_gpu(x: Tensor) -> Tensor:
    """[B, C, X, Y, Z] as its device takes it best: on a GPU channels last, elsewhere as it is."""
    return channels_last(x) if x.is_cuda else x


class Conv3d(nn.Conv3d):
    """PyTorch's, of one group; on a GPU it takes any layout and gives channels last."""

    def forward(self, x: Tensor) -> Tensor:  # [B, C, X, Y, Z] -> [B, C', X, Y, Z]
        return self._convolved(x, self.bias)

    def without_bias(self, x: Tensor) -> Tensor:
        """For who adds the bias with something else, in one pass."""
        return self._convolved(x, None)

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if x.is_cuda:
            return self.by_eights(x, bias)
        out: Tensor = self._conv_forward(x, self.weight, bias)
        return out

    def by_eights(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The same with channels filled up to eights by zeros, and cut off again: a view."""
        weight, channels = self.weight, self.out_channels
        more, missing = -channels % CHANNEL_STEP, -self.in_channels % CHANNEL_STEP
        if missing or more:
            weight = F.pad(weight, (0,) * 6 + (0, missing, 0, more))
            bias = None if bias is None else F.pad(bias, (0, more))
        if missing:
            wide = x.new_zeros(x.shape[0], *x.shape[2:], self.in_channels + missing)
            wide = wide.movedim(-1, 1)
            wide[:, : self.in_channels] = x
            x = wide
        out: Tensor = self._conv_forward(channels_last(x), weight, bias)
        return channels_last(out)[:, :channels]  # PyTorch's own convolutions give another layout
