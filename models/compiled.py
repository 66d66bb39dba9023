"""Compiles loops over arrays with numba.

Knows nothing of what the loops do. Import it inside functions only: numba takes a third of a second
to load. Compiled code is kept on disk, in NUMBA_CACHE_DIR or the user's cache folder; a cache that
cannot be written or read costs time, never a job.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import types

Function = Callable[..., Any]

f32, f64, boolean = types.float32, types.float64, types.boolean
u8, u32, u64 = types.uint8, types.uint32, types.uint64
i32, i64 = types.int32, types.int64

LOG = logging.getLogger(__name__)

# Fused multiply-add only: sums keep their order, so a result does not depend on vector widths.
ARITHMETIC = {"contract"}
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": ARITHMETIC, "error_model": "numpy"}


def taken(kind: Any, dimensions: int, layout: str = "C") -> Any:
    """The type of an array that is only read; a read-only one and a writable one both match.

    layout: C for contiguous; A for any, whose loops are slower.
    """
    return types.Array(kind, dimensions, layout, readonly=True)


def filled(kind: Any, dimensions: int) -> Any:
    """The type of a contiguous array that is written."""
    return types.Array(kind, dimensions, "C")


def kernel(*signature: Any, returns: Any = types.void) -> Callable[[Function], Function]:
    """Compiles a function for these argument types now, or loads it from the cache.

    It runs outside the interpreter lock: threads may run it side by side.
    """

    def compile_it(function: Function) -> Function:
        types_ = returns(*signature)
        folder = cache_folder(Path(function.__code__.co_filename).parent)
        default = numba.config.CACHE_DIR
        compiled: Function
        try:
            if folder is not None:
                numba.config.CACHE_DIR = str(folder)
                compiled = numba.njit(types_, cache=True, **OPTIONS)(function)
                return compiled
        except (RuntimeError, OSError, EOFError, pickle.PickleError) as error:
            # No folder to write to, a full disk, a damaged file: all of it concerns the cache.
            LOG.warning("compiled code is not cached: %s", error)
        finally:
            numba.config.CACHE_DIR = default
        compiled = numba.njit(types_, **OPTIONS)(function)
        return compiled

    return compile_it


def inlined(function: Function) -> Function:
    """A function that kernels of the same file call."""
    compiled: Function = numba.njit(**OPTIONS)(function)
    return compiled


@cache
def cache_folder(package: Path) -> Path | None:
    """Where the compiled code of a folder of sources is kept; None if no folder can be written.

    numba compares a kernel with its own file alone, while constants come from others too: the
    folder is named by all of them.
    """
    sources = [Path(__file__), *sorted(package.glob("*.py"))]
    version = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    try:
        chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
        base = Path(chosen) if chosen else Path.home() / ".cache"
        folder = base / f"meshpress-{version[:16]}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:  # read-only, full, or a user without a home
        LOG.warning("compiled code is not cached: %s", error)
        return None
    return folder
