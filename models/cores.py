"""Spreads a range of independent work over the cores this process may use.

Does not know what the work is; it must leave the interpreter lock, as numpy and compiled loops do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
PARTS_PER_CORE = 8
"""Parts of a range differ in work: small ones even it out."""


def usable_cores() -> int:
    """Cores this process may run on: a container limits which, or for how much of the time."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return min(len(os.sched_getaffinity(0)), quota())
    return os.cpu_count() or 1


def quota(limit: Path = CPU_MAX) -> int:
    """Cores' worth of time the control group may use, rounded up; no bound where none is set.

    More threads than that are all stopped together once the time is used up. Linux,
    admin-guide/cgroup-v2, cpu.max: "200000 100000" are two cores, "max 100000" is no limit.
    """
    try:
        used, _, period = limit.read_text().partition(" ")
        return sys.maxsize if used == "max" else max(1, -(-int(used) // int(period)))
    except (OSError, ValueError):  # no control groups, or of version 1
        return sys.maxsize


def in_ranges(
    work: Callable[[int, int], None], count: int, check: Callable[[], None] = lambda: None
) -> None:
    """work(begin, end) over all of range(count), in parts and on all cores.

    check: called between parts; what it raises, or a part does, ends the work once the parts that
    run are done.
    """
    cores = usable_cores()
    size = max(1, -(-count // (cores * PARTS_PER_CORE)))
    begins = range(0, count, size)
    if cores == 1 or len(begins) < 2:
        for begin in begins:
            check()
            work(begin, min(begin + size, count))
        return
    with ThreadPoolExecutor(cores) as pool:
        parts = [pool.submit(work, begin, min(begin + size, count)) for begin in begins]
        try:
            for part in parts:
                check()
                part.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
