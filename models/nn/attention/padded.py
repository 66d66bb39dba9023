"""Sequences of many lengths as a few padded batches with a mask: varlen for a kernel without it.

Knows no kernel: `attend` is given. Sequences of like length share a batch, so that little of what
is computed is padding.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.nn.attention.segments import Segments

STEPS_PER_DOUBLING = 4
"""Batches for lengths from n to 2n. Four: a padded sequence is at most 1.19 times its length."""


class MaskedAttend(Protocol):
    def __call__(
        self,
        q: Tensor,  # [S, L, H, D]
        k: Tensor,  # [S, M, H, D]
        v: Tensor,  # [S, M, H, D]
        mask: Tensor,  # bool [S, 1, 1, M], True: attend
    ) -> Tensor: ...  # [S, L, H, D]


@dataclass(frozen=True)
class Batch:
    """Sequences of like length. Past the end of one its last row repeats; the mask hides it."""

    q_rows: Tensor  # int64 [S, L], row of q
    k_rows: Tensor  # int64 [S, M], row of k and v
    mask: Tensor  # bool [S, 1, 1, M]


@dataclass(frozen=True)
class Plan:
    """batches, and where in their outputs, one after the other, each row of q is found."""

    batches: tuple[Batch, ...]
    where: Tensor  # int64 [N]


def attend_varlen(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, H, D]
    v: Tensor,  # [M, H, D]
    queries: Segments,
    keys: Segments,
    attend: MaskedAttend,
) -> Tensor:  # [N, H, D]
    plan = plan_for(queries, keys, q.device)
    outputs = [
        attend(q[batch.q_rows], k[batch.k_rows], v[batch.k_rows], batch.mask).flatten(0, 1)
        for batch in plan.batches
    ]
    return torch.cat(outputs).index_select(0, plan.where)


def plan_for(queries: Segments, keys: Segments, device: torch.device) -> Plan:
    """The plan for these lengths on this device, kept with `queries`."""
    return queries.cached(
        ("padded", keys.lengths, device), lambda: make_plan(queries, keys, device)
    )


def make_plan(queries: Segments, keys: Segments, device: torch.device) -> Plan:
    alike = defaultdict(list)
    for sequence, (length, width) in enumerate(zip(queries.lengths, keys.lengths, strict=True)):
        if length:
            alike[_step(length), _step(width)].append(sequence)

    batches, where = [], torch.empty(queries.total, dtype=torch.int64)
    first = 0
    for _, sequences in sorted(alike.items()):
        chosen = torch.tensor(sequences)
        q_rows, q_real = _rows(queries, chosen)
        k_rows, k_real = _rows(keys, chosen)
        where[q_rows[q_real]] = first + q_real.flatten().nonzero().squeeze(1)
        first += q_rows.numel()
        batches.append(
            Batch(q_rows.to(device), k_rows.to(device), k_real[:, None, None].to(device))
        )
    return Plan(tuple(batches), where.to(device))


def _step(length: int) -> int:
    return math.ceil(STEPS_PER_DOUBLING * math.log2(length))


def _rows(segments: Segments, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [S, longest of the chosen] of each chosen sequence, and which of them are real."""
    lengths = torch.tensor(segments.lengths)
    starts = lengths.cumsum(0) - lengths
    lengths, starts = lengths[chosen, None], starts[chosen, None]
    place = torch.arange(int(lengths.max()))[None]
    return starts + place.minimum(lengths - 1), place < lengths
