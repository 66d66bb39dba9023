"""TRELLIS's flow of the structured latent, led by several views at once.

Every block asks each view the same question and takes the mean of the answers. It knows contexts as
keys and values of views; how views became tokens it does not know.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from models.image_to_mesh.trellis.slat_flow import SlatFlow
from models.nn.attention import Context, CrossAttention, KeysValues, Segments, attend_varlen
from models.nn.transformer import ModulatedCrossBlock


class MultiViewCrossAttention(CrossAttention):
    """Cross-attention to each of an item's views, and the mean over them.

    A context holds the views of each item one after the other, equally many of each.
    """

    def forward(
        self,
        x: Tensor,  # [B, L, C], or [N, C] with `rows`
        context: Context,
        rows: Segments | None = None,  # of a packed x: the rows of each item
    ) -> Tensor:
        kv = context if isinstance(context, KeysValues) else self.keys_values(context)
        rows = Segments([x.shape[1]] * x.shape[0]) if rows is None else rows
        views, left = divmod(len(kv.rows), len(rows))
        if left or not views:
            raise ValueError(f"{len(kv.rows)} views do not divide among {len(rows)} items.")
        q = self.to_q(x).view(rows.total, self.heads, -1)  # [N, H, D]
        # The projection out is linear: the mean before it is the mean after it, at a share of the
        # cost.
        h = _mean_over_views(q, kv, rows, views)
        out: Tensor = self.to_out(h.flatten(1).view(x.shape))
        return out


def _mean_over_views(
    q: Tensor,  # [N, H, D]
    kv: KeysValues,
    rows: Segments,  # of q: of each item
    views: int,
) -> Tensor:  # [N, H, D]
    if views == 1:
        return attend_varlen(q, kv.k, kv.v, rows, kv.rows)
    asked = torch.cat([q[item] for item in rows.slices() for _ in range(views)])
    lengths = [length for length in rows.lengths for _ in range(views)]
    answers = attend_varlen(asked, kv.k, kv.v, lengths, kv.rows)
    of_items = answers.split([views * length for length in rows.lengths])
    return torch.cat([item.unflatten(0, (views, -1)).mean(0) for item in of_items])


def led_by_views(flow: SlatFlow) -> SlatFlow:
    """The flow, changed in place to take several views of an item; its parameters stay the same."""
    for block in flow.blocks:
        one = cast(ModulatedCrossBlock, block).cross_attn
        many = MultiViewCrossAttention(one.to_q.in_features, one.to_kv.in_features, one.heads)
        many.to_q, many.to_kv, many.to_out = one.to_q, one.to_kv, one.to_out
        block.cross_attn = many
    return flow
