"""The autoencoder of the coarse shape: occupancy of 64^3 cells to a latent grid of 16^3, and back.

Plain 3-D convolutions with the official parameter names; its decoder is TRELLIS's, other widths
apart. It knows no flow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.image_to_mesh.trellis.ss_decoder import ChannelNorm, ResBlock, SparseStructureDecoder
from models.nn.precision import torso_dtype

OCCUPIED_FROM = 0.1
"""A cell whose occupancy is at least this holds a token: better one too many than a hole."""


class DenseVae(nn.Module):
    """occupancy [B, 1, 4R, 4R, 4R] <-> latent [B, embed_dim, R, R, R]."""

    def __init__(
        self,
        embed_dim: int,
        model_channels_encoder: Sequence[int],  # of each level, fine to coarse
        model_channels_decoder: Sequence[int],  # of each level, coarse to fine
        num_res_blocks_encoder: int = 2,
        num_res_blocks_middle_encoder: int = 2,
        num_res_blocks_decoder: int = 2,
        num_res_blocks_middle_decoder: int = 2,
    ) -> None:
        super().__init__()
        self.encoder = DenseEncoder(
            embed_dim,
            model_channels_encoder,
            num_res_blocks_encoder,
            num_res_blocks_middle_encoder,
        )
        self.decoder = SparseStructureDecoder(
            1,
            embed_dim,
            num_res_blocks_decoder,
            model_channels_decoder,
            num_res_blocks_middle_decoder,
        )

    def encode(self, occupancy: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1, 4R, 4R, 4R] of 0 and 1 -> mean and log-variance of the latent."""
        mean, log_variance = self.encoder(occupancy * 2 - 1).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, latent: Tensor) -> Tensor:
        """[B, embed_dim, R, R, R] -> logits of occupancy [B, 1, 4R, 4R, 4R]."""
        logits: Tensor = self.decoder(latent)
        return logits


class DenseEncoder(nn.Module):
    def __init__(
        self, embed_dim: int, channels: Sequence[int], num_res_blocks: int, num_middle: int
    ) -> None:
        super().__init__()
        self.input_layer = nn.Conv3d(1, channels[0], 3, padding=1)
        blocks: list[nn.Module] = []
        for level, width in enumerate(channels):
            blocks += [ResBlock(width) for _ in range(num_res_blocks)]
            if level + 1 < len(channels):
                blocks.append(_Halved(width, channels[level + 1]))
        self.blocks = nn.Sequential(*blocks)
        last = channels[-1]
        self.middle_block = nn.Sequential(*(ResBlock(last) for _ in range(num_middle)))
        self.out_layer = nn.Sequential(
            ChannelNorm(last), nn.SiLU(), nn.Conv3d(last, 2 * embed_dim, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:  # [B, 1, S, S, S] -> [B, 2 embed_dim, R, R, R]
        h = self.input_layer(x.to(self.input_layer.weight.dtype)).to(torso_dtype(self))
        h = self.middle_block(self.blocks(h))
        out: Tensor = self.out_layer(h.to(self.out_layer[2].weight.dtype))
        return out


class _Halved(nn.Module):
    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out_channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


def occupied(logits: Tensor) -> Tensor:
    """[B, 1, S, S, S] -> int32 [N, 4]: (b, x, y, z) of the cells that hold a token, in order."""
    occupancy = torch.sigmoid(logits.float())
    return (occupancy >= OCCUPIED_FROM).squeeze(1).nonzero().int()
