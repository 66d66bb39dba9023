"""Compiles the loops of this package with numba, and spreads them over the processor's cores.

Knows nothing of pictures. Import it inside functions only: numba takes a third of a second to
load. Compiled code is kept on disk (in NUMBA_CACHE_DIR; else beside the source; where that cannot
be written, in the user's cache folder). A cache that fails costs time, never a job.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
from numba import types

Function = Callable[..., Any]
Part = TypeVar("Part")
Result = TypeVar("Result")

f32, f64, boolean = types.float32, types.float64, types.boolean
i32, i64, u32, u64 = types.int32, types.int64, types.uint32, types.uint64

# Fused multiply-add only: sums keep their order, so a result does not depend on vector widths.
ARITHMETIC = {"contract"}


def taken(kind: Any, dimensions: int, layout: str = "C") -> Any:
    """The type of an array that is only read; a read-only one and a writable one both match."""
    return types.Array(kind, dimensions, layout, readonly=True)


def filled(kind: Any, dimensions: int) -> Any:
    """The type of a contiguous array that is written."""
    return types.Array(kind, dimensions, "C")


def kernel(*signature: Any, returns: Any = types.void) -> Callable[[Function], Function]:
    """Compiles a function for these argument types now, or loads it from the cache.

    It runs outside the interpreter lock: threads may run it side by side.
    """

    def compile_it(function: Function) -> Function:
        options: dict[str, Any] = {"nogil": True, "fastmath": ARITHMETIC}
        types_ = returns(*signature)
        try:
            compiled: Function = numba.njit(types_, cache=True, **options)(function)
        except (RuntimeError, OSError, EOFError, pickle.PickleError) as error:
            # No folder to write to, a full disk, a damaged file: all of it concerns the cache.
            logging.getLogger(__name__).warning("compiled code is not cached: %s", error)
            compiled = numba.njit(types_, **options)(function)
        return compiled

    return compile_it


def inlined(function: Function) -> Function:
    """A function that kernels of the same file call."""
    compiled: Function = numba.njit(nogil=True, fastmath=ARITHMETIC)(function)
    return compiled


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_parallel(work: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """work(part) for each part, in the order of the parts, on all cores."""
    parts = list(parts)
    if len(parts) < 2 or cores() < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(min(cores(), len(parts))) as pool:
        return list(pool.map(work, parts))
