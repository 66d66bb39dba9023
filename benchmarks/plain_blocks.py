"""The blocks of TRELLIS' flows as PyTorch alone writes them: the peer, on the same weights.

Dense [B, L, C], one operation after the other, attention by `scaled_dot_product_attention` (the
backend PyTorch chooses, or one that is named), nothing remembered from step to step; run as it is,
or compiled by `torch.compile`. Of the product it knows the class whose weights it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.nn.transformer import ModulatedCrossBlock

EPS = 1e-6


def plain_blocks(
    blocks: Sequence[nn.Module], *, compiled: bool, attention: SDPBackend | None = None
) -> Callable[[Tensor, Sequence[Tensor], Tensor], Tensor]:
    """(x [B, L, C], modulation [B or 1, 6 C] of each block, context [B, M, C']) -> [B, L, C]."""
    step = torch.compile(_block, dynamic=False) if compiled else _block
    weights = [_weights(block) for block in blocks if isinstance(block, ModulatedCrossBlock)]

    def run(x: Tensor, mods: Sequence[Tensor], context: Tensor) -> Tensor:
        with nullcontext() if attention is None else sdpa_kernel(attention):
            for mod, (heads, own) in zip(mods, weights, strict=True):
                x = step(x, mod, context, heads, own)
        return x

    return run


def _weights(block: ModulatedCrossBlock) -> tuple[int, dict[str, Tensor]]:
    return block.self_attn.heads, dict(block.named_parameters())


def _block(x: Tensor, mod: Tensor, context: Tensor, heads: int, w: dict[str, Tensor]) -> Tensor:
    def linear(name: str, h: Tensor) -> Tensor:
        return F.linear(h, w[f"{name}.weight"], w[f"{name}.bias"])

    def split(h: Tensor, parts: int) -> Sequence[Tensor]:  # -> [B, H, L, D] each
        return h.unflatten(-1, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    shift1, scale1, gate1, shift2, scale2, gate2 = mod.unsqueeze(1).chunk(6, dim=-1)
    h = _norm(x) * (1 + scale1) + shift1
    q, k, v = split(linear("self_attn.to_qkv", h), 3)
    if "self_attn.q_rms_norm.gamma" in w:
        q = _rms(q, w["self_attn.q_rms_norm.gamma"])
        k = _rms(k, w["self_attn.k_rms_norm.gamma"])
    x = x + linear("self_attn.to_out", attended(q, k, v)) * gate1
    h = _norm(x, w["norm2.weight"], w["norm2.bias"])
    (q,) = split(linear("cross_attn.to_q", h), 1)
    k, v = split(linear("cross_attn.to_kv", context), 2)
    x = x + linear("cross_attn.to_out", attended(q, k, v))
    h = _norm(x) * (1 + scale2) + shift2
    h = F.gelu(linear("mlp.mlp.0", h), approximate="tanh")
    return x + linear("mlp.mlp.2", h) * gate2


def _norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x.float(), x.shape[-1:], weight, bias, EPS).to(x.dtype)


def _rms(x: Tensor, gamma: Tensor) -> Tensor:  # [B, H, L, D], [H, D]
    wide = F.normalize(x.float(), dim=-1) * (gamma[:, None] * x.shape[-1] ** 0.5)
    return wide.to(x.dtype)
