"""`attend` and `attend_varlen`: check the shapes once, pick a backend, compute.

Knows no kernel: each backend is a file beside this one, and `reference` is what they are held to.
Formula: softmax(q k^T / sqrt(D)) v, "Attention Is All You Need" (Vaswani et al. 2017), eq. 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from models.nn.attention.choice import dense_backend, varlen_backend
from models.nn.attention.segments import Segments


def attend(
    q: Tensor,  # [B, L, H, D]
    k: Tensor,  # [B, M, H, D]
    v: Tensor,  # [B, M, H, D]
    bound: float | None = None,
) -> Tensor:  # [B, L, H, D]
    """Each query of an item attends to all keys of the item, head by head.

    bound: what no score, |q k| / sqrt(D), exceeds, where that is known; the result is the same.
    """
    return dense_backend(q).attend(q, k, v, bound=bound)


def attend_varlen(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, H, D]
    v: Tensor,  # [M, H, D]
    q_lengths: Segments | Sequence[int],  # S lengths with sum N
    k_lengths: Segments | Sequence[int],  # S lengths with sum M
    bound: float | None = None,  # as `attend` takes them
) -> Tensor:  # [N, H, D]
    """Sequence i of q attends to sequence i of k and v, and to nothing else.

    Sequences of one length are a dense batch and computed as such, without a copy.
    """
    queries, keys = Segments.of(q_lengths), Segments.of(k_lengths)
    _check(q, k, v, queries, keys)
    if queries.total == 0:
        return q
    if queries.uniform and keys.uniform:
        dense = _dense(q, queries), _dense(k, keys), _dense(v, keys)
        return attend(*dense, bound=bound).flatten(0, 1)
    return varlen_backend(q).attend_varlen(q, k, v, queries, keys, bound=bound)


def _dense(x: Tensor, rows: Segments) -> Tensor:  # [N, H, D] -> [S, N / S, H, D]
    return x.view(len(rows), rows.longest, *x.shape[1:])


def _check(q: Tensor, k: Tensor, v: Tensor, queries: Segments, keys: Segments) -> None:
    if q.shape[0] != queries.total:
        raise ValueError(f"q has {q.shape[0]} rows, its lengths sum to {queries.total}.")
    if k.shape[0] != keys.total or v.shape[0] != keys.total:
        raise ValueError(
            f"k and v have {k.shape[0]} and {v.shape[0]} rows, their lengths sum to {keys.total}."
        )
    if len(queries) != len(keys):
        raise ValueError(f"{len(queries)} sequences of queries face {len(keys)} of keys.")
    if keys.shortest == 0:
        for i, (length, width) in enumerate(zip(queries.lengths, keys.lengths, strict=True)):
            if length and not width:
                raise ValueError(f"Sequence {i} has {length} queries and no keys to attend to.")
