"""Turns spherical harmonics with the scene: one exact matrix a band.

Does not know of splats. The basis is that of 3DGS files: real harmonics with the Condon-Shortley
sign, bands 1 to 4 after the constant one, order -l..l within a band. Band 1 is a vector in the
order y, z, x (with signs), so its matrix is the rotation itself; every higher band's follows from
it by the recursion of Ivanic & Ruedenberg, "Rotation matrices for real spherical harmonics",
J. Phys. Chem. 1996 (with the 1998 correction), in float64.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def band_matrices(rotation: Float64, degree: int) -> list[Float64]:  # [3, 3]
    """Matrix [2l+1, 2l+1] of each band l = 1..degree: rotated coefficients = matrix @ coefficients.

    The rotated function's value at R d is the original's at d.
    """
    if not degree:
        return []
    standard = rotation[np.ix_([1, 2, 0], [1, 2, 0])]  # order y, z, x = m of -1, 0, 1
    bands = [standard]
    for level in range(2, degree + 1):
        bands.append(_next_band(standard, bands[-1], level))
    return [_signed(matrix) for matrix in bands]


def rotate_harmonics(
    shN: NDArray[np.float32],  # [N, 3, K] channel, coefficient  # noqa: N803
    bands: list[Float64],
    out: NDArray[np.float32],  # [N, 3, K]; may be shN itself
) -> None:
    """Applies each band's matrix to its coefficients."""
    start = 0
    for matrix in bands:
        band = slice(start, start + len(matrix))
        out[:, :, band] = shN[:, :, band].astype(np.float64) @ matrix.T
        start = band.stop


def _signed(matrix: Float64) -> Float64:
    """From harmonics without to with the Condon-Shortley sign (-1)^m: both sides change."""
    level = len(matrix) // 2
    sign = (-1.0) ** np.abs(np.arange(-level, level + 1))
    return matrix * sign[:, None] * sign


def _next_band(first: Float64, previous: Float64, level: int) -> Float64:
    """Matrix of band `level` from band 1 and band `level - 1` (tables 1 and 2 of the paper)."""
    size = 2 * level + 1
    result = np.empty((size, size))
    for m in range(-level, level + 1):
        for n in range(-level, level + 1):
            result[m + level, n + level] = _element(first, previous, level, m, n)
    return result


def _element(first: Float64, previous: Float64, level: int, m: int, n: int) -> float:
    """One element as u U + v V + w W."""
    scale = (level + n) * (level - n) if abs(n) < level else 2 * level * (2 * level - 1)
    zero = 1.0 if m == 0 else 0.0
    size = abs(m)
    u = math.sqrt((level + m) * (level - m) / scale)
    v = math.sqrt((1 + zero) * (level + size - 1) * (level + size) / scale)
    v *= 0.5 * (1 - 2 * zero)
    w = -0.5 * (1 - zero) * math.sqrt((level - size - 1) * (level - size) / scale) if m else 0.0

    def p(i: int, mu: int) -> float:
        return _product(first, previous, level, i, mu, n)

    total = 0.0
    if u:
        total += u * p(0, m)
    if v:
        total += v * _v_term(p, m)
    if w:
        total += w * (p(1, m + 1) + p(-1, -m - 1) if m > 0 else p(1, m - 1) - p(-1, -m + 1))
    return total


def _v_term(p, m: int) -> float:  # type: ignore[no-untyped-def]
    if m == 0:
        return float(p(1, 1) + p(-1, -1))
    if m > 0:
        if m == 1:
            return float(math.sqrt(2) * p(1, 0))
        return float(p(1, m - 1) - p(-1, 1 - m))
    if m == -1:
        return float(math.sqrt(2) * p(-1, 0))
    return float(p(1, m + 1) + p(-1, -m - 1))


def _product(first: Float64, previous: Float64, level: int, i: int, mu: int, n: int) -> float:
    """The paper's P: a product of band 1 and the previous band, with both edges handled."""
    centre = level - 1

    def one(j: int) -> float:
        return float(first[i + 1, j + 1])

    def before(j: int) -> float:
        return float(previous[mu + centre, j + centre])

    if n == level:
        return one(1) * before(centre) - one(-1) * before(-centre)
    if n == -level:
        return one(1) * before(-centre) + one(-1) * before(centre)
    return one(0) * before(n)
