"""What the flow of the structured latent is told: the tokens of each view, kept apart.

DINOv2's tokens take up one layer of VGGT after the other. It knows tokens alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.nn.precision import torso_dtype

LAYERS = 4
TORSO = ("linear_blocks",)


class LatentCondition(nn.Module):
    def __init__(self, channels: int, ctx_channels: int) -> None:
        super().__init__()
        self.linear_blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(ctx_channels, channels), nn.ReLU()) for _ in range(LAYERS)
        )

    def forward(
        self,
        layers: Sequence[Tensor],  # four of [n, M, 2C]: VGGT's tokens of n views
        tokens: Tensor,  # [n, M, C]: DINOv2's of the same
    ) -> Tensor:  # fp32 [n, M, channels]
        dtype = torso_dtype(self, TORSO)
        image = tokens.to(dtype)
        cond = image
        for block, layer in zip(self.linear_blocks, layers, strict=True):
            cond = block(torch.cat((layer.to(dtype), cond), dim=-1)) + image
        return cond.float()
