"""Time on a GPU: of a job's stages, each run to its end before the next begins, and of kernels.

It knows neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

import torch

T = TypeVar("T")


class StageClock:
    """seconds: of each stage by its name, one for each run."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def stage(self, name: str, run: Callable[[], T]) -> T:
        start = time.perf_counter()
        result = run()
        torch.cuda.synchronize()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    """Median by CUDA events, the L2 cache cleared before each."""
    flush = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    times = []
    for turn in range(repeats + 2):
        flush.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        if turn >= 2:  # the first compile and fill caches of the allocator
            times.append(start.elapsed_time(end))
    return median(times)
