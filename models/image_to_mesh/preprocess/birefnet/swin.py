"""Swin transformer: features of an image at four scales, by attention within shifted windows.

Liu et al., Swin Transformer, 2021 (arXiv 2103.14030), as BiRefNet's backbone. Parameters carry the
names of the release; it does not know what the features are for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

PATCH = 4
MLP_RATIO = 4


class SwinTransformer(nn.Module):
    """width: channels of the first scale, doubled at each further one; window: tokens a side."""

    def __init__(
        self, width: int, depths: Sequence[int], heads: Sequence[int], window: int
    ) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbed(width)
        self.layers = nn.ModuleList(
            _Stage(width << i, depth, heads[i], window, last=i == len(depths) - 1)
            for i, depth in enumerate(depths)
        )
        for i in range(len(depths)):
            self.add_module(f"norm{i}", nn.LayerNorm(width << i))

    def forward(self, x: Tensor) -> list[Tensor]:  # [B, 3, H, W], sides multiples of 4
        """[B, width * 2^i, H / 4 / 2^i, W / 4 / 2^i] for each scale i, sides rounded up."""
        x = self.patch_embed(x)
        scales = []
        for i, stage in enumerate(self.layers):
            features, x = stage(x)
            scales.append(self.get_submodule(f"norm{i}")(features).permute(0, 3, 1, 2))
        return scales


class _PatchEmbed(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, H, W] -> [B, H / 4, W / 4, C]
        tokens: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return tokens


class _Stage(nn.Module):
    """The blocks of one scale; every other one has its windows shifted by half of one."""

    def __init__(self, width: int, depth: int, heads: int, window: int, *, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, window, shift=window // 2 if i % 2 else 0) for i in range(depth)
        )
        self.downsample = None if last else _PatchMerging(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # [B, H, W, C]
        """This scale's features, and what the next one starts from."""
        for block in self.blocks:
            x = block(x)
        return x, x if self.downsample is None else self.downsample(x)


class _PatchMerging(nn.Module):
    """Each 2x2 tokens become one of twice the width; an odd side is padded with a zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:  # [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), 2 C]
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        # Column by column: (0, 0), (1, 0), (0, 1), (1, 1).
        merged = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], dim=-1)
        halved: Tensor = self.reduction(self.norm(merged))
        return halved


class SwinBlock(nn.Module):
    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = _WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:  # [B, H, W, C]
        x = x + self._within_windows(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x

    def _within_windows(self, x: Tensor) -> Tensor:  # [B, H, W, C], normed
        """Attention in windows. Tokens that pad a side are zero, and are attended to like others:
        so the network was trained."""
        batch, height, width, channels = x.shape
        side, shift = self.window, self.shift
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        mask = None
        if shift:
            x = x.roll((-shift, -shift), dims=(1, 2))
            mask = _same_region(rows, columns, side, shift, x.device)
        windows = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        windows = self.attn(windows.reshape(batch, rows * columns, side * side, channels), mask)
        windows = windows.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        x = windows.reshape(batch, rows * side, columns * side, channels)
        if shift:
            x = x.roll((shift, shift), dims=(1, 2))
        return x[:, :height, :width]


class _WindowAttention(nn.Module):
    """Attention with a learned bias for each offset between two tokens of a window."""

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        offsets = (2 * window - 1) ** 2
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        self.register_buffer("relative_position_index", _relative_positions(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,  # [B, V, N, C]: V windows of N tokens
        mask: Tensor | None = None,  # bool [V, N, N]: who attends to whom
    ) -> Tensor:
        batch, count, tokens, channels = x.shape
        qkv = self.qkv(x).view(batch * count, tokens, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B * V, H, N, D] each
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.view(tokens, tokens, self.heads).permute(2, 0, 1)[None]  # [1, H, N, N]
        if mask is not None:
            bias = bias.masked_fill(~mask[:, None], float("-inf")).repeat(batch, 1, 1, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return out


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


def _relative_positions(window: int) -> Tensor:
    """int64 [N, N]: the row of the bias table for query and key; the release stores it as well."""
    at = torch.stack(
        torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), dim=-1
    ).view(-1, 2)
    apart = at[:, None] - at[None] + window - 1
    return apart[..., 0] * (2 * window - 1) + apart[..., 1]


def _same_region(rows: int, columns: int, side: int, shift: int, device: torch.device) -> Tensor:
    """bool [V, N, N]: which tokens of a shifted window were neighbours before the image was rolled.

    The last window of a row holds the image's far end and, rolled around, its beginning; likewise
    downwards.
    """

    def band(count: int) -> Tensor:  # [count * side]: 0, then 1 and 2 in the last window
        at = torch.arange(count * side, device=device) - (count - 1) * side
        return (at >= 0).int() + (at >= side - shift).int()

    region = 3 * band(rows)[:, None] + band(columns)[None]
    windows = region.view(rows, side, columns, side).transpose(1, 2).reshape(-1, side * side)
    return windows[:, :, None] == windows[:, None, :]
