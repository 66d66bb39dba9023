"""The flow of the structured latent: a transformer over the occupied voxels, at half their grid.

It predicts the velocity of rectified flow (TRELLIS, sec. 3.3); it knows no sampler and no guidance.
Residual blocks halve the grid on the way in and un-pool it on the way out, with skips between.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.image_to_mesh.trellis.conditioning import block_contexts
from models.nn.attention import Context, KeysValues, item_rows
from models.nn.embeddings import TimestepEmbedder, position_embedding
from models.nn.fused import Norm, residual_norm
from models.nn.norms import LayerNorm32
from models.nn.precision import torso_dtype
from models.nn.resample import downsample, upsample
from models.nn.sparse_conv import SparseConv3d
from models.nn.sparse_tensor import SparseTensor
from models.nn.sparse_transformer import ModulatedSparseCrossBlock
from models.nn.transformer import EPS, ModulatedCrossBlock, Stream


class SlatFlow(nn.Module):
    """Velocity of a structured latent [N, in_channels] at a time, given tokens of an image."""

    def __init__(
        self,
        resolution: int,
        in_channels: int,
        model_channels: int,
        cond_channels: int,
        out_channels: int,
        num_blocks: int,
        num_heads: int,
        io_block_channels: Sequence[int],  # widths from the voxels' own grid to the coarsest
        mlp_ratio: float = 4,
        num_io_res_blocks: int = 2,
        qk_rms_norm: bool = False,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.in_channels = in_channels
        wide = model_channels
        self.t_embedder = TimestepEmbedder(wide)
        self.input_layer = nn.Linear(in_channels, io_block_channels[0])
        self.input_blocks = nn.ModuleList()
        levels = list(pairwise([*io_block_channels, wide]))
        for fine, coarse in levels:
            for _ in range(num_io_res_blocks - 1):
                self.input_blocks.append(_ResBlock(fine, fine, wide))
            self.input_blocks.append(_ResBlock(fine, coarse, wide, "down"))
        self.blocks = nn.ModuleList(
            ModulatedSparseCrossBlock(
                wide, cond_channels, num_heads, mlp_ratio=mlp_ratio, qk_rms_norm=qk_rms_norm
            )
            for _ in range(num_blocks)
        )
        self.out_blocks = nn.ModuleList()  # widths doubled: a skip is put beside each input
        for fine, coarse in reversed(levels):
            self.out_blocks.append(_ResBlock(2 * coarse, fine, wide, "up"))
            for _ in range(num_io_res_blocks - 1):
                self.out_blocks.append(_ResBlock(2 * fine, fine, wide))
        self.out_layer = nn.Linear(io_block_channels[0], out_channels)

    def forward(
        self,
        x: SparseTensor,  # [N, in_channels]
        t: Tensor | Sequence[Tensor],  # [B], in thousandths, or what `modulations` made of it
        cond: Tensor | Sequence[Context],  # [B, M, cond_channels], or what `contexts` made of it
    ) -> SparseTensor:  # [N, out_channels], the dtype of x
        dtype = torso_dtype(self)
        contexts = self.contexts(cond) if isinstance(cond, Tensor) else cond
        mods = iter(self.modulations(t) if isinstance(t, Tensor) else t)
        h = x.replace(self.input_layer(x.feats).to(dtype))
        skips = []
        for block in self.input_blocks:
            h = block(h, next(mods))
            skips.append(h.feats)
        stream = Stream(h.feats + _positions(h), item_rows(h))
        for block, context in zip(self.blocks, contexts, strict=True):
            cast(ModulatedSparseCrossBlock, block).mix(stream, next(mods), context)
        h = h.replace(stream.value())
        for block, skip in zip(self.out_blocks, reversed(skips), strict=True):
            h = block(h.replace(torch.cat((h.feats, skip), dim=1)), next(mods))
        feats = h.feats.to(x.dtype)
        return h.replace(self.out_layer(F.layer_norm(feats, feats.shape[-1:])))

    def modulations(self, t: Tensor) -> tuple[Tensor, ...]:  # [T] -> [T, ...] of each block
        """What times, in thousandths, mean to the blocks, in the order they are run in."""
        mod = self.t_embedder(t).to(torso_dtype(self))
        return (
            *(cast(_ResBlock, block).emb_layers(mod) for block in self.input_blocks),
            *(cast(ModulatedCrossBlock, block).adaLN_modulation(mod) for block in self.blocks),
            *(cast(_ResBlock, block).emb_layers(mod) for block in self.out_blocks),
        )

    def contexts(self, cond: Tensor | Sequence[Tensor]) -> tuple[KeysValues, ...]:
        """Keys and values of a condition for every block: made once, used at every step."""
        return block_contexts(self.blocks, cond, torso_dtype(self))


class _ResBlock(nn.Module):
    """Two convolutions, the second after a modulated norm; pooled or un-pooled before both."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        emb_channels: int,
        updown: Literal["down", "up"] | None = None,
    ) -> None:
        super().__init__()
        self.updown = updown
        self.norm1 = LayerNorm32(channels, elementwise_affine=True, eps=EPS)
        self.norm2 = LayerNorm32(out_channels, elementwise_affine=False, eps=EPS)
        self.conv1 = SparseConv3d(channels, out_channels, 3)
        self.conv2 = SparseConv3d(out_channels, out_channels, 3)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels))
        self.skip_connection = (
            nn.Identity() if channels == out_channels else nn.Linear(channels, out_channels)
        )

    def forward(
        self,
        x: SparseTensor,  # [N, C]
        modulation: Tensor,  # [B, 2 C'], or [1, 2 C'] for all items
    ) -> SparseTensor:  # [N, C'], or on the voxels of another level
        if self.updown == "down":
            x = downsample(x, 2, mean="trellis")
        # What is done row by row is done before rows are copied on the way up.
        norm = Norm(EPS, self.norm1.weight, self.norm1.bias, silu=True)
        h = x.replace(residual_norm(x.feats, None, norm, item_rows(x))[1])
        skip = x.replace(self.skip_connection(x.feats))
        if self.updown == "up":
            h, skip = upsample(h, 2), upsample(skip, 2)
        h = self.conv1(h)
        scale, shift = modulation.chunk(2, dim=1)
        norm = Norm(EPS, scale=scale, shift=shift, silu=True)
        h = self.conv2(h.replace(residual_norm(h.feats, None, norm, item_rows(h))[1]))
        out: SparseTensor = h + skip
        return out


def _positions(x: SparseTensor) -> Tensor:
    """[N, C] in the dtype of x: embedded coordinates of this level, kept with its sites."""
    channels = x.feats.shape[1]
    return x.sites.cached(
        ("positions", channels, x.dtype),
        lambda: position_embedding(x.coords[:, 1:], channels).to(x.dtype),
    )
