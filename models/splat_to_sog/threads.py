"""Spreads work that leaves the interpreter lock over the cores this process may use.

Does not know what the work is: numpy, compiled loops, libwebp and file reads all leave the lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores this process may run on, which a container limits."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(
    work: Callable[[Part], Result],
    parts: Iterable[Part],
    most: int | None = None,  # threads; default: one a core
) -> list[Result]:
    """work(part) for each part, in the order of the parts.

    The first exception ends it all: parts that have not begun are left, and it is raised.
    """
    parts = list(parts)
    count = min(len(parts), usable_cores(), most or len(parts))
    if count < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(count) as pool:
        try:
            return list(pool.map(work, parts))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
