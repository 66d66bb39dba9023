"""How much light each splat gets through to a camera, estimated by dropping points into columns.

Does not know cameras or colours. Each splat becomes a few random points of its ellipsoid that
share its optical mass; seen along a few directions spread evenly over the sphere, points fall into
the columns of a grid, and what lies before a point in its column dims it. Only what lies within
REACH counts: a wall seen from inside a room is not hidden by the wall's other side. Seeded.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.rotations import unit_matrices
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.threads import in_threads

Float32 = NDArray[np.float32]

GRID = 192  # columns along the diagonal of the scene
DIRECTIONS = 4  # each is looked along from both ends
MAX_POINTS = 2  # a splat
REACH = 0.03  # of the scene's diagonal
DEPTHS = 1 << 16
FARTHEST = 1e37  # scene units: differences and multiples of it are float32
MAX_MASS = 3.0  # optical depth of one point in its column
FLOOR = 3e-3
"""Squared transmittance of what is hidden: the estimate may be wrong."""


def visibility(
    splats: Splats,
    alpha: Float32,  # [N]
    area: Float32,  # [N] mean projected area over pi
) -> Float32:
    """Mean squared transmittance of each splat over directions, FLOOR..1 + FLOOR: [N]."""
    n = len(splats)
    sample = splats.means[:: max(1, n // 100_000)].astype(np.float64)
    low, high = np.quantile(sample, (0.01, 0.99), axis=0)
    diagonal = max(float(np.linalg.norm(high - low)), 1e-9)
    cell = diagonal / GRID
    centre = (low + high) / 2
    # Far outliers are taken to the scene's edge.
    edges = np.clip([centre - diagonal, centre + diagonal], -FARTHEST, FARTHEST).astype(np.float32)
    middle = np.clip(centre, -FARTHEST, FARTHEST).astype(np.float32)

    points, owner, mass = _points(splats, alpha, area, cell)

    def along(axis: NDArray[np.float64]) -> NDArray[np.float64]:
        u, v = _across(axis)
        plane = np.stack([u, v], axis=1).astype(np.float32) / np.float32(cell)
        depth = (np.clip(splats.means, *edges) - middle) @ (axis / diagonal).astype(np.float32)
        deep = np.clip((depth + 0.75) * (DEPTHS / 1.5), 0, DEPTHS - 1).astype(np.uint64)
        place = (np.clip(points, *edges) - middle) @ plane + GRID / 2
        place = np.clip(place, 0, GRID - 1).astype(np.uint64)
        column = place[:, 0] * np.uint64(GRID) + place[:, 1]
        # column, depth of the centre (renderers sort by it), point: one number sorts all three
        key = (column * np.uint64(DEPTHS) + deep[owner]) << np.uint64(32)
        key |= np.arange(len(points), dtype=np.uint64)
        key.sort()
        return _transmitted(key, mass, owner, n)

    seen = np.sum(in_threads(along, _hemisphere(DIRECTIONS)), axis=0)
    count = np.bincount(owner, minlength=n)
    return np.asarray(seen / (2 * DIRECTIONS * count) + FLOOR, np.float32)


def _transmitted(
    key: NDArray[np.uint64], mass: Float32, owner: NDArray[np.int32], n: int
) -> NDArray[np.float64]:
    """Squared transmittance from both ends, summed over each splat's points: [n]."""
    point = (key & np.uint64(0xFFFFFFFF)).astype(np.intp)
    place = (key >> np.uint64(32)).astype(np.int64)
    start = place & ~np.int64(DEPTHS - 1)
    reach = int(REACH * DEPTHS / 1.5)
    own = mass[point].astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(own)])
    first = np.searchsorted(place, np.maximum(place - reach, start))
    last = np.searchsorted(place, np.minimum(place + reach, start + DEPTHS - 1), side="right")
    before = total[:-1] - total[first]
    behind = total[last] - total[1:]
    light = np.exp(-2 * before) + np.exp(-2 * behind)
    return np.bincount(owner[point], light, minlength=n).astype(np.float64)


def _points(
    splats: Splats, alpha: Float32, area: Float32, cell: float
) -> tuple[Float32, NDArray[np.int32], Float32]:
    """(points [M, 3], the splat of each [M], optical depth each adds to its column [M])."""
    cells = np.pi * area.astype(np.float64) / cell**2
    count = np.clip(np.ceil(4 * cells), 1, MAX_POINTS).astype(np.intp)
    owner = np.repeat(np.arange(len(splats), dtype=np.int32), count)
    mass = np.minimum(2 * alpha * cells / count, MAX_MASS).astype(np.float32)[owner]
    points = splats.means[owner]
    rng = np.random.default_rng(0)
    several = np.flatnonzero(count[owner] > 1)
    for rows in chunks(len(several)):
        chosen = several[rows]
        splat = owner[chosen]
        quats = splats.quats[splat]
        length = np.sqrt(np.einsum("ni,ni->n", quats, quats, dtype=np.float64))
        quats = (quats / np.where(length == 0, 1, length)[:, None]).astype(np.float32)
        size = np.exp(np.clip(splats.scales[splat], -20, 20))
        offset = rng.standard_normal((len(chosen), 3), np.float32) * size
        points[chosen] += np.einsum("nij,nj->ni", unit_matrices(quats), offset)
    return points, owner, mass


def _hemisphere(count: int) -> NDArray[np.float64]:  # [count, 3] unit
    """Evenly spread directions, none of which has its opposite: a Fibonacci spiral."""
    i = np.arange(count) + 0.5
    z = i / count
    angle = i * math.pi * (3 - math.sqrt(5))
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def _across(axis: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two unit vectors that complete `axis` to a frame."""
    u = np.cross(axis, np.eye(3)[np.abs(axis).argmin()])
    u /= np.linalg.norm(u)
    return u, np.cross(axis, u)
