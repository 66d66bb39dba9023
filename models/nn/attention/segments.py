"""Lengths of sequences that lie one after the other in one tensor, and where each begins.

Knows nothing of what the rows mean: tokens of a batch item, of a window, of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar, cast
from weakref import WeakValueDictionary

import torch
from torch import Tensor

T = TypeVar("T")


class Segments:
    """S sequences packed along the first axis: rows of one are contiguous, in order.

    Made once and shared by every layer that attends over the same rows: offsets on a device are
    computed on the first use there and kept, so that no layer waits for a copy to the GPU.

    total:   rows of all sequences together.
    uniform: all are of one length: the packed tensor is a dense batch.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = tuple(int(length) for length in lengths)
        if any(length < 0 for length in self.lengths):
            raise ValueError(f"lengths are {self.lengths}: none may be negative")
        self.total = sum(self.lengths)
        self.longest = max(self.lengths, default=0)
        self.shortest = min(self.lengths, default=0)
        self.uniform = self.longest == self.shortest
        self._cache: dict[Hashable, object] = {}

    @classmethod
    def shared(cls, lengths: Sequence[int]) -> Segments:
        """The object of these lengths that is in use already, if there is one.

        Each layer of a network makes keys and values of the same context: so it is one copy of the
        offsets that the device waits for, not one for each layer.
        """
        made = cls(lengths)
        if torch.compiler.is_compiling():  # a trace knows no weak references
            return made
        return _IN_USE.setdefault(made.lengths, made)

    @classmethod
    def of(cls, lengths: Segments | Sequence[int]) -> Segments:
        return lengths if isinstance(lengths, Segments) else cls(lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        return f"Segments({list(self.lengths)})"

    def slices(self) -> Iterator[slice]:
        start = 0
        for length in self.lengths:
            yield slice(start, start + length)
            start += length

    def head(self, count: int) -> Segments:
        """The first `count` sequences."""
        if count == len(self):
            return self
        return self.cached(("head", count), lambda: Segments(self.lengths[:count]))

    def cached(self, key: Hashable, build: Callable[[], T]) -> T:
        """The value under `key`, built on first use. Start `key` with the name of what it is."""
        if key not in self._cache:
            self._cache[key] = build()
        return cast(T, self._cache[key])

    def offsets(self, device: torch.device) -> Tensor:  # int32 [S + 1], on `device`
        """The row where each sequence begins, then the total."""

        def build() -> Tensor:
            lengths = torch.tensor((0, *self.lengths), dtype=torch.int64)
            return lengths.cumsum(0).to(device=device, dtype=torch.int32)

        return self.cached(("offsets", device), build)

    def item_index(self, device: torch.device) -> Tensor:  # int32 [total], on `device`
        """The sequence that each row is of."""

        def build() -> Tensor:
            lengths = torch.tensor(self.lengths, dtype=torch.int64)
            index = torch.arange(len(self), dtype=torch.int32).repeat_interleave(lengths)
            return index.to(device)

        return self.cached(("item_index", device), build)


_IN_USE: WeakValueDictionary[tuple[int, ...], Segments] = WeakValueDictionary()
