"""What the flow of the sparse structure is told: all views, gathered into one set of tokens.

Learned tokens attend to the patches of every view, one layer of VGGT in each block. It knows tokens
alone; not the networks that made them and not the flow that takes them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.nn.attention import CrossAttention, Segments, SelfAttention
from models.nn.norms import LayerNorm32
from models.nn.precision import torso_dtype
from models.nn.transformer import EPS, FeedForward

LAYERS = 4
TORSO = ("cond_blocks",)


class StructureCondition(nn.Module):
    def __init__(
        self,
        channels: int,
        ctx_channels: int,
        num_heads: int,
        mlp_ratio: float = 4,
        qk_rms_norm: bool = False,
        num_init_tokens: int = 4096,
    ) -> None:
        super().__init__()
        self.multiview_cond_tokens = nn.Parameter(torch.zeros(1, num_init_tokens, channels))
        self.cond_blocks = nn.ModuleList(
            _Block(channels, ctx_channels, num_heads, mlp_ratio, qk_rms_norm) for _ in range(LAYERS)
        )

    def forward(
        self,
        layers: Sequence[Tensor],  # four of [n, P, 2C]: VGGT's tokens of the patches of n views
        patches: Tensor,  # [n, P, C]: DINOv2's of the same
    ) -> Tensor:  # fp32 [1, T, channels]
        dtype = torso_dtype(self, TORSO)
        x = self.multiview_cond_tokens[0].to(dtype)  # [T, C]
        rows = Segments([len(x)])
        for block, tokens in zip(self.cond_blocks, layers, strict=True):
            context = torch.cat((tokens.to(dtype), patches.to(dtype)), dim=-1)
            x = block(x, rows, context.flatten(0, 1)[None])
        return x.float()[None]


class _Block(nn.Module):
    """As the flow's blocks, without modulation: these tokens know no time."""

    def __init__(
        self, channels: int, ctx_channels: int, heads: int, mlp_ratio: float, qk_rms_norm: bool
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels, elementwise_affine=False, eps=EPS)
        self.norm2 = LayerNorm32(channels, elementwise_affine=True, eps=EPS)
        self.norm3 = LayerNorm32(channels, elementwise_affine=False, eps=EPS)
        self.self_attn = SelfAttention(channels, heads, qk_rms_norm=qk_rms_norm)
        self.cross_attn = CrossAttention(channels, ctx_channels, heads)
        self.mlp = FeedForward(channels, mlp_ratio)

    def forward(
        self,
        x: Tensor,  # [T, C]
        rows: Segments,  # of x
        context: Tensor,  # [1, M, C']
    ) -> Tensor:  # [T, C]
        x = x + self.self_attn(self.norm1(x), rows)
        x = x + self.cross_attn(self.norm2(x), context, rows)
        x = x + self.mlp(self.norm3(x))
        return x
