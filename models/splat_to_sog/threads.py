"""Spreads work that leaves the interpreter lock over the cores this process may use.

Does not know what the work is: numpy, compiled loops, libwebp and file reads all leave the lock.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Generic, TypeVar

from threadpoolctl import ThreadpoolController

from models.cores import usable_cores
from models.splat_to_sog.stages import OnStep

Part = TypeVar("Part")
Result = TypeVar("Result")

HEARD_SECONDS = 0.1
"""How often who waits for a `Beside` is told of its progress, and may stop it."""


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


class _Blas:
    """Threads of BLAS while somebody spreads work himself: one. The last who leaves restores."""

    def __init__(self) -> None:
        self._controller = ThreadpoolController()
        self._lock = threading.Lock()
        self._inside = 0
        self._limit = ExitStack()

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._limit.enter_context(self._controller.limit(limits=1, user_api="blas"))
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.close()


_blas = functools.cache(_Blas)


@contextmanager
def threads_are_ours() -> Iterator[None]:
    """BLAS takes one thread a call: its own threads, times those that call it, would wait for each
    other, and sums must not depend on how many cores a machine has."""
    _blas().enter()
    try:
        yield
    finally:
        _blas().leave()


class Beside(Generic[Result]):
    """work(on_step) in a thread of its own, beside the caller's until `result` is asked for.

    Progress is told only to who waits, in its own thread. A block left before that (an error, a
    user who cancels) stops the work at its next step and waits until it has ended.
    """

    def __init__(self, work: Callable[[OnStep], Result]) -> None:
        self._left = threading.Event()
        self._fraction = 0.0
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(work, self._step)

    def __enter__(self) -> Beside[Result]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        self._pool.shutdown()

    def result(self, on_step: OnStep) -> Result:
        """What the work returned, or the exception that it raised."""
        while not self._future.done():
            on_step(self._fraction)
            wait([self._future], HEARD_SECONDS)
        return self._future.result()

    def _step(self, fraction: float) -> None:
        self._fraction = fraction
        if self._left.is_set():
            raise InterruptedError("nobody waits for the result")
