"""Which splats a filter keeps: by opacity, by size, by a box, by a sphere. One mask a filter.

Does not drop anything itself, and knows nothing of neighbours: every splat is judged alone. A
value on the limit is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import Splats

Mask = NDArray[np.bool_]

SAMPLE = 1 << 20
"""Splats from which the scene's centre and radius are taken: every so many-th one."""


def opaque_enough(splats: Splats, min_opacity: float) -> Mask:
    """Peak alpha of at least `min_opacity`, 0..1. Compared as logits: alphas near 1 keep apart."""
    if min_opacity <= 0:
        return np.ones(len(splats), bool)
    limit = math.inf if min_opacity >= 1 else math.log(min_opacity / (1 - min_opacity))
    return np.asarray(splats.opacities >= np.float32(limit))


def within_sizes(splats: Splats, min_size: float | None, max_size: float | None) -> Mask:
    """Largest standard deviation between the two, scene units; None: no limit."""
    keep = np.ones(len(splats), bool)
    low = -math.inf if not min_size else math.log(min_size)
    high = math.inf if max_size is None else math.log(max_size) if max_size else -math.inf
    for rows in chunks(len(splats)):
        largest = splats.scales[rows].max(axis=1)
        keep[rows] = (largest >= np.float32(low)) & (largest <= np.float32(high))
    return keep


def in_box(splats: Splats, box: Sequence[float]) -> Mask:  # [x0, y0, z0, x1, y1, z1]
    """Centre inside the box."""
    low, high = np.array(box[:3], np.float32), np.array(box[3:], np.float32)
    keep = np.empty(len(splats), bool)
    for rows in chunks(len(splats)):
        means = splats.means[rows]
        keep[rows] = ((means >= low) & (means <= high)).all(axis=1)
    return keep


def in_sphere(splats: Splats, sphere: Sequence[float]) -> Mask:  # [x, y, z, radius]
    """Centre inside the sphere."""
    centre, radius = np.array(sphere[:3]), sphere[3]
    keep = np.empty(len(splats), bool)
    for rows in chunks(len(splats)):
        offset = splats.means[rows] - centre
        keep[rows] = np.einsum("nd,nd->n", offset, offset) <= radius * radius
    return keep


def extent(splats: Splats) -> tuple[NDArray[np.float64], float]:
    """(centre [3], radius): the median splat, and the median distance of splats from it.

    Medians, so that a few splats a mile away do not move them.
    """
    sample = splats.means[:: max(1, len(splats) // SAMPLE)].astype(np.float64)
    centre = np.median(sample, axis=0)
    return centre, float(np.median(np.linalg.norm(sample - centre, axis=1)))
