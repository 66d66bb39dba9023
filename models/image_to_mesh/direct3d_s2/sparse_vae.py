"""The sparse autoencoder, encoder and decoder under the names of the checkpoint.

It only joins them: see `sparse_encoder` and `sparse_decoder`.
"""

from __future__ import annotations

from torch import nn

from models.image_to_mesh.direct3d_s2.sparse_decoder import SdfDecoder
from models.image_to_mesh.direct3d_s2.sparse_encoder import SdfEncoder


class SparseVae(nn.Module):
    def __init__(
        self,
        embed_dim: int,
        resolution: int,  # of the latent grid
        model_channels_encoder: int,
        num_blocks_encoder: int,
        num_heads_encoder: int,
        model_channels_decoder: int,
        num_blocks_decoder: int,
        num_heads_decoder: int,
        chunk_size: int = 1,
    ) -> None:
        super().__init__()
        self.encoder = SdfEncoder(
            model_channels_encoder, embed_dim, num_blocks_encoder, num_heads_encoder
        )
        self.decoder = SdfDecoder(
            resolution,
            model_channels_decoder,
            embed_dim,
            num_blocks_decoder,
            num_heads_decoder,
            chunk_size=chunk_size,
        )
