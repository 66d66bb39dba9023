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

    With one turn it is the smallest rotation. With more it is that of the `turns` smallest (of one
    cell all in the same order) whose stored components are rounded least: a few bits a splat for a
    fraction of the error.
    """
    group, axes = cube_rotations()
    q = _unit(quats)
    best = _smallest_flat(q) if keep_third else _smallest(q)
    elements = group.T.astype(np.float32)  # [4, G]
    turned = _turned(q, elements.take(best, axis=1))
    if turns > 1:
        # Names of the smallest rotation in their turn: which are next depends on its cell.
        after = _flat_elements() if keep_third else _by_size().take(_cell(turned), axis=1)
        error, chosen = _storage_error(turned), np.zeros(len(best), np.uint8)
        for following in after[1:turns]:
            smaller = _storage_error(_turned(turned, elements.take(following, axis=1)))
            np.copyto(chosen, following, where=smaller < error)
            np.minimum(error, smaller, out=error)
        turned = _turned(turned, elements.take(chosen, axis=1))
        best = _products()[best, chosen]
    flat = axes.take(best, axis=0)
    flat += 3 * np.arange(len(best))[:, None]
    return scales.ravel().take(flat), np.ascontiguousarray(turned.T)


def _unit(quats: Float32) -> Float32:  # [N, 4], any length -> [4, N]
    q = np.array(quats.T, order="C")  # a copy, of a single splat as well
    largest = np.abs(q).max(axis=0)  # squares of the quotients neither overflow nor vanish
    q /= np.where(largest == 0, np.float32(1), largest)
    q[0, largest == 0] = 1
    q /= np.sqrt(np.square(q).sum(axis=0))
    return q


def _smallest(q: Float32) -> NDArray[np.uint8]:  # unit [4, N] -> [N]
    """The element g of the group for which q g is the smallest rotation.

    The w of q g is a component of q, or two of them, or all, with signs, over the square root of
    how many: of each kind the largest, so two comparisons decide, and a table names the element.
    """
    size = np.abs(q)
    number = np.arange(4, dtype=np.uint32)[:, None]  # of a component, in the lowest bits
    ranked = size.view(np.uint32) & ~np.uint32(3) | number
    a, b = np.maximum(ranked[0], ranked[1]), np.minimum(ranked[0], ranked[1])
    c, d = np.maximum(ranked[2], ranked[3]), np.minimum(ranked[2], ranked[3])
    first = np.maximum(a, c)
    second = np.maximum(np.minimum(a, c), np.maximum(b, d))
    one = first.view(np.float32)
    two = (one + second.view(np.float32)) * np.float32(math.sqrt(0.5))
    four = size.sum(axis=0) / 2
    code = (first & 3) << 4 | (second & 3) << 6 | _signs(q)
    code += (two > one) * np.uint32(256)
    code[four > np.maximum(one, two)] |= 512
    return np.asarray(_elements_of_codes().take(code))


def _signs(q: Float32) -> NDArray[np.uint32]:  # [C, N] -> [N], bit i: row i is negative
    bits = q.view(np.uint32) >> np.uint32(31)
    bits <<= np.arange(len(q), dtype=np.uint32)[:, None]
    return np.asarray(np.bitwise_or.reduce(bits, axis=0))


@cache
def _elements_of_codes() -> NDArray[np.uint8]:  # [1024]
    """For `_smallest`: the element by how many components count, which are first and second, and
    which are negative."""
    code = np.arange(1024)
    sign = np.where(code[:, None] >> np.arange(4) & 1, -1, 1)
    one = np.eye(4)[code >> 4 & 3]
    two = one + np.eye(4)[code >> 6 & 3]
    typical = np.where((code < 256)[:, None], one, np.where((code < 512)[:, None], two, 1)) * sign
    return np.asarray(_w(typical.T, slice(None)).argmax(axis=0), np.uint8)


def _smallest_flat(q: Float32) -> NDArray[np.uint8]:  # unit [4, N] -> [N]
    """The same among elements that leave the third axis third."""
    allowed = _flat_elements()
    return np.asarray(allowed[_w(q, allowed).argmax(axis=0)])


@cache
def _flat_elements() -> NDArray[np.uint8]:  # [8], the identity first
    return np.flatnonzero(cube_rotations()[1][:, 2] == 2).astype(np.uint8)


def _w(q: NDArray[np.floating], elements: NDArray[np.uint8] | slice) -> NDArray[np.floating]:
    """|w| of q [4, N] after each of these elements: [G, N]. Not a matrix product: that of BLAS
    keeps all cores busy waiting for it."""
    conjugate = (cube_rotations()[0][elements] * (1, -1, -1, -1)).astype(q.dtype)
    return np.asarray(np.abs(np.einsum("gi,in->gn", conjugate, q)))


def _cell(turned: Float32) -> NDArray[np.uint32]:  # [4, N] -> [N] 0..63
    """Signs of x, y, z, and which of each two is larger."""
    x, y, z = np.abs(turned[1:])
    return _signs(turned[1:]) | _signs(np.stack([x - y, y - z, x - z])) << np.uint32(3)


@cache
def _by_size() -> NDArray[np.uint8]:  # [24, 64]
    """The elements by the size of the rotation they make of one in this cell, smallest first."""
    cell = np.arange(64)
    sign = np.where(cell[:, None] >> np.arange(3) & 1, -1, 1)
    xy, yz, xz = (cell >> bit & 1 for bit in (3, 4, 5))
    rank = np.stack([2 - xy - xz, 1 + xy - yz, yz + xz], axis=1)
    typical = np.concatenate([np.ones((64, 1)), sign * (0.05 + 0.1 * rank)], axis=1)
    return np.argsort(-_w(typical.T, slice(None)), axis=0, kind="stable").astype(np.uint8)


@cache
def _products() -> NDArray[np.uint8]:  # [24, 24]
    """The element that does what two do one after the other, up to sign."""
    group = cube_rotations()[0]
    first, second = (grid.ravel() for grid in np.indices((24, 24)))
    product = multiply(group[first].T, group[second].T)
    same = np.abs(np.einsum("gi,in->gn", group, product)).argmax(axis=0)
    return np.asarray(same.reshape(24, 24), np.uint8)


def _turned(q: Float32, elements: Float32) -> Float32:  # [4, N], [4, N] or [4] -> [4, N], w >= 0
    turned = multiply(q, elements)
    turned *= np.where(turned[0] < 0, np.float32(-1), np.float32(1))
    return np.asarray(turned, np.float32)


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
