"""The aggregator: patches of several images attend within their image and across all, in turns.

VGGT, sec. 3.2. It knows images and tokens; what is read from the tokens is up to the heads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.image_to_mesh.reconviagen.vggt.block import Block
from models.image_to_mesh.reconviagen.vggt.rotary import grid_rotation
from models.nn.dinov2 import IMAGENET_MEAN, IMAGENET_STD, DinoV2, DinoV2Config, PatchEmbed

TORSO = ("patch_embed", "frame_blocks", "global_blocks")
"""What runs in half precision: `to_half(aggregator, dtype, TORSO)`."""


@dataclass(frozen=True)
class AggregatorConfig:
    """The defaults are VGGT-1B. vision: patches come out of DINOv2, else of one convolution."""

    img_size: int = 518
    patch_size: int = 14
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4
    num_register_tokens: int = 4
    vision: DinoV2Config | None = DinoV2Config()


class Aggregator(nn.Module):
    def __init__(self, config: AggregatorConfig = AggregatorConfig()) -> None:
        super().__init__()
        self.config = config
        width, registers = config.embed_dim, config.num_register_tokens
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, width))  # of the first image, others
        self.register_token = nn.Parameter(torch.zeros(1, 2, registers, width))
        self.patch_embed: DinoV2 | PatchEmbed
        if config.vision is None:
            self.patch_embed = PatchEmbed(config.patch_size, width)
        else:
            self.patch_embed = DinoV2(config.vision)
        self.frame_blocks = self._blocks()
        self.global_blocks = self._blocks()

    def _blocks(self) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_ratio, qk_norm=True)
            for _ in range(config.depth)
        )

    @property
    def special(self) -> int:
        """Tokens of each image before its patches: camera and registers."""
        return 1 + self.config.num_register_tokens

    def forward(
        self,
        images: Tensor,  # fp32 [B, S, 3, H, W], 0..1; the first of S sets the frame of the world
        layers: Collection[int],
        on_layer: Callable[[int], None] | None = None,
    ) -> list[Tensor]:  # fp32, one for each of `layers`, ascending: [B, S, P, 2C]
        """What came out of each layer's frame block and global block, side by side.

        on_layer: called after each layer; what it raises ends the pass.
        """
        batch, count, _, height, width = images.shape
        mean, std = (images.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        patches = self._patches(((images - mean) / std).flatten(0, 1))  # [BS, P, C]
        x = torch.cat((self._special_tokens(count).repeat(batch, 1, 1), patches), dim=1)
        patch, head = self.config.patch_size, self.config.embed_dim // self.config.num_heads
        rotation = grid_rotation(height // patch, width // patch, self.special, head, x.device)
        kept = []
        for i, (frame, whole) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            within = frame(x, rotation)  # [BS, P, C]
            across = whole(
                within.unflatten(0, (batch, count)).flatten(1, 2), rotation
            )  # [B, SP, C]
            x = across.unflatten(1, (count, -1)).flatten(0, 1)
            if i in layers:
                kept.append(torch.cat((within, x), dim=-1).unflatten(0, (batch, count)))
            if on_layer is not None:
                on_layer(i)
        return kept

    def _patches(self, x: Tensor) -> Tensor:  # [N, 3, H, W], normalised -> [N, P, C]
        out = self.patch_embed(x)
        patches: Tensor = out if isinstance(out, Tensor) else out.patches
        return patches

    def _special_tokens(self, count: int) -> Tensor:
        """[S, 1 + R, C]: one kind for the first image, another for all that follow."""
        kinds = torch.cat((self.camera_token[0], self.register_token[0]), dim=1)  # [2, 1 + R, C]
        return torch.cat((kinds[:1], kinds[1:].expand(count - 1, -1, -1)))
