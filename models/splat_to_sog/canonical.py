"""One form for each ellipsoid: of the 24 ways to write its rotation, the one of smallest angle.

Does not know quantisers or textures. A Gaussian with rotation R and scales S looks the same after
its axes are renamed (R P, P' S P) by any of the 24 rotations P of the cube. The smallest of the 24
rotations has w as its largest component (so a SOG's tag byte becomes a constant) and x, y, z within
0.39 of zero instead of 0.71: 4.6 bits a splat that no decoder can miss. Measured on real scenes
after WebP against sorted scales (the other natural form): equal bytes, and the rotation's error is
nearly the same in all directions, so that plain rounding is as good as a search.
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.rotations import unit_matrices

Float32 = NDArray[np.float32]

QUAT_ZERO = 127.5  # a component of 0 lies between two codes
QUAT_SCALE = 255 * math.sqrt(0.5)  # codes per unit of a quaternion's component


@cache
def cube_rotations() -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """(the rotations of the cube as unit quaternions wxyz [24, 4], the axis each takes to axis j
    [24, 3]); the identity first."""
    quats = list(np.eye(4))
    for i, j in itertools.combinations(range(4), 2):
        for sign in (1, -1):
            quat = np.zeros(4)
            quat[i], quat[j] = math.sqrt(0.5), sign * math.sqrt(0.5)
            quats.append(quat)
    quats += [np.array([1, *signs]) / 2 for signs in itertools.product((1, -1), repeat=3)]
    group = np.array(quats)
    return group, np.abs(unit_matrices(group)).argmax(axis=1)


def canonical(
    scales: Float32,  # [N, 3] log
    quats: Float32,  # [N, 4] wxyz, any length; zero means no rotation
    keep_third: bool = False,  # a 2DGS splat's third axis is its normal and stays third
    turns: int = 1,  # smallest rotations to choose from
) -> tuple[Float32, Float32]:
    """(scales [N, 3], unit quats [N, 4] with w positive) of the same ellipsoids.

    With one turn it is the smallest rotation. With more it is that of the `turns` smallest whose
    stored components are rounded least: a few bits a splat for a fraction of the error.
    """
    group, axes = cube_rotations()
    if keep_third:
        allowed = axes[:, 2] == 2
        group, axes = group[allowed], axes[allowed]
    length = np.sqrt(np.einsum("ni,ni->n", quats, quats, dtype=np.float64))
    q = (quats / np.where(length == 0, 1, length)[:, None]).astype(np.float32)
    q[length == 0] = (1, 0, 0, 0)
    # w of q g is the inner product of q and the conjugate of g.
    w = q @ (group * (1, -1, -1, -1)).T.astype(np.float32)
    np.abs(w, out=w)
    elements = group.T.astype(np.float32)  # [4, G]
    best = w.argmax(axis=1)
    turned = _turned(q, elements[:, best])
    if turns > 1:
        rows, latest = np.arange(len(q)), best
        error = _storage_error(turned)
        for _ in range(min(turns, len(group)) - 1):
            w[rows, latest] = -1
            latest = w.argmax(axis=1)
            candidate = _turned(q, elements[:, latest])
            smaller = _storage_error(candidate)
            better = smaller < error
            best = np.where(better, latest, best)
            error = np.where(better, smaller, error)
            turned = np.where(better, candidate, turned)
    return np.take_along_axis(scales, axes[best], axis=1), np.ascontiguousarray(turned.T)


def _turned(q: Float32, elements: Float32) -> Float32:  # [N, 4], [4, N] -> [4, N], w positive
    turned = multiply(q.T, elements)
    return np.asarray(turned * np.where(turned[0] < 0, np.float32(-1), np.float32(1)), np.float32)


def _storage_error(q: Float32) -> Float32:  # [4, N] with w positive -> [N]
    """Squared error of the rotation after x, y, z are rounded and w follows from them; infinite
    where w is not the largest component, since that would take another tag byte."""
    code = q[1:] * np.float32(QUAT_SCALE) + np.float32(QUAT_ZERO)
    rounding = code - np.rint(code)
    along = (rounding * q[1:]).sum(axis=0) / np.maximum(q[0], np.float32(1e-3))
    error = (rounding**2).sum(axis=0) + along**2
    return np.where((np.abs(q[1:]) > q[0]).any(axis=0), np.float32(np.inf), error)


def multiply(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Hamilton product of quaternions [4, N], wxyz: the rotation b, then a."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ]
    )
