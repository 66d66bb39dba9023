"""Spreads a range of independent work over the cores this process may use.

Does not know what the work is; it must leave the interpreter lock, as numpy and compiled loops do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

PARTS_PER_CORE = 8
"""Parts of a range differ in work: small ones even it out."""


def usable_cores() -> int:
    """Cores this process may run on, which a container limits."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_ranges(work: Callable[[int, int], None], count: int) -> None:
    """work(begin, end) over all of range(count), in parts and on all cores."""
    cores = usable_cores()
    size = max(1, -(-count // (cores * PARTS_PER_CORE)))
    begins = range(0, count, size)
    if cores == 1 or len(begins) < 2:
        work(0, count)
        return
    with ThreadPoolExecutor(cores) as pool:
        for done in [pool.submit(work, begin, min(begin + size, count)) for begin in begins]:
            done.result()
