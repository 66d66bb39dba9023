"""Declared azimuths are estimates: turn and shift level views until their outlines fit each other.

Knows nothing of surfaces: it works on coarse slices of the hull. Outlines that fit need no hull cut
away from any of them, so the measure is the share of every outline that the hull fills, thin parts
counting as much by their length as thick ones. A turn has its price: it must be worth it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from models.image_to_mesh.geometry.outline import relative_depth
from models.image_to_mesh.geometry.silhouette import bounds

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

CELLS = 44
"""Per object height: slices, and columns of a slice."""
MOST_DEGREES = 15.0
PRICE_PER_DEGREE = 0.0004
STEPS_DEGREES = (10.0, 5.0, 2.5)
SHIFTS = np.linspace(-0.08, 0.08, 9)
LEAST_GAIN = 1e-3
GOOD_FIT = 0.99
"""Outlines that fit this well are left as they are: more would be fitting to pixels."""


@dataclass(frozen=True)
class Refined:
    """azimuths: degrees. shifts: of each image's axis to the right of the middle of its outline, in
    object heights. fit: 0..1, the share of the outlines that the hull fills."""

    azimuths: tuple[float, ...]
    shifts: tuple[float, ...]
    fit: float


def refine(alphas: Sequence[Array], azimuths: Sequence[float]) -> Refined:
    """Level views only, each (H, W). The mean turn is zero: the object's front stays the front."""
    slices = _Slices(alphas)
    count = len(alphas)
    turns, shifts = np.zeros(count), np.zeros(count)
    declared = np.asarray(azimuths, float)

    def score(turns: Doubles, shifts: Doubles) -> float:
        moved = turns - turns.mean()
        if np.abs(moved).max() > MOST_DEGREES:
            return -1.0
        return slices.fit(declared + moved, shifts) - PRICE_PER_DEGREE * float(np.abs(moved).sum())

    best = score(turns, shifts)
    for step in (0.0, *STEPS_DEGREES):  # shifts alone first
        improved = best < GOOD_FIT
        while improved:
            improved = False
            for view in range(1, count):  # the first image's axis fixes the object's
                for turn in sorted({0.0, -step, step}, key=abs):
                    for shift in SHIFTS * (step or STEPS_DEGREES[0]) / STEPS_DEGREES[0]:
                        trial, slid = turns.copy(), shifts.copy()
                        trial[view] += turn
                        slid[view] += shift
                        value = score(trial, slid)
                        if value > best + LEAST_GAIN:
                            turns, shifts, best, improved = trial, slid, value, True
    found = declared + turns - turns.mean()
    return Refined(
        tuple(round(float(a), 2) for a in found),
        tuple(float(s) for s in shifts),
        slices.fit(found, shifts),
    )


class _Slices:
    """Every outline as rows of the object's slices; columns in cells from the outline's middle."""

    def __init__(self, alphas: Sequence[Array]) -> None:
        widths = []
        for alpha in alphas:
            top, bottom, left, right = bounds(alpha)
            widths.append((right - left) / (bottom - top))
        self.half = int(np.ceil(CELLS * max(widths) * 0.75))
        self.solid, self.weight = zip(*(self._rows(alpha) for alpha in alphas), strict=True)
        ticks = np.arange(-self.half, self.half + 1)
        self.x, self.z = (axis.ravel() for axis in np.meshgrid(ticks, ticks, indexing="ij"))

    def _rows(self, alpha: Array) -> tuple[npt.NDArray[np.bool_], Array]:
        top, bottom, left, right = bounds(alpha)
        scale = CELLS / (bottom - top)
        width = max(1, round((right - left) * scale))
        small = cv2.resize(
            alpha[top:bottom, left:right], (width, CELLS), interpolation=cv2.INTER_AREA
        )
        before = self.half + 1 - width // 2
        after = 2 * self.half + 3 - width - before
        solid = np.pad(small >= 0.4, ((1, 1), (before, after)))
        weight = solid / np.maximum(relative_depth(solid)[1], 1.0)
        return solid, (weight / weight.sum()).astype(np.float32)

    def fit(self, azimuths: Doubles, shifts: Doubles) -> float:
        columns = []
        inside = np.ones((CELLS + 2, len(self.x)), bool)
        for azimuth, shift, solid in zip(azimuths, shifts, self.solid, strict=True):
            angle = np.radians(azimuth)
            across = self.x * np.cos(angle) - self.z * np.sin(angle) + shift * CELLS
            column = np.clip(np.rint(across).astype(int) + self.half + 1, 0, solid.shape[1] - 1)
            columns.append(column)
            inside &= solid[:, column]
        total = 0.0
        rows, points = np.nonzero(inside)
        for column, solid, weight in zip(columns, self.solid, self.weight, strict=True):
            seen = np.zeros(solid.shape, bool)
            seen[rows, column[points]] = True
            # A turned grid leaves gaps in a thin part's columns.
            seen[:, 1:-1] |= seen[:, :-2] & seen[:, 2:]
            total += float(weight[seen].sum())
        return total / len(columns)
