"""Seconds of the stages of a job on a GPU, each run to its end before the next begins.

It knows no stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
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
