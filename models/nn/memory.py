"""Gives a device's memory back when a job ends, and when it fails or is cancelled.

It knows no network. An exception keeps the frames it passed through, and with them their tensors,
for as long as somebody holds it: a job's log, say.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames

import torch


def give_back(device: torch.device | str) -> None:
    """What nobody holds any more is free for others, in this process and beside it."""
    gc.collect()  # networks and their hooks refer to each other
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def memory_returned(device: torch.device | str) -> Iterator[None]:
    """After the block nothing it made is held on `device`, but for what it returned.

    Call one function in it, and return what that returns: its own frame is not finished when an
    exception passes, so what it holds stays.
    """
    try:
        yield
    except BaseException as error:
        clear_frames(error.__traceback__)
        raise
    finally:
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
