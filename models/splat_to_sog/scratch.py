"""Room for a scene's arrays: memory while a budget lasts, beyond it files that the system pages.

Does not know what the arrays hold. A scene larger than memory is read, ordered and quantised
attribute by attribute and chunk by chunk; what a chunk does not need may leave memory.
"""

from __future__ import annotations

import math
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

CHUNK_ROWS = 1 << 18
"""Rows a pass over a scene handles at once: 60 MB of float32 at SH degree 3."""

MEMORY_SHARE = 0.5
"""Of the memory that is free when a scene is opened; the rest is for textures and clustering."""

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")


class Scratch:
    """Hands out arrays; past the budget they are unlinked files, gone when the array is."""

    def __init__(self, folder: Path | None = None, budget_bytes: int | None = None) -> None:
        self.folder = folder
        self.budget_bytes = (
            int(MEMORY_SHARE * free_memory_bytes()) if budget_bytes is None else budget_bytes
        )
        self.used_bytes = 0  # in memory, of arrays still alive
        self.spilled_bytes = 0  # ever given out as files

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """An uninitialised array of this shape; counts against the budget until it is dropped."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size == 0 or self.used_bytes + size <= self.budget_bytes:
            array = np.empty(shape, dtype)
            self.used_bytes += size
            weakref.finalize(array, self._returned, size)
            return array
        self.spilled_bytes += size
        with tempfile.TemporaryFile(dir=self.folder, prefix="meshpress-") as file:
            file.truncate(size)
            return np.memmap(file, dtype, "r+", shape=shape)

    def _returned(self, size: int) -> None:
        self.used_bytes -= size


def chunks(count: int, rows: int = CHUNK_ROWS) -> Iterator[slice]:
    """Slices that cover 0..count."""
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def free_memory_bytes() -> int:
    """Memory this process may still take: the machine's, or less where a control group says so."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = 1024 * int(line.split()[1])
    try:
        limit = int(CGROUP_LIMIT.read_text()) - int(CGROUP_USED.read_text())
    except (OSError, ValueError):  # no control group, or "max"
        return free
    return max(0, min(free, limit))
