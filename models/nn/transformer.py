"""Blocks of a diffusion transformer over dense tokens, named as the checkpoints name them.

They know tokens [B, L, C], a modulation [B, C] and a context; not time, images or grids.
Adaptive layer norm: Peebles & Xie, "Scalable Diffusion Models with Transformers" (2023).
"""

from __future__ import annotations

from torch import Tensor, nn

from models.nn.attention import Context, CrossAttention, Segments, SelfAttention
from models.nn.norms import LayerNorm32

EPS = 1e-6


class FeedForward(nn.Module):
    """Linear - GELU (tanh form) - Linear, as `mlp.0` and `mlp.2`."""

    def __init__(self, channels: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:  # [..., C] -> [..., C]
        out: Tensor = self.mlp(x)
        return out


class ModulatedCrossBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward; the first and last modulated and gated.

    Modulation is `adaLN_modulation`: SiLU and a Linear to six chunks of C, in this order: shift,
    scale and gate of the self-attention, then of the feed-forward. Cross-attention has no gate,
    and its norm alone has parameters (`norm2`).
    """

    def __init__(
        self,
        channels: int,
        context_channels: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        qk_rms_norm: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels, elementwise_affine=False, eps=EPS)
        self.norm2 = LayerNorm32(channels, elementwise_affine=True, eps=EPS)
        self.norm3 = LayerNorm32(channels, elementwise_affine=False, eps=EPS)
        self.self_attn = SelfAttention(channels, heads, qk_rms_norm=qk_rms_norm)
        self.cross_attn = CrossAttention(channels, context_channels, heads)
        self.mlp = FeedForward(channels, mlp_ratio)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))

    def forward(
        self,
        x: Tensor,  # [B, L, C]
        mod: Tensor,  # [B, C], or [1, C] for all items
        context: Context,
    ) -> Tensor:  # [B, L, C]
        return self.mix(x, self.chunks(mod[:, None]), context)

    def chunks(self, mod: Tensor) -> tuple[Tensor, ...]:  # [..., C] -> six of [..., C]
        return tuple(self.adaLN_modulation(mod).chunk(6, dim=-1))

    def mix(
        self,
        x: Tensor,  # [B, L, C], or [N, C] with `rows`
        chunks: tuple[Tensor, ...],  # six, each broadcast to x
        context: Context,
        rows: Segments | None = None,  # of a packed x: the rows of each item
    ) -> Tensor:
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = chunks
        h = self.norm1(x) * (1 + scale_attn) + shift_attn
        x = x + self.self_attn(h, rows) * gate_attn
        x = x + self.cross_attn(self.norm2(x), context, rows)
        h = self.norm3(x) * (1 + scale_mlp) + shift_mlp
        out: Tensor = x + self.mlp(h) * gate_mlp
        return out
