"""Places of splats along a space-filling curve, for formats that store them in any order.

Does not know the formats. Unlike a SOG's order, which follows its own stored grid, this one
follows distance from the scene's middle, so that far outliers do not squeeze the rest into a few
cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.layout import log_position
from models.splat_to_sog.order import hilbert_keys
from models.splat_to_sog.scratch import chunks

SAMPLE_ROWS = 1 << 16
CELLS = 65535


def curve_order(means: NDArray[np.float32]) -> NDArray[np.intp]:  # [N, 3] finite -> [N]
    """Rows sorted along the curve; rows of equal cells keep their order."""
    middle, unit = _middle(means)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for rows in chunks(len(means)):
        warped = _warp(means[rows], middle, unit)
        low, high = np.minimum(low, warped.min(axis=0)), np.maximum(high, warped.max(axis=0))
    span = np.where(high > low, high - low, 1)
    keys = np.empty(len(means), np.uint64)
    for rows in chunks(len(means)):
        steps = np.rint((_warp(means[rows], middle, unit) - low) / span * CELLS)
        keys[rows] = hilbert_keys(steps.astype(np.uint16))
    return np.argsort(keys, kind="stable")


def _middle(means: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """(median of the centres, half of what most of them span), from an even sample."""
    sample = means[:: max(1, len(means) // SAMPLE_ROWS)].astype(np.float64)
    middle = np.median(sample, axis=0)
    unit = float(np.quantile(np.abs(sample - middle).max(axis=1), 0.9))
    return middle, unit or 1.0


def _warp(
    means: NDArray[np.float32], middle: NDArray[np.float64], unit: float
) -> NDArray[np.float64]:
    """Nearly linear within `unit` of the middle, logarithmic beyond."""
    return log_position((means - middle) / unit)
