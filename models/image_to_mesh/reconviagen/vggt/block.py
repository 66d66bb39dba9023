"""The transformer block of VGGT: attention and feed-forward, each after a norm, each scaled.

It knows tokens [B, L, C] and, where it is given one, how places turn them; not what they show.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.image_to_mesh.reconviagen.vggt.rotary import Rotation
from models.nn.attention import attend
from models.nn.dinov2 import LayerScale, Mlp


class Block(nn.Module):
    """x + attention, x + feed-forward. Under autocast x stays fp32, as it was trained."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float = 4, *, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, qk_norm=qk_norm)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:  # [B, L, C]
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        x = x + self.ls2(self.mlp(self.norm2(x)))
        return x


class Attention(nn.Module):
    """qk_norm: layer-normalise queries and keys over each head's width (`q_norm`, `k_norm`)."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,  # [B, L, C]
        rotation: Rotation | None = None,  # of P places; L is P, or P for each of several images
    ) -> Tensor:  # [B, L, C]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # [B, L, H, D]
        q, k = self.q_norm(q.float()), self.k_norm(k.float())  # fp32 until they are turned
        if rotation is not None:
            q, k = (rotation(y.unflatten(1, (-1, len(rotation)))).flatten(1, 2) for y in (q, k))
        out: Tensor = self.proj(attend(q.to(v.dtype), k.to(v.dtype), v).flatten(2))
        return out
