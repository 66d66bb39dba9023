"""TRELLIS's flow of the structured latent, led by several views at once.

Every block asks each view the same question and takes the mean of the answers. It knows contexts as
keys and values of views; how views became tokens it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from models.image_to_mesh.trellis.slat_flow import SlatFlow
from models.nn.attention import CrossAttention, KeysValues, Segments, attend_varlen
from models.nn.transformer import ModulatedCrossBlock


@dataclass(frozen=True)
class ViewKeysValues(KeysValues):
    """`rows` are those of each view of the first item; what is settled are items behind it."""

    @property
    def open_items(self) -> int:
        return 1

    @property
    def views(self) -> int:
        return len(self.rows) - (0 if self.settled is None else len(self.settled))


class MultiViewCrossAttention(CrossAttention):
    """Cross-attention to each view of an item, and the mean over them."""

    def keys_values(self, context: Tensor | Sequence[Tensor]) -> KeysValues:
        """Of the views of one item, [n, M, C'] or [M_i, C'] each; a single view is a context like
        any other."""
        kv = super().keys_values(context)
        return kv if len(kv.rows) == 1 else ViewKeysValues(kv.k, kv.v, kv.rows)

    def attended(
        self,
        x: Tensor,  # [L, C], the rows of the item with views, and no others
        kv: KeysValues,
        rows: Segments,  # of all items
    ) -> Tensor:  # [L, C]
        if not isinstance(kv, ViewKeysValues):
            return super().attended(x, kv, rows)
        if len(rows) != len(kv.rows) - kv.views + 1:
            raise ValueError(f"views lead one item of {len(rows)}; the others take one token each")
        q = self.to_q(x).view(len(x), self.heads, -1)
        asked = q.expand(kv.views, *q.shape).flatten(0, 1)
        seen = kv.rows.head(kv.views)
        k, v = kv.k[: seen.total], kv.v[: seen.total]
        answers = attend_varlen(asked, k, v, [len(x)] * kv.views, seen)
        # The projection is linear: of the mean it is the mean of the projections, and costs one.
        h = answers.unflatten(0, (kv.views, -1)).mean(0)
        out: Tensor = self.to_out(h.flatten(1))
        return out


def led_by_views(flow: SlatFlow) -> SlatFlow:
    """The flow, changed in place: `contexts` takes the views of one item. Parameters stay."""
    for block in flow.blocks:
        one = cast(ModulatedCrossBlock, block).cross_attn
        many = MultiViewCrossAttention(one.to_q.in_features, one.to_kv.in_features, one.heads)
        many.to_q, many.to_kv, many.to_out = one.to_q, one.to_kv, one.to_out
        block.cross_attn = many
    return flow
