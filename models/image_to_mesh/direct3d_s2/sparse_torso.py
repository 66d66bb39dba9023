"""What encoder and decoder of the sparse autoencoder share: windowed blocks on latent voxels.

It knows no signed distance; the two give it an end each.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.nn.embeddings import position_embedding
from models.nn.precision import torso_dtype
from models.nn.sparse_tensor import SparseTensor
from models.nn.sparse_transformer import SparseBlock, swin_window

WINDOW = 8


class SparseTorso(nn.Module):
    """[N, in_channels] -> [N, model_channels] on the same voxels."""

    def __init__(
        self,
        in_channels: int,
        model_channels: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: float = 4,
    ) -> None:
        super().__init__()
        self.input_layer = nn.Linear(in_channels, model_channels)
        self.blocks = nn.ModuleList(
            SparseBlock(
                model_channels, num_heads, mlp_ratio=mlp_ratio, window=swin_window(WINDOW, index)
            )
            for index in range(num_blocks)
        )

    def features(
        self,
        x: SparseTensor,  # [N, in_channels]
        factor: float = 1.0,  # of the coordinates, where positions are embedded
    ) -> SparseTensor:  # in the torso's dtype
        h: Tensor = self.input_layer(x.feats.to(self.input_layer.weight.dtype))
        positions = position_embedding(x.coords[:, 1:] * factor, h.shape[1])
        out = x.replace((h + positions).to(torso_dtype(self)))
        for block in self.blocks:
            out = block(out)
        return out
