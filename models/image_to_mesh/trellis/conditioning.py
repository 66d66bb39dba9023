"""What the flows are told of an image: DINOv2's tokens, and what each block makes of them once.

It knows no flow and no sampler; an image comes in as pixels on black.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.nn.attention import KeysValues
from models.nn.dinov2 import IMAGENET_MEAN, IMAGENET_STD, DinoV2
from models.nn.transformer import ModulatedCrossBlock


def image_tokens(
    network: DinoV2,
    pictures: Sequence[npt.NDArray[np.uint8]],  # (H, W, 3) each, sRGB, all of one size
    device: torch.device | str,
) -> Tensor:
    """fp32 [B, 1 + R + P, C]: tokens before DINOv2's last norm, then normed without parameters."""
    pixels = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2)
    mean, std = (pixels.new_tensor(v, dtype=torch.float32) for v in (IMAGENET_MEAN, IMAGENET_STD))
    looked_at = (pixels.float() / 255 - mean[:, None, None]) / std[:, None, None]
    tokens = network(looked_at).prenorm.float()
    return F.layer_norm(tokens, tokens.shape[-1:])


def no_image(tokens: Tensor) -> Tensor:  # [B, M, C] -> [1, 1, C]
    """The condition of an unconditional pass. It is zeros; equal tokens weigh as one of them."""
    return tokens.new_zeros(1, 1, tokens.shape[2])


def block_contexts(
    blocks: nn.ModuleList,  # of `ModulatedCrossBlock`
    cond: Iterable[Tensor],  # [M_i, C] of each batch item
    dtype: torch.dtype,
) -> tuple[KeysValues, ...]:
    """Keys and values of a condition for every block: made once, used at every step."""
    tokens = [item.to(dtype) for item in cond]
    return tuple(
        cast(ModulatedCrossBlock, block).cross_attn.keys_values(tokens) for block in blocks
    )
