"""How SOG v2 lays values out in textures: sizes and value ranges, for reader and writer alike.

Does not choose anything (codebooks, palettes, order): it is the arithmetic both sides must agree
on. Format: developer.playcanvas.com, "SOG format", where it agrees with the code that reads it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.splats import COEFFICIENTS

BOOK = 256
"""Entries of every codebook."""

MAX_SPLATS = 16380**2
"""Texels of the largest texture: WebP ends at 16383 pixels a side, sides are multiples of 4."""

TALLEST = 4096
"""Texels of the longer side that every graphics card takes; more only where splats need more."""

PALETTE_COLUMNS = 64
MAX_PALETTE = 1 << 16
POSITION_STEPS = 65535
QUAT_TAG = 252
"""Alpha of a quaternion texel: this plus the index of the component left out."""

OPACITY_CLAMP = 1e-6
"""Decoded alpha is clamped this far from 0 and 1 before its logit is taken."""


def texture_size(count: int, row: int = 0) -> tuple[int, int]:
    """(width, height) of the per-splat textures, multiples of 4.

    row: 0 for nearly square; else a power of two, 4 to TALLEST: the width is that, doubled until
    the height is at most TALLEST (where neither side can be, nearly square). Splats sorted in
    blocks of `row` then begin every block in the first column, which a WebP predicts from above,
    from where the block before began.
    """
    square = 4 * math.ceil(math.sqrt(count) / 4)
    width = row if 0 < row < count <= TALLEST**2 else square
    while count <= TALLEST**2 and math.ceil(count / width) > TALLEST:
        width *= 2
    height = 4 * math.ceil(count / width / 4)
    return width, height


def palette_size_px(count: int, degree: int) -> tuple[int, int]:
    """(width, height) of the texture of palette entries."""
    return PALETTE_COLUMNS * COEFFICIENTS[degree], -(-count // PALETTE_COLUMNS)


def to_texture(values: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """[N, C] rows of bytes -> [H, W, C], row-major from the top, zeros past the last row."""
    texels = np.zeros((width * height, values.shape[1]), np.uint8)
    texels[: len(values)] = values
    return texels.reshape(height, width, values.shape[1])


def log_position(means: NDArray[np.floating]) -> NDArray[np.float64]:
    """sign(p) ln(1 + |p|): fine steps near the origin, coarse far away. Any shape."""
    p = means.astype(np.float64)
    return np.sign(p) * np.log1p(np.abs(p))


def linear_position(n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of `log_position`."""
    return np.sign(n) * np.expm1(np.abs(n))


def alpha_to_logit(alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
    a = np.clip(alpha / 255, OPACITY_CLAMP, 1 - OPACITY_CLAMP)
    return np.log(a / (1 - a))


def quats_from_texels(texels: NDArray[np.uint8]) -> NDArray[np.float64]:  # [N, 4] -> [N, 4] wxyz
    """Unit quaternions; a texel with an alpha below 252 means "no rotation"."""
    n = len(texels)
    left_out = texels[:, 3].astype(np.intp) - QUAT_TAG
    valid = left_out >= 0
    left_out = np.where(valid, left_out, 0)
    stored = (texels[:, :3] / 255 * 2 - 1) / math.sqrt(2)
    quats = np.zeros((n, 4))
    quats[np.arange(n), left_out] = np.sqrt(np.maximum(0, 1 - (stored**2).sum(axis=1)))
    for field in range(3):  # component `field` of those that remain, in w, x, y, z order
        component = field + (field >= left_out)
        quats[np.arange(n), component] = stored[:, field]
    quats[~valid] = (1, 0, 0, 0)
    return quats
