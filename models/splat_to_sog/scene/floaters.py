"""Floaters: splats that lie alone, left behind in empty space by training.

Does not look at pictures. A splat's loneliness is the mean distance to its nearest neighbours,
less its own reach: a far, large splat of the background fills the gap between its neighbours and
is no floater, a small one in the same place is. Lonely are those far out in the distribution of
the scene's distances, which is close to log-normal, so its logarithm is measured with median and
median deviation. After "Statistical outlier removal", Rusu et al. 2008, made aware of size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import Splats

NEIGHBOURS = 12
REACH = 2.0
"""Standard deviations to which a splat reaches."""

DEVIATIONS = 4.0
"""How far beyond the median strength 1 cuts, in standard deviations of the log distance."""

SIGMA_OF_MAD = 1.4826
"""A normal distribution's standard deviation, in median absolute deviations."""

QUERY_ROWS = 1 << 16


def not_floating(splats: Splats, strength: float) -> NDArray[np.bool_]:  # [N]
    """True for the splats to keep. strength: 1 drops beyond 4 deviations, 2 beyond 2, ...

    Scenes of fewer than three splats have no distribution: all are kept.
    """
    n = len(splats)
    if n < 3:
        return np.ones(n, bool)
    distances = neighbour_distances(splats.means, min(NEIGHBOURS, n - 1))
    with np.errstate(divide="ignore"):
        logs = np.log(distances)
    finite = logs[np.isfinite(logs)]
    if not len(finite):  # all splats in one point
        return np.ones(n, bool)
    middle = np.median(finite)
    deviation = SIGMA_OF_MAD * np.median(np.abs(finite - middle))
    limit = np.exp(middle + DEVIATIONS / strength * deviation)
    keep = np.empty(n, bool)
    for rows in chunks(n):
        # The middle axis: a needle reaches far in one direction only, and fills nothing.
        size = np.exp(np.minimum(np.sort(splats.scales[rows], axis=1)[:, 1], 80.0))
        keep[rows] = distances[rows] - REACH * size <= limit
    return keep


def neighbour_distances(
    means: NDArray[np.float32],  # [N, 3]
    neighbours: int,  # below N
) -> NDArray[np.float64]:  # [N]
    """Mean distance to the nearest others, scene units."""
    tree = cKDTree(means)
    result = np.empty(len(means))
    for rows in chunks(len(means), QUERY_ROWS):
        found, _ = tree.query(means[rows], k=neighbours + 1, workers=-1)  # itself is the first
        result[rows] = found[:, 1:].mean(axis=1)
    return result
