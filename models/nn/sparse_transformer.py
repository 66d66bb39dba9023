"""Transformer blocks over sparse voxels, named as the checkpoints name them.

They know sparse tensors, a modulation and a context; not time, images or decoders.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.nn.attention import Context, SparseSelfAttention, Window, item_rows
from models.nn.fused import Norm, Update
from models.nn.norms import LayerNorm32
from models.nn.sparse_tensor import SparseTensor
from models.nn.transformer import EPS, FeedForward, ModulatedCrossBlock, Stream


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
        stream = Stream(x.feats, item_rows(x))
        self.mix(stream, x)
        return x.replace(stream.value())

    def mix(self, stream: Stream, place: SparseTensor) -> None:
        """The block's two branches, added to the stream, whose rows lie where `place` says."""
        h = stream.normed(Norm(EPS))
        stream.add(Update(self.attn(place.replace(h)).feats))
        stream.add(Update(self.mlp(stream.normed(Norm(EPS)))))


def swin_window(size: int, index: int) -> Window:
    """The window of block `index` of a stack: every second one is shifted by half its size."""
    return Window(size, size // 2 if index % 2 else 0)


class ModulatedSparseCrossBlock(ModulatedCrossBlock):
    """`ModulatedCrossBlock` over the voxels of each batch item, which may differ in number."""

    def forward(  # type: ignore[override]
        self,
        x: SparseTensor,  # [N, C]
        mod: Tensor,  # [B, C], or [1, C] for all items
        context: Context,
    ) -> SparseTensor:  # [N, C]
        stream = Stream(x.feats, item_rows(x))
        self.mix(stream, self.adaLN_modulation(mod), context)
        return x.replace(stream.value())
