"""Transformer blocks over sparse voxels, named as the checkpoints name them.

They know sparse tensors, a modulation and a context; not time, images or decoders.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.nn.attention import Context, SparseSelfAttention, Window, item_rows
from models.nn.norms import LayerNorm32
from models.nn.sparse_tensor import SparseTensor
from models.nn.transformer import EPS, FeedForward, ModulatedCrossBlock


class SparseBlock(nn.Module):
    """x + attention, x + feed-forward, both after a norm without parameters.

    window: attend within windows; None: within the whole batch item.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        qk_rms_norm: bool = False,
        window: Window | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm32(channels, elementwise_affine=False, eps=EPS)
        self.norm2 = LayerNorm32(channels, elementwise_affine=False, eps=EPS)
        self.attn = SparseSelfAttention(channels, heads, qk_rms_norm=qk_rms_norm, window=window)
        self.mlp = FeedForward(channels, mlp_ratio)

    def forward(self, x: SparseTensor) -> SparseTensor:  # [N, C] -> [N, C]
        x = x + self.attn(x.replace(self.norm1(x.feats)))
        return x.replace(x.feats + self.mlp(self.norm2(x.feats)))


def swin_window(size: int, index: int) -> Window:
    """The window of block `index` of a stack: every second one is shifted by half its size."""
    return Window(size, size // 2 if index % 2 else 0)


class ModulatedSparseCrossBlock(ModulatedCrossBlock):
    """`ModulatedCrossBlock` over the voxels of each batch item, which may differ in number.

    Items of one number of voxels, a single one above all, are a dense batch and computed as such.
    """

    def forward(  # type: ignore[override]
        self,
        x: SparseTensor,  # [N, C]
        mod: Tensor,  # [B, C]
        context: Context,
    ) -> SparseTensor:  # [N, C]
        rows = item_rows(x)
        if rows.uniform:
            dense = x.feats.view(len(rows), rows.longest, -1)
            return x.replace(super().forward(dense, mod, context).flatten(0, 1))
        chunks = tuple(x.per_row(chunk) for chunk in self.chunks(mod))
        return x.replace(self.mix(x.feats, chunks, context, rows))
