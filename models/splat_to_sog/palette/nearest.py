"""The nearest of many entries for every row, on the CPU.

Does not move entries, and compares all of them: `cells` asks only some. The work is spread over
threads here and not inside BLAS, which runs with one: the products are small, and their sums must
not depend on how many cores a machine has.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from models.cores import usable_cores

Float32 = NDArray[np.float32]
Labels = NDArray[np.intp]

CHUNK_FLOATS = 1 << 19  # distances a thread holds at once: 2 MB stay in its cache
FLAT_SIZE = 256  # up to this many entries one level is as fast as two


def threads() -> ThreadPoolExecutor:
    """One thread for each core this process may use."""
    return ThreadPoolExecutor(usable_cores())


def each(function: Callable[[int], None], items: range, pool: Executor | None) -> None:
    """function(item) for every item; each writes to a place of its own."""
    for _ in map(function, items) if pool is None else pool.map(function, items):
        pass


def nearest_reference(rows: Float32, entries: Float32) -> Labels:
    """Nearest entry of each row from plain differences in double precision. For tests."""
    difference = rows[:, None, :].astype(np.float64) - entries[None, :, :]
    labels: Labels = (difference**2).sum(axis=2).argmin(axis=1)
    return labels


def nearest(
    rows: Float32, entries: Float32, pool: Executor | None = None
) -> tuple[Labels, Float32]:
    """(nearest entry, its squared distance) of each row, by chunked matrix products."""
    half = (entries**2).sum(axis=1) / 2  # [K]; |x-e|^2 = |x|^2 - 2 (x.e - |e|^2 / 2)
    labels = np.empty(len(rows), np.intp)
    distance = np.empty(len(rows), np.float32)
    step = max(1, CHUNK_FLOATS // len(entries))

    def one(start: int) -> None:
        part = rows[start : start + step]
        products = part @ entries.T
        products -= half
        chosen = products.argmax(axis=1)
        labels[start : start + step] = chosen
        best = products[np.arange(len(chosen)), chosen]
        distance[start : start + step] = np.maximum(np.einsum("nd,nd->n", part, part) - 2 * best, 0)

    each(one, range(0, len(rows), step), pool)
    return labels, distance


def members(labels: NDArray[np.integer], count: int) -> list[Labels]:
    """For each of `count` labels: the indices that carry it, ascending."""
    narrow = labels.astype(np.uint16) if count <= 1 << 16 else labels  # numpy sorts it by radix
    order = np.argsort(narrow, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels, minlength=count))[:-1])
