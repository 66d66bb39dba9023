"""Few level views -> rounded cross-sections: in every slice the ellipse that touches all outlines.

Knows nothing of how its field becomes a surface (see `visual_hull`). A view bounds a slice by a
strip: |u . p - c| <= r, with u the camera's right, c and r the middle and half-width of a run of
the outline. Few strips bound a polygon; nature is round. The ellipse with matrix Q, centred at m,

    (p - m)^T Q^-1 (p - m) = 1,   reaches sqrt(u^T Q u) along u,

so u^T Q u = r^2 and u . m = c for every view: linear in Q and m. Three directions give Q exactly,
more in the mean. Two leave its shear open, and what is nearest to a circle is taken: for a front
and a side view that is 1 - ((x - cx) / rx)^2 - ((z - cz) / rz)^2, an upright ellipse.

A strip that another part of the object widens (two feet that touch in one view) counts only as far
as the other views leave room for it, and not at all if neither of its sides is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from models.image_to_mesh.geometry.cameras import Camera

Array = npt.NDArray[Any]  # float32
Doubles = npt.NDArray[np.float64]

LEVEL_DEGREES = 30.0
"""A view from higher or lower shows no slices: it only carves."""
SAME_DIRECTION_DEGREES = 15.0
MOST_DIRECTIONS = 4
"""From more, the polygon is round enough, and what is not elliptical survives."""
TOWARDS_CIRCLE = 0.02
"""Weight of roundness against the strips."""
BINDING_SLACK = 0.15
"""Share of its half-width by which a strip may miss the slice and still count as touching it."""
FLATTEST = 0.05
"""Least ratio of the ellipse's axes."""
MOST_GROWTH = 2.0
LEAST_SHARE = 0.02
"""Of its half-width: what is left of a strip at least, where strips have nothing in common."""
FLOOR = -2.0


@dataclass(frozen=True)
class Strips:
    """What each of K views says about N points' slices, in units of the object's frame.

    offset: (K, N) float32, of the point from the strip's middle, along the view's right
    radius: (K, N) float32, half-width of the strip
    """

    offset: Array
    radius: Array


def slicing_views(cameras: Sequence[Camera]) -> list[int]:
    """The level views, if they look along 2 to MOST_DIRECTIONS distinct directions; else none."""
    level = np.sin(np.radians(LEVEL_DEGREES))
    chosen = [k for k, camera in enumerate(cameras) if abs(camera.rotation[2, 1]) <= level]
    distinct: list[Doubles] = []
    for k in chosen:
        right = _rights([cameras[k]])[0]
        limit = np.sin(np.radians(SAME_DIRECTION_DEGREES))
        if all(abs(_cross(right, other)) > limit for other in distinct):
            distinct.append(right)
    return chosen if 2 <= len(distinct) <= MOST_DIRECTIONS else []


def ellipse_field(cameras: Sequence[Camera], strips: Strips) -> Array:  # -> (N,)
    """1 in the middle of the slice's ellipse, 0 on it, falling to FLOOR outside."""
    rights = _rights(cameras)
    middle, radius, binding = _tightened(rights, strips)
    field = np.empty(binding.shape[1], np.float32)
    pattern = sum(bound.astype(np.int32) << k for k, bound in enumerate(binding))
    for code in np.unique(pattern):
        mine = np.flatnonzero(pattern == code)
        used = np.flatnonzero(binding[:, mine[0]])
        u, r = rights[used].astype(np.float32), radius[np.ix_(used, mine)]
        x, z = _centre(u, middle[np.ix_(used, mine)], r)
        xx, zz, xz = _ellipse(u, r)
        field[mine] = 1 - (zz * x * x + xx * z * z - 2 * xz * x * z) / (xx * zz - xz * xz)
    return np.clip(field, FLOOR, 1)


def _rights(cameras: Sequence[Camera]) -> Doubles:  # -> (K, 2) unit, in the (x, z) plane
    rights = np.array([camera.rotation[0, [0, 2]] for camera in cameras])
    return np.asarray(rights / np.linalg.norm(rights, axis=1, keepdims=True))


def _cross(a: Doubles, b: Doubles) -> float:
    return float(a[0] * b[1] - a[1] * b[0])


def _pairs(rights: Doubles) -> Iterator[tuple[int, int]]:
    limit = np.sin(np.radians(SAME_DIRECTION_DEGREES))
    for i, j in combinations(range(len(rights)), 2):
        if abs(_cross(rights[i], rights[j])) > limit:
            yield i, j


def _tightened(
    rights: Doubles, strips: Strips
) -> tuple[Array, Array, npt.NDArray[np.bool_]]:  # each (K, N)
    """Strips cut down to what the parallelograms of all pairs of others leave of them.

    Their middles, seen from the point, their half-widths, and which of them bind: have a side that
    is still their own.
    """
    low, high = -strips.offset - strips.radius, -strips.offset + strips.radius
    least, most = low.copy(), high.copy()
    for i, j in _pairs(rights):
        for k in range(len(rights)):
            if k in (i, j):
                continue
            # u_k = a u_i + b u_j: where the parallelogram's middle and ends lie along u_k.
            a, b = map(float, np.linalg.solve(rights[[i, j]].T, rights[k]))
            middle = -a * strips.offset[i] - b * strips.offset[j]
            reach = abs(a) * strips.radius[i] + abs(b) * strips.radius[j]
            np.maximum(least[k], middle - reach, out=least[k])
            np.minimum(most[k], middle + reach, out=most[k])
    slack = BINDING_SLACK * strips.radius
    binding = (least <= low + slack) | (most >= high - slack)
    crossing = [binding[i] & binding[j] for i, j in _pairs(rights)]
    # An ellipse needs two directions: without them, all strips count.
    binding |= ~np.logical_or.reduce(crossing)
    radius = np.maximum((most - least) / 2, LEAST_SHARE * strips.radius)
    return (least + most) / 2, radius, binding


def _centre(u: Array, middle: Array, radius: Array) -> tuple[Array, Array]:  # (K, 2), (K, N)
    """Least squares of u . m = middle, narrow strips counting more: x and z, (N,), from the point.

    The point itself is the origin, so the offset from the centre is the negative; the ellipse does
    not mind.
    """
    weight = 1 / np.square(radius)
    xx, zz, xz = (_combined(u[:, a] * u[:, b], weight) for a, b in ((0, 0), (1, 1), (0, 1)))
    weight *= middle
    x, z = (_combined(u[:, axis], weight) for axis in (0, 1))
    determinant = xx * zz - xz * xz
    return (zz * x - xz * z) / determinant, (xx * z - xz * x) / determinant


def _ellipse(u: Array, radius: Array) -> tuple[Array, Array, Array]:  # (K, 2), (K, N) -> (N,)
    """Q's xx, zz and xz by least squares, no flatter than FLATTEST, grown to reach every strip."""
    reach = np.stack([u[:, 0] ** 2, u[:, 1] ** 2, 2 * u[:, 0] * u[:, 1]], axis=1)
    uneven = np.array([[1, -1, 0], [0, 0, 2]]) / np.sqrt(2)
    solver = np.linalg.solve(reach.T @ reach + TOWARDS_CIRCLE * uneven.T @ uneven, reach.T)
    squared = np.square(radius)
    xx, zz, xz = (_combined(row, squared) for row in solver.astype(np.float32))
    mean, lean = (xx + zz) / 2, (xx - zz) / 2
    half = np.sqrt(lean * lean + xz * xz)  # of the difference between the axes' squares
    # Raise the short axis: Q + lift n n^T, with n along it.
    lift = np.maximum(FLATTEST**2 * (mean + half) - (mean - half), 0) / 2
    scale = lift / np.maximum(half, 1e-12)
    xx, zz, xz = xx + lift - scale * lean, zz + lift + scale * lean, xz - scale * xz
    growth = np.ones_like(mean)
    for (along_xx, along_zz, along_xz), wanted in zip(reach, squared, strict=True):
        shown = along_xx * xx + along_zz * zz + along_xz * xz
        np.maximum(growth, wanted / np.maximum(shown, 1e-12), out=growth)
    np.minimum(growth, MOST_GROWTH, out=growth)
    return xx * growth, zz * growth, xz * growth


def _combined(factors: Array, values: Array) -> Array:  # (K,), (K, N) -> (N,)
    """Plain sums: a matrix product this thin takes longer."""
    total = factors[0] * values[0]
    for factor, value in zip(factors[1:], values[1:], strict=True):
        total += factor * value
    return np.asarray(total)
