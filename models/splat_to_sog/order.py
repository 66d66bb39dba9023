"""The order in which splats are stored: along a Morton curve through space.

Does not know what follows: neighbours in the list are neighbours in space, so textures compress
and a renderer reads memory in order. Equal keys keep the order of the input: the same file gives
the same order every time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BITS = 21  # an axis; 3 x 21 = 63 bits of the key: no crowded cell needs a second pass


def morton_order(means: NDArray[np.float32]) -> NDArray[np.intp]:  # [N, 3] finite -> [N]
    """Indices that sort the centres along the curve, over their bounding box."""
    return np.argsort(morton_keys(means), kind="stable")


def morton_keys(means: NDArray[np.float32]) -> NDArray[np.uint64]:  # [N, 3] -> [N]
    low = means.min(axis=0).astype(np.float64)
    span = means.max(axis=0) - low
    span[span == 0] = 1  # a flat axis orders nothing
    cells = ((means - low) / span * ((1 << BITS) - 1)).astype(np.uint64)
    return _spread(cells[:, 0]) | _spread(cells[:, 1]) << np.uint64(1) | _spread(cells[:, 2]) << np.uint64(2)


def _spread(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Bit i of each value moves to bit 3 i."""
    for shift, mask in (
        (32, 0x001F00000000FFFF),
        (16, 0x001F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        x = (x | x << np.uint64(shift)) & np.uint64(mask)
    return x
