"""Stages of a run: progress of the whole from a stage's, their times, and a way to stop.

Does not know what a stage does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from models.context import RunContext, check_cancelled

OnStage = Callable[[str, float], None]
"""(stage, fraction of it that is done, 0..1); may raise to stop. `Stages` is one."""

OnStep = Callable[[float], None]
"""Fraction done, 0..1; may raise to stop."""


class Stages:
    """Call it with a stage's name and the fraction of that stage that is done.

    shares: stage -> its part of the whole, in the order they run; they need not sum to 1. A stage
    that comes again goes on where it was: progress never falls.
    """

    def __init__(self, context: RunContext, shares: Mapping[str, float]) -> None:
        self._context = context
        total = sum(shares.values())
        self._spans: dict[str, tuple[float, float]] = {}
        start = 0.0
        for stage, share in shares.items():
            self._spans[stage] = (start, start + share / total)
            start += share / total
        self._reached = 0.0
        self._stage = ""
        self._since = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def __call__(self, stage: str, fraction: float = 0.0) -> None:
        """Raises Cancelled once the user has asked for it."""
        check_cancelled(self._context)
        self._switch(stage)
        start, end = self._spans[stage]
        self._reached = max(self._reached, start + (end - start) * min(fraction, 1.0))
        self._context.progress(stage, self._reached)

    def finish(self) -> None:
        """The whole is done, whichever stages it took."""
        self._context.progress(self._stage, 1.0)

    def seconds(self) -> dict[str, float]:
        """How long each stage has taken so far."""
        self._switch(self._stage)
        return {stage: round(seconds, 3) for stage, seconds in self._seconds.items()}

    def _switch(self, stage: str) -> None:
        now = time.perf_counter()
        if self._stage:
            self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now
