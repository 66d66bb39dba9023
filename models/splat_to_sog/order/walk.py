"""Walks through blocks of splats: from each splat on to the one of the rest that is most like it.

Does not know what the channels mean or weigh: it takes coordinates, whole numbers whose differences
are in the same small fraction of a coded bit. Every block of `span` splats of the given order is
walked by itself from its first splat: blocks run side by side, on any number of threads, and the
last splat's jump to the next block happens once a block. A greedy walk: parallel linear assignment
sorting (Barthel et al., 2023) and self-organising grids (Morgenstern et al., 2024) swap splats in a
square instead; a lossless WebP's texel is predicted best by the one on its left, so here a line is
sorted. Ties go to the splat that comes first: the same walk everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.threads import in_threads

GROUP_SPLATS = 1 << 16
"""Splats whose blocks are walked in step: enough to fill each call, few enough for the cache."""

MAX_THREADS = 8
FARTHEST = 32767  # the largest distance of two splats

Coordinates = Callable[[NDArray[np.intp]], NDArray[np.int16]]
"""Rows [M] -> [C, M]; the differences of any two rows add up to at most FARTHEST."""


def walk(
    coordinates: Coordinates,
    order: NDArray[np.intp],  # [N]
    span: int,
) -> NDArray[np.intp]:  # [N]
    """`order` with every block of `span` walked."""
    out = np.empty_like(order)
    whole = len(order) - len(order) % span
    step = max(1, GROUP_SPLATS // span) * span
    parts = [slice(start, min(start + step, whole)) for start in range(0, whole, step)]

    def run(part: slice) -> None:
        out[part] = _walk_blocks(coordinates, order[part].reshape(-1, span)).ravel()

    in_threads(run, parts, MAX_THREADS)
    if whole < len(order):
        out[whole:] = _walk_blocks(coordinates, order[None, whole:])[0]
    return out


def _walk_blocks(
    coordinates: Coordinates,
    rows: NDArray[np.intp],  # [B, span]
) -> NDArray[np.intp]:  # [B, span]
    """All blocks in step: splats up to `at` are placed, those behind it are still free."""
    blocks, span = rows.shape
    rows = rows.copy()
    free = coordinates(rows.ravel()).reshape(-1, blocks, span)
    distance = np.empty((blocks, span), np.int16)
    scratch = np.empty_like(distance)
    every = np.arange(blocks)
    for at in range(span - 2):
        rest = slice(at + 1, span)
        total, difference = distance[:, rest], scratch[:, rest]
        total.fill(0)
        for channel in free:
            np.subtract(channel[:, rest], channel[:, at, None], out=difference)
            np.abs(difference, out=difference)
            np.add(total, difference, out=total)
        nearest = distance[:, rest].argmin(axis=1) + (at + 1)
        taken = free[:, every, nearest]
        free[:, every, nearest] = free[:, :, at + 1]
        free[:, :, at + 1] = taken
        taken_rows = rows[every, nearest]
        rows[every, nearest] = rows[:, at + 1]
        rows[:, at + 1] = taken_rows
    return rows


def walk_reference(
    coordinates: Coordinates, order: NDArray[np.intp], span: int
) -> NDArray[np.intp]:
    """The same, splat by splat. For tests."""
    out = []
    for start in range(0, len(order), span):
        free = order[start : start + span].tolist()
        here = free.pop(0)
        out.append(here)
        while free:
            both = coordinates(np.array([here, *free])).astype(np.int64)
            nearest = int(np.abs(both[:, 1:] - both[:, :1]).sum(axis=0).argmin())
            here = free[nearest]
            free[nearest] = free[0]  # the first of the free takes its place
            free.pop(0)
            out.append(here)
    return np.array(out, np.intp)
