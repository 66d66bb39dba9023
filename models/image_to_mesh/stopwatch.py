"""Which stage of a pipeline runs, told to whoever watches, and how long each took.

Knows no pipeline: a stage is a name and where it begins, as a fraction of the whole.
"""

from __future__ import annotations

import time

from models.context import RunContext, check_cancelled


class Stopwatch:
    """Tells the context which stage runs, stops a cancelled job, keeps each stage's seconds."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.seconds: dict[str, float] = {}
        self._current: tuple[str, float] | None = None

    def stage(self, name: str, fraction: float) -> None:
        now = time.perf_counter()
        if self._current is not None:
            self.seconds[self._current[0]] = round(now - self._current[1], 4)
        self._current = name, now
        check_cancelled(self.context)
        self.context.progress(name, fraction)

    def advance(self, fraction: float, message: str = "") -> None:
        """The stage that runs has come this far, as a fraction of the whole pipeline."""
        check_cancelled(self.context)
        self.context.progress(self._current[0] if self._current else "", fraction, message)
