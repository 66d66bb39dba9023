"""Positions, rotations and opacities as bytes: 16 bits an axis, 26 a rotation, 8 an alpha.

Does not build codebooks or palettes and does not choose steps: it is given them. Everything is
rounded to the nearest step, never truncated: truncation doubles the error and shifts every value
the same way. A step of 1 uses every code; a coarser one uses every s-th, so that the texture's
entropy falls with the logarithm of s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog import layout
from models.splat_to_sog.canonical import QUAT_SCALE, QUAT_ZERO
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.threads import in_threads

CELL = 256  # positions that share a high byte
ROWS = 1 << 16  # a thread's share at a time


@dataclass(frozen=True)
class Grid:
    """Range of each axis in the log domain; 65,536 points lie between."""

    mins: NDArray[np.float64]  # [3]
    maxs: NDArray[np.float64]  # [3]

    @property
    def unit(self) -> NDArray[np.float64]:  # [3]
        """Distance of two points in the log domain; an axis without extent has some."""
        span = self.maxs - self.mins
        return np.where(span > 0, span, 1) / layout.POSITION_STEPS


@dataclass(frozen=True)
class Positions:
    """steps: 0..65535 between the mins and maxs of the log domain."""

    mins: NDArray[np.float64]  # [3]
    maxs: NDArray[np.float64]  # [3]
    steps: NDArray[np.uint16]  # [N, 3]

    @property
    def low(self) -> NDArray[np.uint8]:
        return (self.steps & 255).astype(np.uint8)

    @property
    def high(self) -> NDArray[np.uint8]:
        return (self.steps >> 8).astype(np.uint8)


def grid_of(means: NDArray[np.float32]) -> Grid:  # [N, 3] finite
    ends = in_threads(
        lambda rows: (means[rows].min(axis=0), means[rows].max(axis=0)), chunks(len(means), ROWS)
    )
    lows, highs = zip(*ends, strict=True)
    return Grid(
        layout.log_position(np.min(lows, axis=0)), layout.log_position(np.max(highs, axis=0))
    )


def quantize_positions(
    means: NDArray[np.float32],  # [N, 3] finite
    grid: Grid | None = None,  # of the whole scene; default: of these
    spacing: NDArray[np.integer] | None = None,  # [N, 3] 1..256; default 1
) -> Positions:
    """Nearest of the points whose low byte is a multiple of the spacing."""
    grid = grid or grid_of(means)
    points = (layout.log_position(means) - grid.mins) / grid.unit
    if spacing is not None:
        cell = np.floor(points / CELL) * CELL
        last = (CELL - 1) // spacing * spacing  # past it the next cell's first point may be nearer
        inside = points - cell
        low = np.rint(inside / spacing) * spacing
        points = cell + np.where(2 * inside > last + CELL, CELL, np.minimum(low, last))
    steps = np.rint(points).clip(0, layout.POSITION_STEPS).astype(np.uint16)
    return Positions(grid.mins, grid.maxs, steps)


def quantize_opacities(
    logits: NDArray[np.float32],  # [N]
    steps: NDArray[np.integer] | int = 1,  # of 1/255
) -> NDArray[np.uint8]:  # [N]
    """Nearest multiple of the step as alpha; logits of +-inf are exactly 255 and 0."""
    with np.errstate(over="ignore"):
        alpha = 255 / (1 + np.exp(-logits.astype(np.float64)))
    coarse = np.minimum(np.rint(alpha / steps) * steps, 255)
    return np.where(np.isinf(logits), np.rint(alpha), coarse).astype(np.uint8)


def quantize_quats(
    quats: NDArray[np.float32],  # [N, 4] wxyz, any length
    steps: NDArray[np.integer] | int = 1,  # [N] codes
) -> NDArray[np.uint8]:  # [N, 4]
    """Texels of the rotations, each stored component rounded; zero quaternions mean no rotation.

    For the small rotations that `canonical` leaves the component left out hardly changes with the
    others, so each is rounded on its own.
    """
    stored, _, tag = smallest_three(quats)
    if isinstance(steps, np.ndarray):
        steps = steps[:, None]
    coarse = QUAT_ZERO + np.rint((stored - QUAT_ZERO) / steps) * steps
    fine = np.where(np.equal(steps, 1), stored, coarse)  # a step of 1 needs no code for 0
    return np.concatenate([np.clip(np.rint(fine), 0, 255).astype(np.uint8), tag[:, None]], axis=1)


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
    if index.any():
        others = np.array([[c for c in range(4) if c != m] for m in range(4)])[index]  # [N, 3]
        stored = q[rows[:, None], others]
    else:
        stored = q[:, 1:]
    tag = (layout.QUAT_TAG + index).astype(np.uint8)
    return np.clip(stored * QUAT_SCALE + QUAT_ZERO, 0, 255), np.abs(largest), tag
