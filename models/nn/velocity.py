"""A flow network as the sampler sees it: x, t and several conditions in, a velocity for each out.

It does not know guidance or schedules. Conditions are computed one forward pass each, or all in one
batch: the same result, with fewer and larger products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, Protocol

import torch
from torch import Tensor

from models.nn.attention import KeysValues, Segments
from models.nn.sparse_tensor import SparseTensor

Condition = Any
"""Tokens [B, M, C], a `KeysValues`, or a sequence of these: whatever the network takes."""


class Velocity(Protocol):
    def __call__(
        self,
        x: Tensor,  # [B, ...] or [N, C]
        t: float,  # 1: noise, 0: sample
        conditions: Sequence[Condition],
    ) -> list[Tensor]: ...  # of the shape of x, one for each condition


class DenseVelocity:
    """Of a network on [B, ...]: `network(x, times [B] in thousandths, condition)`."""

    def __init__(self, network: Callable[..., Tensor], *, batched: bool = False) -> None:
        self.network = network
        self.batched = batched
        self._join = Joiner()

    def __call__(self, x: Tensor, t: float, conditions: Sequence[Condition]) -> list[Tensor]:
        if not self.batched or len(conditions) == 1:
            times = thousandths(t, x.shape[0], x.device)
            return [self.network(x, times, condition) for condition in conditions]
        n = len(conditions)
        times = thousandths(t, n * x.shape[0], x.device)
        return list(self.network(torch.cat([x] * n), times, self._join(conditions)).chunk(n))


class SparseVelocity:
    """Of a network on a SparseTensor; x is the features [N, C] on the sites of `template`.

    Sites are those of `template` at every step, so kernel maps and windows are made once.
    """

    def __init__(
        self,
        network: Callable[..., SparseTensor],
        template: SparseTensor,
        *,
        batched: bool = False,
    ) -> None:
        self.network = network
        self.batched = batched
        self._copies = {1: template}
        self._join = Joiner()

    def __call__(self, x: Tensor, t: float, conditions: Sequence[Condition]) -> list[Tensor]:
        if not self.batched or len(conditions) == 1:
            return [self._run(x, t, 1, condition) for condition in conditions]
        n = len(conditions)
        return list(self._run(torch.cat([x] * n), t, n, self._join(conditions)).chunk(n))

    def _run(self, x: Tensor, t: float, n: int, condition: Condition) -> Tensor:
        if n not in self._copies:
            self._copies[n] = SparseTensor.cat([self._copies[1]] * n)
        place = self._copies[n]
        times = thousandths(t, place.batch_size, x.device)
        return self.network(place.replace(x), times, condition).feats


def thousandths(t: float, batch: int, device: torch.device) -> Tensor:
    """fp32 [batch] of 1000 t: the networks were trained on thousandths."""
    return torch.full((batch,), 1000 * t, dtype=torch.float32, device=device)


class Joiner:
    """Conditions of several passes as those of one batch; the last joined serve until others come.

    One image's serve all steps. Where images take turns they are joined at each: a copy costs
    little, keeping every pair would cost memory by the number of images.
    """

    def __init__(self) -> None:
        self._known: tuple[Condition, ...] = ()
        self._joined: Condition = None

    def __call__(self, conditions: Sequence[Condition]) -> Condition:
        same = len(self._known) == len(conditions) and all(map(is_, self._known, conditions))
        if not same:
            self._known, self._joined = tuple(conditions), join(conditions)
        return self._joined


def join(conditions: Sequence[Condition]) -> Condition:
    """One batch of all items of all conditions, in order.

    Token tensors must be of one length; `KeysValues` need not, which keeps the negative's single
    token single.
    """
    first = conditions[0]
    if isinstance(first, Tensor):
        if any(other.shape[1:] != first.shape[1:] for other in conditions):
            shapes = ", ".join(str(list(other.shape)) for other in conditions)
            raise ValueError(f"conditions of {shapes} do not make a batch; give `KeysValues`.")
        return torch.cat([*conditions])
    if isinstance(first, KeysValues):
        lengths = [length for each in conditions for length in each.rows.lengths]
        k = torch.cat([each.k for each in conditions])
        v = torch.cat([each.v for each in conditions])
        return KeysValues(k, v, Segments(lengths))
    return [join(layer) for layer in zip(*conditions, strict=True)]
