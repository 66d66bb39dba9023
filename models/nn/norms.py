"""Normalisations that compute in fp32 whatever the dtype of what they are given.

They know no network: a torso in half precision gets its own dtype back.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class LayerNorm32(nn.LayerNorm):
    """Layer normalisation (Ba et al. 2016) of [..., C] in fp32; parameters, if any, stay fp32."""

    def forward(self, x: Tensor) -> Tensor:  # [..., C] -> [..., C]
        normed = F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.to(x.dtype)
