"""Queries and keys brought to one length per head before they meet: QK-normalisation.

Knows no attention. Root-mean-square form (Zhang & Sennrich 2019) of "Query-Key Normalization for
Transformers" (Henry et al. 2020), with a learnt gain for each channel of each head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class QKRMSNorm(nn.Module):
    """x / |x| * gamma * sqrt(D), computed in fp32 whatever the dtype of x."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, width))  # [H, D], fp32 in every checkpoint
        self.gain = width**0.5

    def forward(self, x: Tensor) -> Tensor:  # [..., H, D] -> [..., H, D]
        normed: Tensor = F.normalize(x.float(), dim=-1) * (self.gamma * self.gain)
        return normed.to(x.dtype)
