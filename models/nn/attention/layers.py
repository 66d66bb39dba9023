"""Multi-head self- and cross-attention as modules, under the parameter names of the checkpoints.

They know rows of tokens, dense or packed, and no coordinates; `SparseSelfAttention` takes those
from its tensor. Self-attention projects with one `to_qkv`, cross-attention with `to_q` and `to_kv`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.nn.attention.functional import attend_varlen
from models.nn.attention.qk_norm import QKRMSNorm
from models.nn.attention.segments import Segments
from models.nn.attention.windows import Window, partition
from models.nn.fused import qk_rms_norm
from models.nn.sparse_tensor import SparseTensor


class SelfAttention(nn.Module):
    """Every row attends to all rows of its item.

    qk_rms_norm: normalise queries and keys head by head (`q_rms_norm`, `k_rms_norm`).
    """

    def __init__(self, channels: int, heads: int, *, qk_rms_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.q_rms_norm: QKRMSNorm | None = None
        self.k_rms_norm: QKRMSNorm | None = None
        if qk_rms_norm:
            self.q_rms_norm = QKRMSNorm(heads, channels // heads)
            self.k_rms_norm = QKRMSNorm(heads, channels // heads)
        self.to_out = nn.Linear(channels, channels)
        self._bound: tuple[object, float] | None = None

    def score_bound(self) -> float | None:
        """What no score, |q k| / sqrt(D), exceeds behind the norms; None without them, or on a CPU.

        Both have length sqrt(D) before their gains. The device is asked once: weights stay.
        """
        if self.q_rms_norm is None or self.k_rms_norm is None:
            return None
        gains = self.q_rms_norm.gamma, self.k_rms_norm.gamma
        if not gains[0].is_cuda or torch.compiler.is_compiling():
            return None
        known = tuple((id(gain), gain._version) for gain in gains)
        if self._bound is None or self._bound[0] != known:
            most = (gains[0] * gains[1]).abs().max() * gains[0].shape[1] ** 0.5
            self._bound = known, float(most)
        return self._bound[1]

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, C] -> queries, keys and values, each [N, H, D]."""
        qkv = self.to_qkv(x).view(len(x), 3, self.heads, -1)
        if self.q_rms_norm is not None and self.k_rms_norm is not None:
            return qk_rms_norm(qkv, self.q_rms_norm.gamma, self.k_rms_norm.gamma)
        q, k, v = qkv.unbind(1)
        return q, k, v

    def forward(
        self,
        x: Tensor,  # [B, L, C], or [N, C] with `rows`
        rows: Segments | None = None,  # of a packed x: the rows of each item
    ) -> Tensor:
        if rows is None:
            rows = Segments([x.shape[1]] * x.shape[0])
        q, k, v = self.project(x.reshape(-1, x.shape[-1]))
        h = attend_varlen(q, k, v, rows, rows, self.score_bound())
        out: Tensor = self.to_out(h.flatten(1))
        return out.view(x.shape)


class SparseSelfAttention(SelfAttention):
    """Every voxel attends to all voxels of its item, or of its window where one is given."""

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        qk_rms_norm: bool = False,
        window: Window | None = None,
    ) -> None:
        super().__init__(channels, heads, qk_rms_norm=qk_rms_norm)
        self.window = window

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        if self.window is None:
            return x.replace(super().forward(x.feats, item_rows(x)))
        place = partition(x.sites, self.window)
        q, k, v = self.project(x.feats.index_select(0, place.order))
        h = attend_varlen(q, k, v, place.windows, place.windows, self.score_bound())
        return x.replace(self.to_out(h.flatten(1).index_select(0, place.back)))


def item_rows(x: SparseTensor) -> Segments:
    """The rows of each batch item, kept with the sites."""
    return x.sites.cached("item_rows", lambda: Segments(x.counts))


@dataclass(frozen=True)
class KeysValues:
    """A context as one cross-attention layer sees it, packed: made once, used at every step.

    settled: what the layer answers every row of the last J items, whose context is a single token:
             there is nothing to choose from, so a query changes nothing. None: of no item.
    """

    k: Tensor  # [M, H, D]
    v: Tensor  # [M, H, D]
    rows: Segments  # of each item
    settled: Tensor | None = None  # [J, C]

    @property
    def open_items(self) -> int:
        """How many items, the first ones, have something to attend to."""
        return len(self.rows) - (0 if self.settled is None else len(self.settled))


Context = Tensor | KeysValues
"""Tokens of a context, [B, M, C'], or what a layer's `keys_values` made of them."""


class CrossAttention(nn.Module):
    """Every row attends to all tokens of its item's context."""

    def __init__(self, channels: int, context_channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels)
        self.to_kv = nn.Linear(context_channels, 2 * channels)
        self.to_out = nn.Linear(channels, channels)

    def keys_values(self, context: Tensor | Sequence[Tensor]) -> KeysValues:
        """Project a context, [B, M, C'] or items [M_i, C'] of any lengths, for all steps to come.

        A context of equal tokens, such as the zeros of an unconditional pass, weighs as one of
        them: given a single token its result is the same and its attention is free.
        """
        lengths = [item.shape[0] for item in context]
        tokens = context.flatten(0, 1) if isinstance(context, Tensor) else torch.cat([*context])
        kv = self.to_kv(tokens).view(-1, 2, self.heads, self.to_q.out_features // self.heads)
        k, v = kv.unbind(1)
        single = next((i for i, n in enumerate(reversed(lengths)) if n != 1), len(lengths))
        settled = self.to_out(v[len(v) - single :].flatten(1)) if single else None
        return KeysValues(k, v, Segments.shared(lengths), settled)

    def forward(
        self,
        x: Tensor,  # [B, L, C], or [N, C] with `rows`
        context: Context,
        rows: Segments | None = None,  # of a packed x: the rows of each item
    ) -> Tensor:
        if rows is None:
            rows = Segments([x.shape[1]] * x.shape[0])
        kv = context if isinstance(context, KeysValues) else self.keys_values(context)
        items = kv.open_items
        packed = x.reshape(-1, x.shape[-1])
        h = self.attended(packed[: rows.head(items).total], kv, rows)
        if kv.settled is not None:
            late = Segments(rows.lengths[items:])
            h = torch.cat((h, kv.settled.index_select(0, late.item_index(x.device))))
        return h.view(x.shape)

    def attended(
        self,
        x: Tensor,  # [n, C]: the rows of the context's open items, and no others
        kv: KeysValues,
        rows: Segments,  # of all items
    ) -> Tensor:  # [n, C]
        """What the rows find that have something to attend to."""
        if len(x) == 0:
            return x
        queries, keys = rows.head(kv.open_items), kv.rows.head(kv.open_items)
        q = self.to_q(x).view(len(x), self.heads, -1)
        h = attend_varlen(q, kv.k[: keys.total], kv.v[: keys.total], queries, keys)
        out: Tensor = self.to_out(h.flatten(1))
        return out
