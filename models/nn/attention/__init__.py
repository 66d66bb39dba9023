"""Attention over a dense batch (`attend`) and over packed sequences (`attend_varlen`).

    attend(q, k, v)                                [B, L, H, D] x [B, M, H, D] -> [B, L, H, D]
    attend_varlen(q, k, v, q_lengths, k_lengths)   [N, H, D] x [M, H, D] -> [N, H, D]

Neither knows where q, k and v come from, nor what a row stands for.
"""

from models.nn.attention.functional import attend, attend_varlen
from models.nn.attention.segments import Segments

__all__ = ["Segments", "attend", "attend_varlen"]
