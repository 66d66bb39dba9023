"""A network's forward pass recorded once as a CUDA graph, and replayed with other numbers.

It knows tensors and `KeysValues`, not what is computed. A pass of a flow starts some 400 kernels:
beside a fast GPU its host is the slower of the two. A recording takes about as long as a pass.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from models.nn.attention import KeysValues

Pass = Callable[[Tensor, tuple[Tensor, ...], tuple[KeysValues, ...]], Tensor]
"""(x, modulations of the time, keys and values of every block) -> a tensor."""


class Replayed:
    """`function`, run as it is at the first call of each shape, recorded at the second.

    What it reads besides its arguments, such as weights, must stay where it is.
    """

    def __init__(self, function: Pass) -> None:
        self._function = function
        self._met: set[Hashable] = set()
        self._recordings: dict[Hashable, _Recording] = {}

    def __call__(
        self, x: Tensor, time: tuple[Tensor, ...], condition: tuple[KeysValues, ...]
    ) -> Tensor:
        key = (x.shape, *(context.rows.lengths for context in condition[:1]))
        if key in self._recordings:
            return self._recordings[key](x, time, condition)
        if key not in self._met:  # kernels are compiled, and what sites keep is found
            self._met.add(key)
            return self._function(x, time, condition)
        self._recordings[key] = _Recording(self._function, x, time, condition)
        return self._recordings[key](x, time, condition)


class _Desk:
    """Where recordings of a device are made: one stream, and one pool of memory for all of them.

    They never run at the same time, so what one is done with the others use. A first recording, of
    nothing, keeps the pool when the others are gone.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)
        self._anchor = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self.stream):
            self._anchor.capture_begin(capture_error_mode="thread_local")
            torch.zeros(1, device=device)
            self._anchor.capture_end()

    def record(self, run: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            # Not `torch.cuda.graph`: it empties the allocator's cache, which costs more than this.
            graph.capture_begin(pool=self._anchor.pool(), capture_error_mode="thread_local")
            try:
                out = run()
            finally:
                graph.capture_end()
        current.wait_stream(self.stream)
        return graph, out


@cache
def _desk(device: torch.device) -> _Desk:
    return _Desk(device)


class _Recording:
    """One graph, and the places where it reads its arguments."""

    def __init__(
        self,
        function: Pass,
        x: Tensor,
        time: tuple[Tensor, ...],
        condition: tuple[KeysValues, ...],
    ) -> None:
        self._x = x.clone()
        self._time = tuple(table.clone() for table in time)
        self._condition = tuple(_copied(context) for context in condition)
        self._known = weakref.ref(condition[0])
        self._graph, self._out = _desk(x.device).record(
            lambda: function(self._x, self._time, self._condition)
        )

    def __call__(
        self, x: Tensor, time: tuple[Tensor, ...], condition: tuple[KeysValues, ...]
    ) -> Tensor:
        self._x.copy_(x)
        torch._foreach_copy_(list(self._time), list(time))
        if condition[0] is not self._known():
            torch._foreach_copy_(_tensors(self._condition), _tensors(condition))
            self._known = weakref.ref(condition[0])
        self._graph.replay()
        return self._out.clone()  # a step keeps what it was given


def _copied(context: KeysValues) -> KeysValues:
    settled = None if context.settled is None else context.settled.clone()
    return replace(context, k=context.k.clone(), v=context.v.clone(), settled=settled)


def _tensors(condition: Sequence[KeysValues]) -> list[Tensor]:
    found = (part for context in condition for part in (context.k, context.v, context.settled))
    return [part for part in found if part is not None]
