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
    """Of one item: `rows` are those of each of its views."""

    @property
    def open_items(self) -> int:
        return 1


class MultiViewCrossAttention(CrossAttention):
    """Cross-attention to each view of the only item, and the mean over them."""

    def keys_values(self, context: Tensor | Sequence[Tensor]) -> KeysValues:
        """Of the views of one item, [n, M, C'] or [M_i, C'] each; a single view is a context like
        any other."""
        kv = super().keys_values(context)
        return kv if len(kv.rows) == 1 else ViewKeysValues(kv.k, kv.v, kv.rows)

    def attended(
        self,
        x: Tensor,  # [L, C], all rows of the item
        kv: KeysValues,
        rows: Segments,  # of the item
    ) -> Tensor:  # [L, C]
        if not isinstance(kv, ViewKeysValues):
            return super().attended(x, kv, rows)
        if len(rows) != 1:
            raise ValueError(f"views lead one item at a time, not {len(rows)}")
        views = len(kv.rows)
        q = self.to_q(x).view(len(x), self.heads, -1)
        asked = q.expand(views, *q.shape).flatten(0, 1)
        answers = attend_varlen(asked, kv.k, kv.v, [len(x)] * views, kv.rows)
        # The projection is linear: of the mean it is the mean of the projections, and costs one.
        seen = answers.unflatten(0, (views, -1)).mean(0)
        out: Tensor = self.to_out(seen.flatten(1))
        return out


def led_by_views(flow: SlatFlow) -> SlatFlow:
    """The flow, changed in place: `contexts` takes the views of one item. Parameters stay."""
    for block in flow.blocks:
        one = cast(ModulatedCrossBlock, block).cross_attn
        many = MultiViewCrossAttention(one.to_q.in_features, one.to_kv.in_features, one.heads)
        many.to_q, many.to_kv, many.to_out = one.to_q, one.to_kv, one.to_out
        block.cross_attn = many
    return flow
