"""Gives a device's memory back when a job ends, and when it fails or is cancelled.

It knows no network. An exception keeps the frames it passed through, and with them their tensors,
for as long as somebody holds it: a job's log, say.
"""

from __future__ import annotations

import gc
import sys
from contextlib import AbstractContextManager
from traceback import clear_frames, format_tb
from types import TracebackType

import torch


def give_back(device: torch.device | str) -> None:
    """What nobody holds any more is free for others, in this process and beside it."""
    gc.collect()  # networks and their hooks refer to each other
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def memory_returned(device: torch.device | str) -> AbstractContextManager[None]:
    """After the block nothing it made is held on `device`, but for what it returned.

    An exception that ends it keeps its words, and where it came from as a note. Call one function
    in the block, and return what that returns: its own frame is not finished when an exception
    passes, so what it holds stays.
    """
    return _Returned(torch.device(device))


class _Returned(AbstractContextManager[None]):
    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> None:
        self.handled = sys.exception()  # before the block: none of its making

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while error is not None and error is not self.handled:
            _forget_frames(error)
            error = error.__cause__ or error.__context__
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _forget_frames(error: BaseException) -> None:
    """Clearing is not enough: a finished frame of a closure still holds what that shares."""
    if error.__traceback__ is not None:
        error.add_note("Where it came from:\n" + "".join(format_tb(error.__traceback__)))
        clear_frames(error.__traceback__)
        error.__traceback__ = None
