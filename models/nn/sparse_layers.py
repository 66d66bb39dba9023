"""Layers that act on the rows of a sparse tensor: linear, and group normalisation per batch item.

They know nothing of where the rows are, but for the item each belongs to.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.nn.sparse_tensor import SparseTensor


class SparseLinear(nn.Linear):
    """A linear layer on the features of each voxel."""

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        return x.replace(super().forward(x.feats))


class SparseGroupNorm32(nn.GroupNorm):
    """Group normalisation (Wu & He 2018) in fp32, over all voxels of each batch item.

    The result has the dtype of the input; parameters stay fp32.
    """

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        out = torch.empty_like(x.feats)
        for rows in x.layout:
            if rows.stop > rows.start:
                out[rows] = self._normalise(x.feats[rows].float())
        return x.replace(out)

    def _normalise(
        self,
        feats: Tensor,  # fp32 [n, C], n > 0
    ) -> Tensor:  # fp32 [n, C]
        groups = feats.unflatten(1, (self.num_groups, -1))
        variance, mean = torch.var_mean(groups, dim=(0, 2), correction=0)
        scale = torch.rsqrt(variance + self.eps)[:, None].expand(groups.shape[1:]).flatten()
        shift = -mean[:, None].expand(groups.shape[1:]).flatten() * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        return torch.addcmul(shift, feats, scale)
