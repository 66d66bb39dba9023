"""DINOv2 with registers: a vision transformer that turns an image into tokens.

Oquab et al., DINOv2, 2023 (arXiv 2304.07193); Darcet et al., Vision Transformers Need Registers,
2023 (arXiv 2309.16588). Parameters carry the names of the official checkpoints; it knows neither
image files nor what the tokens are for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

EPS = 1e-6
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DinoV2Config:
    """The defaults are `dinov2_vitl14_reg`, the network TRELLIS and its relatives look with."""

    img_size: int = 518
    patch_size: int = 14
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: int = 4
    num_register_tokens: int = 4


@dataclass(frozen=True)
class DinoV2Tokens:
    """prenorm: [B, 1 + R + P, C] class, register and patch tokens before the last norm;
    norm: the same tokens after it; registers: R."""

    prenorm: Tensor
    norm: Tensor
    registers: int

    @property
    def patches(self) -> Tensor:
        """[B, P, C]: normed patch tokens, row by row of the image."""
        return self.norm[:, 1 + self.registers :]


class DinoV2(nn.Module):
    def __init__(self, config: DinoV2Config = DinoV2Config()) -> None:
        super().__init__()
        self.config = config
        width, side = config.embed_dim, config.img_size // config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of training; in every checkpoint
        self.patch_embed = PatchEmbed(config.patch_size, width)
        self.blocks = nn.ModuleList(
            _Block(width, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> DinoV2Tokens:  # [B, 3, H, W], ImageNet-normalised
        """H and W must be multiples of the patch size."""
        height, width = x.shape[2:]
        patch = self.config.patch_size
        if height % patch or width % patch:
            raise ValueError(
                f"Image of {height}x{width} pixels: sides must be multiples of {patch}."
            )
        patches = self.patch_embed(x)  # [B, P, C]
        positions = self._positions(height // patch, width // patch)
        cls = self.cls_token.expand(len(x), -1, -1)
        h = torch.cat((cls, patches), dim=1) + positions
        registers = self.register_tokens.expand(len(x), -1, -1)
        h = torch.cat((h[:, :1], registers, h[:, 1:]), dim=1)
        for block in self.blocks:
            h = block(h)
        return DinoV2Tokens(h, self.norm(h), self.config.num_register_tokens)

    def _positions(self, rows: int, columns: int) -> Tensor:
        """[1, 1 + rows * columns, C]: the trained grid of positions, resized where it differs."""
        trained = self.config.img_size // self.config.patch_size
        if rows == columns == trained:
            return self.pos_embed
        cls, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        grid = grid.unflatten(1, (trained, trained)).permute(0, 3, 1, 2).float()
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
        return torch.cat((cls, grid.flatten(2).mT.to(cls.dtype)), dim=1)


class PatchEmbed(nn.Module):
    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:  # [B, 3, H, W] -> [B, P, C]
        tokens: Tensor = self.proj(x).flatten(2).mT
        return tokens


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = _Attention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, mlp_ratio * width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:  # [B, L, C]
        x = x + self.ls1(self.attn(self.norm1(x)))
        x = x + self.ls2(self.mlp(self.norm2(x)))
        return x


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, L, C]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v)  # [B, H, L, D]
        out: Tensor = self.proj(h.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Linear - GELU (exact) - Linear, as `fc1` and `fc2`."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(self, x: Tensor) -> Tensor:  # [..., width] -> [..., out]
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al., 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


_TRANSFORMERS_NAMES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.register_tokens", "register_tokens"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"layernorm\.", "norm."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.(norm[12]|mlp)\.", r"blocks.\1.\2."),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.", r"blocks.\1.attn.\2."),
)


def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the official names, from those of the `transformers` library.

    The official file is a pickle; the same weights exist as safetensors only under the names of
    `Dinov2WithRegistersModel`, which keeps query, key and value apart. Official names pass as they
    are; unknown ones too, so that strict loading can name them.
    """
    if "embeddings.cls_token" not in state:
        return dict(state)
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, official in _TRANSFORMERS_NAMES:
            new, hits = re.subn(f"^{pattern}", official, name)
            if hits:
                break
        renamed[new] = tensor
    for name in [name for name in renamed if ".attn.query." in name]:
        parts = [name.replace("query", part) for part in ("query", "key", "value")]
        joined = torch.cat([renamed.pop(part) for part in parts if part in renamed])
        renamed[name.replace("query", "qkv")] = joined
    return renamed
