"""Rotary positions on a grid of patches: rows turn one half of each head, columns the other.

They know no network. Su et al., "RoFormer" (2021); in two dimensions as in Heo et al., "Rotary
Position Embedding for Vision Transformer" (2024), axis by axis, with 100 as the base.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BASE = 100.0


@dataclass(frozen=True)
class Rotation:
    """cos, sin: fp32 [P, 1, 2, D / 4], of the angles of each position, for rows and columns."""

    cos: Tensor
    sin: Tensor

    def __len__(self) -> int:
        return self.cos.shape[0]

    def __call__(self, x: Tensor) -> Tensor:  # [..., P, H, D] -> [..., P, H, D]
        first, second = x.unflatten(-1, (2, 2, -1)).unbind(-2)  # each [..., P, H, 2, D / 4]
        turned = (first * self.cos - second * self.sin, second * self.cos + first * self.sin)
        return torch.stack(turned, dim=-2).flatten(-3)


def grid_rotation(
    rows: int,
    columns: int,
    still: int,  # tokens before the patches that have no place on the grid
    head_width: int,
    device: torch.device | str,
) -> Rotation:
    """Of `still` tokens at (0, 0), which nothing turns, and of patches from (1, 1), row by row."""
    if head_width % 4:
        raise ValueError(f"heads are {head_width} wide; two axes of pairs need a multiple of 4.")
    y = torch.arange(1, rows + 1, device=device).repeat_interleave(columns)
    x = torch.arange(1, columns + 1, device=device).repeat(rows)
    places = torch.cat((y.new_zeros(still, 2), torch.stack((y, x), dim=1)))  # [P, 2]
    share = torch.arange(head_width // 4, device=device, dtype=torch.float32) / (head_width // 4)
    angles = places[:, None, :, None].float() / BASE**share
    return Rotation(angles.cos(), angles.sin())
