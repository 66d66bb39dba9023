"""A flow network as the sampler sees it: x, t and several conditions in, a velocity for each out.

It does not know guidance or schedules. Conditions are computed one forward pass each, or all in one
batch: the same result, with fewer and larger products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import is_
from typing import Any, Protocol

import torch
from torch import Tensor

from models.nn.attention import KeysValues, Segments
from models.nn.replay import Replayed
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
    """Of a network on [B, ...]: `network(x, time, condition)`.

    time: [B] in thousandths; where `clock` is given, what it tells.
    """

    def __init__(
        self, network: Callable[..., Tensor], *, batched: bool = False, clock: Clock | None = None
    ) -> None:
        self.network = network
        self.batched = batched
        self.clock = clock or thousandths
        self._join = Joiner()

    def __call__(self, x: Tensor, t: float, conditions: Sequence[Condition]) -> list[Tensor]:
        if not self.batched or len(conditions) == 1:
            time = self.clock(t, x.shape[0], x.device)
            return [self.network(x, time, condition) for condition in conditions]
        n = len(conditions)
        time = self.clock(t, n * x.shape[0], x.device)
        return list(self.network(torch.cat([x] * n), time, self._join(conditions)).chunk(n))


class SparseVelocity:
    """Of a network on a SparseTensor; x is the features [N, C] on the sites of `template`.

    Sites are those of `template` at every step, so kernel maps and windows are made once.
    recorded: passes become CUDA graphs (`Replayed`), which takes a `clock` and `KeysValues`.
    """

    def __init__(
        self,
        network: Callable[..., SparseTensor],
        template: SparseTensor,
        *,
        batched: bool = False,
        clock: Clock | None = None,
        recorded: bool = False,
    ) -> None:
        self.network = network
        self.batched = batched
        self.clock = clock or thousandths
        self._copies = {1: template}
        plainly = _SparsePass(network, self._copies)
        self._pass: Callable[..., Tensor] = Replayed(plainly) if recorded else plainly
        self._join = Joiner()

    def __call__(self, x: Tensor, t: float, conditions: Sequence[Condition]) -> list[Tensor]:
        if not self.batched or len(conditions) == 1:
            return [self._run(x, t, 1, condition) for condition in conditions]
        n = len(conditions)
        return list(self._run(torch.cat([x] * n), t, n, self._join(conditions)).chunk(n))

    def _run(self, x: Tensor, t: float, n: int, condition: Condition) -> Tensor:
        if n not in self._copies:
            self._copies[n] = SparseTensor.cat([self._copies[1]] * n)
        time = self.clock(t, self._copies[n].batch_size, x.device)
        return self._pass(x, time, condition)


@dataclass(frozen=True)
class _SparsePass:
    """The network on features [n N, C] of n copies of the sites."""

    network: Callable[..., SparseTensor]
    copies: dict[int, SparseTensor]

    def __call__(self, x: Tensor, time: Any, condition: Condition) -> Tensor:
        place = self.copies[len(x) // len(self.copies[1].feats)]
        return self.network(place.replace(x), time, condition).feats


class Clock(Protocol):
    """What a network is told of a time, the same for all items of a batch."""

    def __call__(self, t: float, batch: int, device: torch.device) -> Any: ...


class KnownTimes:
    """Tells the modulations of a time, made for all steps of a sampling in one go.

    modulations: [T] in thousandths -> each layer's [T, C]. A network takes a row of each, [1, C],
    in place of the time they are made of.
    """

    def __init__(
        self,
        modulations: Callable[[Tensor], Sequence[Tensor]],
        times: Sequence[float],
        device: torch.device,
    ) -> None:
        self._row = {t: row for row, t in enumerate(dict.fromkeys(times))}
        thousands = 1000 * torch.tensor(list(self._row), dtype=torch.float64)
        self._tables = tuple(modulations(thousands.float().to(device)))

    def __call__(self, t: float, batch: int, device: torch.device) -> tuple[Tensor, ...]:
        row = self._row[t]
        return tuple(table[row : row + 1] for table in self._tables)


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
        k, v = (_packed([getattr(each, part) for each in _read(conditions)]) for part in "kv")
        return replace(first, k=k, v=v, rows=Segments.shared(lengths), settled=_settled(conditions))
    return tuple(join(layer) for layer in zip(*conditions, strict=True))


def _read(conditions: Sequence[KeysValues]) -> Sequence[KeysValues]:
    """All but the last that are settled: what they hold is read by nobody."""
    last = max((i for i, each in enumerate(conditions) if each.open_items), default=0)
    return conditions[: last + 1]


def _packed(parts: Sequence[Tensor]) -> Tensor:
    """Many views take gigabytes: the only part there is, is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat([*parts])


def _settled(conditions: Sequence[KeysValues]) -> Tensor | None:
    """Of the last items of the batch, as far back as all are settled."""
    parts: list[Tensor] = []
    for each in reversed(conditions):
        if each.settled is not None:
            parts.insert(0, each.settled)
        if each.open_items:
            break
    return torch.cat(parts) if parts else None
