"""What the decoders of the structured latent share: windowed transformer blocks on its voxels.

It knows neither meshes nor Gaussians: `mesh_decoder` and `gaussian_decoder` give it an end.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from models.nn.attention import item_rows
from models.nn.embeddings import position_embedding
from models.nn.precision import torso_dtype
from models.nn.sparse_tensor import SparseTensor
from models.nn.sparse_transformer import SparseBlock, swin_window
from models.nn.transformer import Stream


class SlatDecoder(nn.Module):
    """A latent [N, latent_channels] on resolution^3 voxels -> features [N, model_channels]."""

    def __init__(
        self,
        resolution: int,
        model_channels: int,
        latent_channels: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: float = 4,
        window_size: int = 8,
        qk_rms_norm: bool = False,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.latent_channels = latent_channels
        self.input_layer = nn.Linear(latent_channels, model_channels)
        self.blocks = nn.ModuleList(
            SparseBlock(
                model_channels,
                num_heads,
                mlp_ratio=mlp_ratio,
                qk_rms_norm=qk_rms_norm,
                window=swin_window(window_size, index),
            )
            for index in range(num_blocks)
        )

    def features(self, x: SparseTensor) -> SparseTensor:
        """[N, latent_channels] -> [N, model_channels], in the torso's dtype."""
        h = self.input_layer(x.feats)
        positions: Tensor = position_embedding(x.coords[:, 1:], h.shape[1])
        stream = Stream((h + positions).to(torso_dtype(self)), item_rows(x))
        for block in self.blocks:
            cast(SparseBlock, block).mix(stream, x)
        return x.replace(stream.value())
