"""The flow of the sparse latent: a transformer over the voxels near a surface, sparse in attention.

It predicts the velocity of a rectified flow at 64^3 or 128^3 (Wu et al., "Direct3D-S2", 2025); it
knows no sampler and no guidance. Release 1.1 looks at all tokens of an image, 1.0 at those of the
object (`image_tokens`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, cast

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.nn.attention import Context, CrossAttention, KeysValues, Window, item_rows
from models.nn.embeddings import TimestepEmbedder, position_embedding
from models.nn.fused import Norm, Update
from models.nn.norms import LayerNorm32
from models.nn.precision import torso_dtype
from models.nn.sparse_tensor import SparseTensor
from models.nn.spatial_sparse_attention import SpatialSparseAttention, in_block_order
from models.nn.spatial_sparse_attention.module import Version
from models.nn.transformer import EPS, FeedForward, Stream

TORSO = ("t_embedder", "cond_proj", "input_layer", "blocks", "out_layer")
"""What the checkpoints hold in half precision: every linear layer and convolution."""

WITHOUT_EFFECT = ("use_fp16", "use_checkpoint", "qk_rms_norm", "num_head_channels")
"""Arguments of the official configurations that change no result: sparse attention normalises
neither queries nor keys, and precision is chosen by who runs the network."""

ONLY: Mapping[str, Any] = {"pe_mode": "ape", "share_mod": False, "qk_rms_norm_cross": False}
"""Arguments with the one value that the releases use."""


class SparseDiT(nn.Module):
    """Velocity of a latent [N, in_channels] at a time, given tokens of an image."""

    def __init__(
        self,
        resolution: int,  # voxels along an edge of the grid
        in_channels: int,
        model_channels: int,
        cond_channels: int,
        out_channels: int,
        num_blocks: int,
        num_heads: int,
        num_kv_heads: int = 2,
        compression_block_size: int = 4,
        selection_block_size: int = 8,
        topk: int = 8,
        compression_version: Version = "v2",
        mlp_ratio: float = 4,
        factor: float = 1.0,  # of coordinates, before they are embedded
        sparse_conditions: bool = False,
        window_size: int = 8,
        use_shift: bool = True,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.in_channels = in_channels
        self.selection_block_size = selection_block_size
        self.factor = factor
        self.t_embedder = TimestepEmbedder(model_channels)
        self.cond_proj = nn.Linear(cond_channels, cond_channels) if sparse_conditions else None
        self.input_layer = nn.Linear(in_channels, model_channels)
        self.blocks = nn.ModuleList()
        for index in range(num_blocks):
            shifted = index % 2 == 1 or not use_shift
            attention = SpatialSparseAttention(
                model_channels,
                num_heads,
                num_kv_heads,
                model_channels // num_heads,
                compression_block_size,
                selection_block_size,
                topk,
                Window(window_size, window_size // 2 if shifted else 0),
                compression_version,
            )
            self.blocks.append(SparseDiTBlock(attention, model_channels, cond_channels, mlp_ratio))
        self.out_layer = nn.Linear(model_channels, out_channels)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SparseDiT:
        """The network of an official configuration, its weights unset.

        Raises ValueError for an argument, or a value of one, that no release has.
        """
        ours = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
        for key, only in ONLY.items():
            if (value := ours.pop(key, only)) != only:
                raise ValueError(f"SparseDiT: {key} is {value!r}; only {only!r} is known.")
        if unknown := [key for key in ours if key not in signature(cls).parameters]:
            raise ValueError(f"SparseDiT has an argument {unknown[0]!r}, which is not known.")
        return cls(**ours)

    def forward(
        self,
        x: SparseTensor,  # [N, in_channels], rows in any order
        t: Tensor | Sequence[Tensor],  # [B], in thousandths, or what `modulations` made of it
        cond: Tensor | SparseTensor | Sequence[Context],  # see `contexts`, or what it made
    ) -> SparseTensor:  # [N, out_channels], the dtype of x
        contexts = self.contexts(cond) if isinstance(cond, Tensor | SparseTensor) else cond
        ordered, back = in_block_order(x, self.selection_block_size)
        h = ordered.replace(self.input_layer(ordered.feats.to(torso_dtype(self, TORSO))))
        stream = Stream(h.feats + self._positions(h), item_rows(h))
        mods = self.modulations(t) if isinstance(t, Tensor) else t
        for block, mod, context in zip(self.blocks, mods, contexts, strict=True):
            cast(SparseDiTBlock, block).mix(stream, ordered, mod, context)
        feats = stream.value()
        out = self.out_layer(F.layer_norm(feats, feats.shape[-1:])).to(x.dtype)
        return x.replace(out if back is None else out.index_select(0, back))

    def modulations(self, t: Tensor) -> tuple[Tensor, ...]:  # [T] -> [T, 6 C] of each block
        """What times, in thousandths, mean to the blocks."""
        mod = self.t_embedder(t).to(torso_dtype(self, TORSO))
        return tuple(cast(SparseDiTBlock, block).adaLN_modulation(mod) for block in self.blocks)

    def contexts(self, cond: Tensor | SparseTensor) -> tuple[KeysValues, ...]:
        """Keys and values of a condition for every block: made once, used at every step.

        cond: [B, M, cond_channels], all tokens of an image; where the network has
        `sparse_conditions`, a sparse tensor of those on the object. Only in the first form does a
        condition of zeros weigh as a single token of zeros: in the second, places are added.
        """
        dtype = torso_dtype(self, TORSO)
        items: list[Tensor]
        if isinstance(cond, Tensor) and self.cond_proj is None:
            items = list(cond.to(dtype))
        elif isinstance(cond, SparseTensor) and self.cond_proj is not None:
            tokens = self.cond_proj(cond.feats.to(dtype))
            places = position_embedding(cond.coords[:, 1:], tokens.shape[1])
            tokens = tokens + places.to(dtype)
            items = [tokens[rows] for rows in cond.layout]
        else:
            wanted = "a tensor [B, M, C]" if self.cond_proj is None else "a SparseTensor"
            raise ValueError(f"This SparseDiT takes image tokens as {wanted}.")
        blocks = (cast(SparseDiTBlock, block) for block in self.blocks)
        return tuple(block.cross_attn.keys_values(items) for block in blocks)

    def _positions(self, x: SparseTensor) -> Tensor:
        """[N, C] in the dtype of x, kept with its sites."""
        channels = x.feats.shape[1]

        def embed() -> Tensor:
            return position_embedding(x.coords[:, 1:] * self.factor, channels).to(x.dtype)

        return x.sites.cached(("scaled positions", channels, self.factor, x.dtype), embed)


class SparseDiTBlock(nn.Module):
    """Sparse self-attention, cross-attention and feed-forward, as in `ModulatedCrossBlock`.

    Cross-attention has no gate; its norm alone has parameters.
    """

    def __init__(
        self,
        attention: SpatialSparseAttention,
        channels: int,
        context_channels: int,
        mlp_ratio: float,
    ) -> None:
        super().__init__()
        heads = attention.proj_q.out_features // attention.head_dim
        self.norm1 = LayerNorm32(channels, elementwise_affine=False, eps=EPS)
        self.norm2 = LayerNorm32(channels, elementwise_affine=True, eps=EPS)
        self.norm3 = LayerNorm32(channels, elementwise_affine=False, eps=EPS)
        self.self_attn = attention
        self.cross_attn = CrossAttention(channels, context_channels, heads)
        self.mlp = FeedForward(channels, mlp_ratio)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(channels, 6 * channels))

    def mix(
        self,
        stream: Stream,
        place: SparseTensor,  # whose rows the stream's are, in block order
        modulation: Tensor,  # [B, 6 C] of the items, or [1, 6 C] of all
        context: Context,
    ) -> None:
        """The block's three branches, added to the stream."""
        rows = stream.rows
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation.chunk(6, -1)
        # As the reference rounds: blocks of nearly equal weight are then chosen as it chooses them,
        # which a single rounding, though more exact, does not do.
        h = stream.normed(Norm(EPS, scale=scale_attn, shift=shift_attn, stepwise=True))
        stream.add(Update(self.self_attn(place.replace(h)).feats, gate_attn))

        kv = context if isinstance(context, KeysValues) else self.cross_attn.keys_values(context)
        asking = rows.head(kv.open_items).total
        h = stream.normed(Norm(EPS, self.norm2.weight, self.norm2.bias, rows=asking))
        stream.add(Update(self.cross_attn.attended(h, kv, rows), rest=kv.settled))

        h = stream.normed(Norm(EPS, scale=scale_mlp, shift=shift_mlp))
        stream.add(Update(self.mlp(h), gate_mlp))
