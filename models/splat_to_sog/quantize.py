"""Positions, rotations and opacities as bytes: 16 bits an axis, 26 a rotation, 8 an alpha.

Does not build codebooks or palettes. Everything is rounded to the nearest step, never truncated:
truncation doubles the error and shifts every value the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog import layout

CHUNK_ROWS = 1 << 15  # the working set of the rotation search stays in cache


@dataclass(frozen=True)
class Positions:
    """mins, maxs: range of each axis in the log domain; steps: 0..65535."""

    mins: NDArray[np.float64]  # [3]
    maxs: NDArray[np.float64]  # [3]
    steps: NDArray[np.uint16]  # [N, 3]

    @property
    def low(self) -> NDArray[np.uint8]:
        return (self.steps & 255).astype(np.uint8)

    @property
    def high(self) -> NDArray[np.uint8]:
        return (self.steps >> 8).astype(np.uint8)


def quantize_positions(means: NDArray[np.float32]) -> Positions:  # [N, 3] finite
    n = layout.log_position(means)
    mins, maxs = n.min(axis=0), n.max(axis=0)
    span = np.where(maxs > mins, maxs - mins, 1)
    steps = np.rint((n - mins) / span * layout.POSITION_STEPS).astype(np.uint16)
    return Positions(mins, maxs, steps)


def quantize_opacities(logits: NDArray[np.float32]) -> NDArray[np.uint8]:  # [N] -> [N]
    """Nearest 8-bit alpha; logits of +-inf are exactly 255 and 0."""
    with np.errstate(over="ignore"):
        alpha = 1 / (1 + np.exp(-logits.astype(np.float64)))
    return np.rint(alpha * 255).astype(np.uint8)


def quantize_quats(quats: NDArray[np.float32]) -> NDArray[np.uint8]:  # [N, 4] wxyz -> [N, 4]
    """Texels of the rotations: of the eight codes around each, the one of least angle to it.

    Rounding each component alone is not the nearest: the component that is left out follows from
    the others, so their errors count more in some directions. Zero quaternions mean no rotation.
    """
    texels = np.empty((len(quats), 4), np.uint8)
    for start in range(0, len(quats), CHUNK_ROWS):
        stop = start + CHUNK_ROWS
        stored, largest, tag = smallest_three(quats[start:stop])
        base = np.floor(stored)
        best = np.full(len(base), -np.inf)
        chosen = np.zeros_like(base)
        target = (stored / 255 * 2 - 1) / math.sqrt(2)
        for corner in product((0.0, 1.0), repeat=3):
            code = np.minimum(base + corner, 255)
            decoded = (code / 255 * 2 - 1) / math.sqrt(2)
            square = (decoded**2).sum(axis=1)
            left_out = np.sqrt(np.maximum(0, 1 - square))
            cosine = (target * decoded).sum(axis=1) + largest * left_out
            cosine /= np.sqrt(np.maximum(square, 1))  # a decoded length above 1 is normalised
            better = cosine > best
            best[better] = cosine[better]
            chosen[better] = code[better]
        texels[start:stop, :3] = chosen
        texels[start:stop, 3] = tag
    return texels


def round_quats(quats: NDArray[np.float32]) -> NDArray[np.uint8]:  # [N, 4] wxyz -> [N, 4]
    """The plain reference of `quantize_quats`: each stored component rounded by itself."""
    stored, _, tag = smallest_three(quats)
    return np.concatenate([np.rint(stored).astype(np.uint8), tag[:, None]], axis=1)


def smallest_three(
    quats: NDArray[np.float32],  # [N, 4] w, x, y, z; any length
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
    """(the three smaller components on the scale 0..255 [N, 3], the largest [N], its tag [N])."""
    q = quats.astype(np.float64)
    length = np.linalg.norm(q, axis=1)
    q[length == 0] = (1, 0, 0, 0)
    q /= np.where(length == 0, 1, length)[:, None]
    index = np.abs(q).argmax(axis=1)
    rows = np.arange(len(q))
    largest = q[rows, index]
    q *= np.where(largest < 0, -1, 1)[:, None]  # q and -q are the same rotation
    others = np.array([[c for c in range(4) if c != m] for m in range(4)])[index]  # [N, 3]
    stored = (q[rows[:, None], others] * math.sqrt(2) * 0.5 + 0.5) * 255
    tag = (layout.QUAT_TAG + index).astype(np.uint8)
    return np.clip(stored, 0, 255), np.abs(largest), tag
