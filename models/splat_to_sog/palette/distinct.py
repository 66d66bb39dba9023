"""Equal rows found and counted, so that a scene with few different vectors is kept exactly.

Does not know what the rows mean, and does not look for rows that are merely close.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Labels = NDArray[np.intp]

SAMPLE = 1 << 16
REPEATS = 1 / 64
"""Share of repeats in the sample under which rows count as all different: a scene of a million
different vectors then costs no sort."""


def mostly_distinct(rows: Float32) -> bool:
    """Whether an even sample of the rows has next to no repeats. Of 65,536 rows drawn from as many
    different vectors, a third are repeats; from a million, 3 %."""
    if len(rows) < SAMPLE:
        return False
    keys = hashes(np.ascontiguousarray(rows[:: -(-len(rows) // SAMPLE)]))
    return len(np.unique(keys)) > (1 - REPEATS) * len(keys)


def hashes(rows: Float32) -> NDArray[np.uint64]:  # [N]
    """64 bits of each row's bits; -0 equals +0."""
    bits = (rows + np.float32(0)).view(np.uint32)
    keys = np.zeros(len(rows), np.uint64)
    for column in range(rows.shape[1]):
        keys = (keys ^ bits[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def unique_rows(rows: Float32) -> tuple[Float32, Labels, Labels]:
    """(distinct rows in order of first appearance, index of each row's, how often each occurs).

    By hash, verified: a collision falls back to sorting whole rows.
    """
    rows = np.ascontiguousarray(rows)
    _, first, inverse, counts = np.unique(
        hashes(rows), return_index=True, return_inverse=True, return_counts=True
    )
    if not np.array_equal(rows[first][inverse], rows):
        _, first, inverse, counts = np.unique(
            rows + np.float32(0), axis=0, return_index=True, return_inverse=True, return_counts=True
        )
    appearance = np.argsort(first, kind="stable")
    rank = np.empty_like(appearance)
    rank[appearance] = np.arange(len(appearance))
    return rows[first[appearance]], rank[inverse.ravel()], counts[appearance]
