"""The decoder of the sparse structure: a latent grid becomes 64^3 logits of occupancy.

A plain 3-D convolutional network with the official parameter names; it knows no flow and no token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.nn.precision import torso_dtype


class SparseStructureDecoder(nn.Module):
    """[B, latent_channels, R, R, R] -> [B, out_channels, S, S, S]; each level but one doubles R."""

    def __init__(
        self,
        out_channels: int,
        latent_channels: int,
        num_res_blocks: int,
        channels: Sequence[int],  # of each level, coarse to fine
        num_res_blocks_middle: int = 2,
    ) -> None:
        super().__init__()
        self.latent_channels = latent_channels
        wide = channels[0]
        self.input_layer = nn.Conv3d(latent_channels, wide, 3, padding=1)
        self.middle_block = nn.Sequential(*(ResBlock(wide) for _ in range(num_res_blocks_middle)))
        blocks: list[nn.Module] = []
        for level, width in enumerate(channels):
            blocks += [ResBlock(width) for _ in range(num_res_blocks)]
            if level + 1 < len(channels):
                blocks.append(_Upsample(width, channels[level + 1]))
        self.blocks = nn.Sequential(*blocks)
        last = channels[-1]
        self.out_layer = nn.Sequential(
            ChannelNorm(last), nn.SiLU(), nn.Conv3d(last, out_channels, 3, padding=1)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Logits in the dtype of `z`; a voxel is occupied where they are positive."""
        h = self.input_layer(z).to(torso_dtype(self))
        h = self.blocks(self.middle_block(h))
        logits: Tensor = self.out_layer(h.to(z.dtype))
        return logits


def occupied(logits: Tensor) -> Tensor:
    """[B, 1, R, R, R] -> int32 [N, 4]: (b, x, y, z) of the voxels that exist, in order."""
    return (logits > 0).squeeze(1).nonzero().int()


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of [B, C, X, Y, Z], in fp32, eps 1e-5."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        h = super().forward(x.movedim(1, -1).float())
        return h.movedim(-1, 1).to(x.dtype)


class ResBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.norm2 = ChannelNorm(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = x + h
        return out


class _Upsample(nn.Module):
    """A convolution to eight times the channels, dealt out to the eight children of each voxel."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels * 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle_3d(self.conv(x))


def pixel_shuffle_3d(x: Tensor) -> Tensor:
    """[B, C * 8, X, Y, Z] -> [B, C, 2X, 2Y, 2Z]; of a channel's eight, z runs fastest."""
    b, _, *extent = x.shape
    children = x.reshape(b, -1, 2, 2, 2, *extent).permute(0, 1, 5, 2, 6, 3, 7, 4)  # b c X i Y j Z k
    return children.reshape(b, -1, *(2 * side for side in extent))
