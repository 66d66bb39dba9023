"""Sinusoidal embeddings: of a time step, and of a position on a grid.

They know no network. "Attention Is All You Need" (Vaswani et al. 2017), sec. 3.5; the two differ in
order and spacing as the checkpoints do: time is [cos, sin], a position [sin, cos] axis by axis.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

LONGEST_PERIOD = 10_000.0


def timestep_sinusoid(
    t: Tensor,  # [B], in thousandths: a flow's time times 1000
    width: int = 256,
) -> Tensor:  # fp32 [B, width]
    """[cos, sin] of t times `width / 2` frequencies from 1 down to nearly 1/10000."""
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t[:, None].float() * torch.exp(-math.log(LONGEST_PERIOD) * index / half)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimestepEmbedder(nn.Module):
    """Linear - SiLU - Linear of a time step's sinusoid: what modulates every block."""

    def __init__(self, channels: int, width: int = 256) -> None:
        super().__init__()
        self.width = width
        self.mlp = nn.Sequential(
            nn.Linear(width, channels), nn.SiLU(), nn.Linear(channels, channels)
        )

    def forward(self, t: Tensor) -> Tensor:  # [B], in thousandths -> [B, C]
        sinusoid = timestep_sinusoid(t, self.width).to(next(self.mlp.parameters()).dtype)
        embedding: Tensor = self.mlp(sinusoid)
        return embedding


def position_embedding(
    positions: Tensor,  # [N, A]: integer coordinates on A axes
    channels: int,
) -> Tensor:  # fp32 [N, channels]
    """[sin, cos] of each axis after the other; zeros fill up at the end what A does not divide."""
    axes = positions.shape[1]
    count = channels // axes // 2
    index = torch.arange(count, dtype=torch.float32, device=positions.device)
    angles = positions[..., None].float() / LONGEST_PERIOD ** (index / count)  # [N, A, count]
    waves = torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(1)
    return F.pad(waves, (0, channels - waves.shape[1]))


def grid_position_embedding(resolution: int, channels: int) -> Tensor:  # fp32 [R^3, channels]
    """Of all cells of a cube, x the slowest: the buffer `pos_emb` of the dense flows."""
    axis = torch.arange(resolution)
    cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return position_embedding(cells.reshape(-1, 3), channels)
