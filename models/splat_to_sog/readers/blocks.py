"""Reads a file's fixed-size records block by block, on all cores; a block a thread is in memory.

Does not know what a record means. Blocks are read into buffers, not mapped: a mapped page counts
as this process's memory until the system takes it back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.context import InvalidInput
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.threads import in_threads

BLOCK_BYTES = 1 << 20
"""Stays in a core's cache while its columns are picked apart."""

MAX_THREADS = 8
"""Copying is bound by memory: more threads bring nothing."""


def each_block(
    path: Path,
    offset: int,
    count: int,
    dtype: np.dtype[Any],
    work: Callable[[slice, NDArray[Any]], None],
    name: str,
) -> None:
    """Call work(rows, records [len(rows)] of dtype) for every block of `count` records.

    Blocks come in any order and from several threads: work writes to its own rows only. Casts in
    it may overflow quietly: what no float32 can hold becomes infinite, and is dropped by count.
    """
    rows = max(1, BLOCK_BYTES // dtype.itemsize)
    own = threading.local()
    with path.open("rb", buffering=0) as file:

        def one(chunk: slice) -> None:
            if not hasattr(own, "buffer"):
                own.buffer = np.empty(min(rows, count) * dtype.itemsize, np.uint8)
            size = (chunk.stop - chunk.start) * dtype.itemsize
            block = own.buffer[:size]
            _fill(file.fileno(), block, offset + chunk.start * dtype.itemsize, name)
            with np.errstate(over="ignore", invalid="ignore"):
                work(chunk, block.view(dtype))

        in_threads(one, chunks(count, rows), MAX_THREADS)


def _fill(fd: int, block: NDArray[np.uint8], offset: int, name: str) -> None:
    """All of the block from this byte of the file on; a call may return less than asked for."""
    view, done = block.data, 0
    while done < len(view):
        got = os.preadv(fd, [view[done:]], offset + done)
        if not got:
            raise InvalidInput(
                f"{name}: the file ended at byte {offset + done} while it was read: it was cut "
                "short after its size had been checked.",
                code="splat_truncated",
                next_step="Upload the complete file again.",
            )
        done += got
