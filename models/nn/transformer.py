"""Blocks of a diffusion transformer over rows of tokens, named as the checkpoints name them.

They know rows, a modulation and a context; not time, images or grids.
Adaptive layer norm: Peebles & Xie, "Scalable Diffusion Models with Transformers" (2023).
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from models.nn.attention import Context, CrossAttention, KeysValues, Segments, SelfAttention
from models.nn.fused import Norm, Update, linear_gelu, residual_norm
from models.nn.norms import LayerNorm32

EPS = 1e-6


class Stream:
    """The rows that blocks add to, and what the last branch found: added where a norm reads next.

    So a sum and the norm behind it are one pass over memory, from block to block.
    """

    def __init__(self, x: Tensor, rows: Segments) -> None:  # [N, C], the rows of each item
        self.rows = rows
        self._x = x
        self._update: Update | None = None

    def add(self, update: Update) -> None:
        self._x = self.value()
        self._update = update

    def normed(self, norm: Norm) -> Tensor:  # [norm.rows, C]
        self._x, y = residual_norm(self._x, self._update, norm, self.rows)
        self._update = None
        return y

    def value(self) -> Tensor:  # [N, C]
        if self._update is not None:
            self._x, _ = residual_norm(self._x, self._update, None, self.rows)
            self._update = None
        return self._x


class FeedForward(nn.Module):
    """Linear - GELU (tanh form) - Linear, as `mlp.0` and `mlp.2`."""

    def __init__(self, channels: int, ratio: float = 4.0) -> None:
        super().__init__()
        hidden = int(channels * ratio)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, channels)
        )

    def forward(self, x: Tensor) -> Tensor:  # [N, C] -> [N, C]
        first, last = cast(nn.Linear, self.mlp[0]), cast(nn.Linear, self.mlp[2])
        out: Tensor = last(linear_gelu(x, first.weight, first.bias))
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
        stream = Stream(x.reshape(-1, x.shape[-1]), Segments([x.shape[1]] * x.shape[0]))
        self.mix(stream, self.adaLN_modulation(mod), context)
        return stream.value().view(x.shape)

    def mix(
        self,
        stream: Stream,
        modulation: Tensor,  # [I, 6 C] of the items, or [1, 6 C] of all
        context: Context,
    ) -> None:
        """The block's three branches, added to the stream."""
        rows = stream.rows
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation.chunk(6, -1)
        h = stream.normed(Norm(EPS, scale=scale_attn, shift=shift_attn))
        stream.add(Update(self.self_attn(h, rows), gate_attn))

        kv = context if isinstance(context, KeysValues) else self.cross_attn.keys_values(context)
        asking = rows.head(kv.open_items).total
        h = stream.normed(Norm(EPS, self.norm2.weight, self.norm2.bias, rows=asking))
        stream.add(Update(self.cross_attn.attended(h, kv, rows), rest=kv.settled))

        h = stream.normed(Norm(EPS, scale=scale_mlp, shift=shift_mlp))
        stream.add(Update(self.mlp(h), gate_mlp))
