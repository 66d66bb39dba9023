"""The flow of the sparse structure: a transformer over all cells of a dense latent grid.

It predicts the velocity of rectified flow (TRELLIS, sec. 3.2); it knows no sampler and no guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.image_to_mesh.trellis.conditioning import block_contexts
from models.nn.attention import Context, KeysValues, Segments
from models.nn.embeddings import TimestepEmbedder, grid_position_embedding
from models.nn.precision import torso_dtype
from models.nn.transformer import ModulatedCrossBlock, Stream


class SparseStructureFlow(nn.Module):
    """Velocity of a latent grid [B, in_channels, R, R, R] at a time, given tokens of an image."""

    pos_emb: Tensor

    def __init__(
        self,
        resolution: int,
        in_channels: int,
        model_channels: int,
        cond_channels: int,
        out_channels: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: float = 4,
        patch_size: int = 2,
        qk_rms_norm: bool = False,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.in_channels = in_channels
        self.patch_size = patch_size
        cell = patch_size**3
        self.t_embedder = TimestepEmbedder(model_channels)
        with torch.device("cpu"):  # on the meta device this alone would import torch's compiler
            positions = grid_position_embedding(resolution // patch_size, model_channels)
        self.register_buffer("pos_emb", positions)
        self.input_layer = nn.Linear(in_channels * cell, model_channels)
        self.blocks = nn.ModuleList(
            ModulatedCrossBlock(
                model_channels,
                cond_channels,
                num_heads,
                mlp_ratio=mlp_ratio,
                qk_rms_norm=qk_rms_norm,
            )
            for _ in range(num_blocks)
        )
        self.out_layer = nn.Linear(model_channels, out_channels * cell)

    def forward(
        self,
        x: Tensor,  # [B, C, R, R, R]
        t: Tensor | Sequence[Tensor],  # [B], in thousandths, or what `modulations` made of it
        cond: Tensor | Sequence[Context],  # [B, M, cond_channels], or what `contexts` made of it
    ) -> Tensor:  # [B, C, R, R, R], the dtype of x
        dtype = torso_dtype(self)
        contexts = self.contexts(cond) if isinstance(cond, Tensor) else cond
        mods = self.modulations(t) if isinstance(t, Tensor) else t
        h = self.input_layer(patchify(x, self.patch_size)) + self.pos_emb
        stream = Stream(h.to(dtype).flatten(0, 1), Segments([h.shape[1]] * len(h)))
        for block, mod, context in zip(self.blocks, mods, contexts, strict=True):
            cast(ModulatedCrossBlock, block).mix(stream, mod, context)
        h = stream.value().view(h.shape).to(x.dtype)
        h = self.out_layer(F.layer_norm(h, h.shape[-1:]))
        return unpatchify(h, self.resolution, self.patch_size)

    def modulations(self, t: Tensor) -> tuple[Tensor, ...]:  # [T] -> [T, 6 C] of each block
        """What times, in thousandths, mean to the blocks: for all steps at once, if one likes."""
        mod = self.t_embedder(t).to(torso_dtype(self))
        return tuple(
            cast(ModulatedCrossBlock, block).adaLN_modulation(mod) for block in self.blocks
        )

    def contexts(self, cond: Tensor | Sequence[Tensor]) -> tuple[KeysValues, ...]:
        """Keys and values of a condition for every block: made once, used at every step."""
        return block_contexts(self.blocks, cond, torso_dtype(self))


def patchify(x: Tensor, patch: int) -> Tensor:
    """[B, C, R, R, R] -> [B, (R/P)^3, C P^3]: cells of P^3 voxels, x the slowest."""
    b, c, r = x.shape[0], x.shape[1], x.shape[2] // patch
    cells = x.reshape(b, c, r, patch, r, patch, r, patch)  # b c X i Y j Z k
    return cells.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, r**3, c * patch**3)


def unpatchify(tokens: Tensor, resolution: int, patch: int) -> Tensor:
    """[B, (R/P)^3, C P^3] -> [B, C, R, R, R]: undoes `patchify`."""
    b, r = tokens.shape[0], resolution // patch
    cells = tokens.reshape(b, r, r, r, -1, patch, patch, patch).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return cells.reshape(b, -1, resolution, resolution, resolution)
