"""The mesh decoder: a structured latent becomes 101 numbers for each voxel of a grid 4 times finer.

It ends where `voxel_mesh` begins: it knows no vertices and no faces.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.image_to_mesh.trellis.slat_decoder import SlatDecoder
from models.image_to_mesh.trellis.voxel_mesh import CHANNELS
from models.nn.resample import subdivide
from models.nn.sparse_conv import SparseConv3d
from models.nn.sparse_layers import SparseGroupNorm32
from models.nn.sparse_tensor import SparseTensor

GROUPS = 32


class SlatMeshDecoder(SlatDecoder):
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
        super().__init__(
            resolution,
            model_channels,
            latent_channels,
            num_blocks,
            num_heads,
            mlp_ratio,
            window_size,
            qk_rms_norm,
        )
        wide = model_channels
        self.upsample = nn.ModuleList(
            [_Subdivide(wide, wide // 4), _Subdivide(wide // 4, wide // 8)]
        )
        self.out_layer = nn.Linear(wide // 8, CHANNELS)

    @property
    def out_resolution(self) -> int:
        return self.resolution * 4

    def forward(self, x: SparseTensor) -> SparseTensor:
        """[N, latent_channels] -> [64 N, 101] on voxels of a quarter the edge, the dtype of x."""
        h = self.features(x)
        for block in self.upsample:
            h = block(h)
        return h.replace(self.out_layer(h.feats.to(x.dtype)))


class _Subdivide(nn.Module):
    """Each voxel becomes eight, all of them; two convolutions tell them apart."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.act_layers = nn.Sequential(SparseGroupNorm32(GROUPS, channels), _SiLU())
        self.out_layers = nn.Sequential(
            SparseConv3d(channels, out_channels, 3),
            SparseGroupNorm32(GROUPS, out_channels),
            _SiLU(),
            SparseConv3d(out_channels, out_channels, 3),
        )
        self.skip_connection = SparseConv3d(channels, out_channels, 1)

    def forward(self, x: SparseTensor) -> SparseTensor:  # [N, C] -> [8 N, C']
        h: SparseTensor = self.out_layers(subdivide(self.act_layers(x)))
        skip = subdivide(self.skip_connection(x))  # of one voxel: the same before as after
        return h.replace(h.feats + skip.feats)


class _SiLU(nn.Module):
    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.replace(F.silu(x.feats))
