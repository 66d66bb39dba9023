"""Rotations as their three smaller components and the place of the largest, which is left out.

Does not know how many bits a format gives each: .compressed.ply and .spz differ in that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

OTHERS = np.array([[c for c in range(4) if c != m] for m in range(4)])


def smallest_three(
    quats: NDArray[np.floating],  # [N, 4] finite, of any length
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """(place of the largest [N], the others in order [N, 3], within +-sqrt(1/2)).

    The sign makes the component that is left out positive: q and -q are the same rotation.
    A zero quaternion has no direction and comes out as if its first component were 1.
    """
    q = quats.astype(np.float64)
    largest = np.abs(q).argmax(axis=1)
    top = np.take_along_axis(q, largest[:, None], axis=1)
    q /= np.where(top == 0, 1, top)  # first to a largest of 1: squares of 1e38 stay finite
    others = np.take_along_axis(q, OTHERS[largest], axis=1)
    return largest, others / np.sqrt(1 + (others**2).sum(axis=1, keepdims=True))
