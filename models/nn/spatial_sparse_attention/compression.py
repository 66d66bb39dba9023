"""One key, or value, for each block of voxels: the compression branch's two official forms.

They know no attention. "v1" (release 1.1) is a linear layer and SiLU on each voxel, then a mean;
"v2" (release 1.0) is a mean, then a residual block on the coarse grid. Both means divide by one
more than the voxels of a block; the checkpoints were trained so.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F  # noqa: N812
from torch import nn

from models.nn.resample import downsample
from models.nn.sparse_conv import SparseConv3d
from models.nn.sparse_layers import SparseGroupNorm32
from models.nn.sparse_tensor import SparseTensor

GROUPS = 32


class SparseSiLU(nn.Module):
    """x * sigmoid(x) of each feature."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.replace(F.silu(x.feats))


class CompressionV1(nn.Module):
    """[N, C] -> [M, C]: 1^3 convolution, SiLU, mean of each block.

    In half precision the product is rounded before the bias is added, as torchsparse does it: a
    key rounded otherwise now and then ranks two blocks of nearly equal weight the other way round.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.act_layers = nn.Sequential(
            SparseConv3d(channels, channels, 1, layout="torchsparse"), SparseSiLU()
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        conv = cast(SparseConv3d, self.act_layers[0]).conv
        h = F.silu(x.feats @ conv.get_parameter("kernel") + conv.get_parameter("bias"))
        return downsample(x.replace(h), self.size, mean="trellis")


class CompressionV2(nn.Module):
    """[N, C] -> [M, C]: norm, SiLU, mean of each block, two convolutions there; the mean added."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.act_layers = nn.Sequential(SparseGroupNorm32(GROUPS, channels), SparseSiLU())
        self.out_layers = nn.Sequential(
            SparseConv3d(channels, channels, 3, layout="torchsparse"),
            SparseGroupNorm32(GROUPS, channels),
            SparseSiLU(),
            SparseConv3d(channels, channels, 3, layout="torchsparse"),
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        h = self.out_layers(downsample(self.act_layers(x), self.size, mean="trellis"))
        out: SparseTensor = h + downsample(x, self.size, mean="trellis")
        return out


COMPRESSIONS = {"v1": CompressionV1, "v2": CompressionV2}
