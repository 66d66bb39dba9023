"""A network's forward pass recorded once as a CUDA graph, and replayed with other numbers.

It knows tensors and `KeysValues`, not what is computed. A pass of a flow starts some 400 kernels:
beside a fast GPU its host is the slower of the two. A recording takes about as long as a pass.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from models.nn.attention import KeysValues
from models.nn.backends import own_kernels

LOG = logging.getLogger(__name__)
KEPT = 4
"""Recordings at a time, the latest used: one image takes two, guided and not."""
LARGEST_BYTES = 1 << 29
"""Of what leads a pass: a recording copies it, for as long as it is kept. 4,096 tokens take 0.4 GB
for 24 blocks of 1,024 channels. Where more lead, a pass takes the GPU longer than its host."""

FASTEST = (9, 10)
"""Capabilities, before the point, of Hopper and of Blackwell in data centres. A pass takes others
longer than its some 400 kernels take to start, whoever starts them."""

TOLD_BY = "_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool"
"""What PyTorch calls it, and what 2.6 did."""

Pass = Callable[[Tensor, tuple[Tensor, ...], tuple[KeysValues, ...]], Tensor]
"""(x, modulations of the time, keys and values of every block) -> a tensor."""


def pays(device: torch.device) -> bool:
    """Whether the device is faster than its host is at starting kernels.

    Without our own kernels the steps between products ask the host for tables in every pass, which
    no recording may.
    """
    fast = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] in FASTEST
    return fast and own_kernels()


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
                self._end(graph)
        current.wait_stream(self.stream)
        return graph, out

    def _end(self, graph: torch.cuda.CUDAGraph) -> None:
        """Before 2.12 PyTorch's allocator is not told of an end that fails, as it does where the
        pass waited for the device: it would refuse to give memory back from then on."""
        try:
            graph.capture_end()
        except RuntimeError:
            place = self.stream.device.index, self._anchor.pool()
            tell = next(getattr(torch._C, name) for name in TOLD_BY if hasattr(torch._C, name))
            with suppress(RuntimeError):  # it was told
                tell(*place)
                torch._C._cuda_releasePool(*place)
            raise


@cache
def _desk(device: torch.device) -> _Desk:
    return _Desk(device)


class Recording:
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


class Replayed:
    """`function`, run as it is at the first call of each shape, recorded at the second.

    What it reads besides its arguments, such as weights, must stay where it is. A pass that cannot
    be recorded, for want of memory say, is run as it is: nothing fails that would not have failed.
    """

    def __init__(self, function: Pass, record: Callable[..., Pass] = Recording) -> None:
        self._function = function
        self._record = record
        self._met: set[Hashable] = set()
        self._plain: set[Hashable] = set()
        self._recordings: dict[Hashable, Pass] = {}  # the latest used last

    def __call__(
        self, x: Tensor, time: tuple[Tensor, ...], condition: tuple[KeysValues, ...]
    ) -> Tensor:
        key = (x.shape, *(context.rows.lengths for context in condition[:1]))
        if key not in self._met:  # kernels are compiled, and what sites keep is found
            self._met.add(key)
            return self._function(x, time, condition)
        if key not in self._recordings and key not in self._plain:
            self._try(key, x, time, condition)
        if key in self._plain:
            return self._function(x, time, condition)
        self._recordings[key] = recording = self._recordings.pop(key)
        return recording(x, time, condition)

    def _try(
        self,
        key: Hashable,
        x: Tensor,
        time: tuple[Tensor, ...],
        condition: tuple[KeysValues, ...],
    ) -> None:
        if sum(part.nbytes for part in _tensors(condition)) > LARGEST_BYTES:
            self._plain.add(key)
            return
        while len(self._recordings) >= KEPT:
            del self._recordings[next(iter(self._recordings))]
        try:
            self._recordings[key] = self._record(self._function, x, time, condition)
        except RuntimeError as error:  # CUDA's, and that its memory is used up
            LOG.warning("A pass of %s is not recorded: %s", list(x.shape), str(error))
            self._plain.add(key)
            _desk.cache_clear()  # what its pool took is free for the pass itself


def _copied(context: KeysValues) -> KeysValues:
    settled = None if context.settled is None else context.settled.clone()
    return replace(context, k=context.k.clone(), v=context.v.clone(), settled=settled)


def _tensors(condition: Sequence[KeysValues]) -> list[Tensor]:
    found = (part for context in condition for part in (context.k, context.v, context.settled))
    return [part for part in found if part is not None]
