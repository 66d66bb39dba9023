"""Attention over a dense batch (`attend`) and over packed sequences (`attend_varlen`).

    attend(q, k, v)                                [B, L, H, D] x [B, M, H, D] -> [B, L, H, D]
    attend_varlen(q, k, v, q_lengths, k_lengths)   [N, H, D] x [M, H, D] -> [N, H, D]

Neither knows where q, k and v come from, nor what a row stands for. `layers` has the modules built
on them; `windows` says which voxels attend to one another.
"""

from models.nn.attention.functional import attend, attend_varlen
from models.nn.attention.layers import (
    Context,
    CrossAttention,
    KeysValues,
    SelfAttention,
    SparseSelfAttention,
    item_rows,
)
from models.nn.attention.qk_norm import QKRMSNorm
from models.nn.attention.segments import Segments
from models.nn.attention.windows import Partition, Window, partition

__all__ = [
    "Context",
    "CrossAttention",
    "KeysValues",
    "Partition",
    "QKRMSNorm",
    "Segments",
    "SelfAttention",
    "SparseSelfAttention",
    "Window",
    "attend",
    "attend_varlen",
    "item_rows",
    "partition",
]
