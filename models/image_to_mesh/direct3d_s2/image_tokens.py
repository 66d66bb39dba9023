"""The tokens of an image that lie on the object, as release 1.0 of Direct3D-S2 is told of it.

It knows tokens and a mask, no encoder and no flow. Each token has a place: a patch its column and
row at depth 0, tokens of the whole image (0, 0, 1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.nn.sparse_tensor import SparseTensor

PATCH = 14
WHOLE_IMAGE = 5
"""Tokens before those of patches: one for the class, four registers."""


def object_patches(
    alpha: Tensor,  # [B, H, W] in [0, 1], H and W multiples of PATCH
) -> Tensor:  # bool [B, H / PATCH, W / PATCH]
    """Patches with any opaque pixel."""
    return F.max_pool2d(alpha[:, None].float(), PATCH, PATCH)[:, 0] > 0


def object_tokens(
    tokens: Tensor,  # [B, WHOLE_IMAGE + rows * columns, C]
    patches: Tensor,  # bool [B, rows, columns]
) -> SparseTensor:  # [K, C], coords (b, x, y, z)
    """Tokens of each item: of the whole image, then of its object's patches row by row."""
    count, grid = len(tokens), patches[0].numel()
    if tokens.shape[1] != WHOLE_IMAGE + grid:
        raise ValueError(
            f"{tokens.shape[1]} tokens are not {WHOLE_IMAGE} and one for each of {grid} patches."
        )
    whole = patches.new_ones((count, WHOLE_IMAGE))
    item, token = torch.cat((whole, patches.flatten(1)), dim=1).nonzero().unbind(1)
    cell = token - WHOLE_IMAGE
    on_grid = cell >= 0
    x = torch.where(on_grid, cell % patches.shape[2], 0)
    y = torch.where(on_grid, torch.div(cell, patches.shape[2], rounding_mode="floor"), 0)
    coords = torch.stack((item, x, y, (~on_grid).long()), dim=1).int()
    return SparseTensor(tokens[item, token], coords, count)


def no_object(tokens: SparseTensor) -> SparseTensor:
    """The condition of an unconditional pass: zeros in the same places."""
    return tokens.replace(torch.zeros_like(tokens.feats))
