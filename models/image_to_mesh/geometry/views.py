"""Which side each image shows: declared, read from file names, or guessed and reported as such.

Knows nothing of the surface to be built. Azimuth: 0 front, 90 the object's left side (camera at
+X), 180 back, 270 its right side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from models.image_to_mesh.geometry.silhouette import bounds

Array = npt.NDArray[np.float32]

LABELS = {0: "front", 90: "left", 180: "back", 270: "right"}
WORDS = {"front": 0, "left": 90, "back": 180, "rear": 180, "right": 270}
SIDE_PX = 96


@dataclass(frozen=True)
class ViewPlan:
    """One azimuth and elevation per image, degrees; how they came about; 0..1 how sure."""

    azimuths: tuple[float, ...]
    elevations: tuple[float, ...]
    source: Literal["single", "declared", "file names", "guess"]
    confidence: float

    @property
    def orthogonal(self) -> bool:
        """Level views at right angles: what the elliptical hull needs."""
        right = all(abs((a + 1e-6) % 90) < 1e-3 for a in self.azimuths)
        return right and not any(self.elevations)

    def label(self, index: int) -> str:
        azimuth = self.azimuths[index] % 360
        return LABELS.get(round(azimuth), "") if azimuth == round(azimuth) else ""


def plan_views(
    pictures: Sequence[Array],  # each (H, W, 4) float32 0..1
    names: Sequence[str],
    azimuths: Sequence[float] | None,
    elevations: Sequence[float] | None,
) -> ViewPlan:
    levels = tuple(elevations) if elevations is not None else (0.0,) * len(pictures)
    if azimuths is not None:
        return ViewPlan(tuple(azimuths), levels, "declared", 1.0)
    if len(pictures) == 1:
        return ViewPlan((0.0,), levels, "single", 1.0)
    named = _from_names(names)
    if named is not None:
        return ViewPlan(named, levels, "file names", 0.95)
    guessed, confidence = _guess(pictures)
    return ViewPlan(guessed, levels, "guess", round(confidence, 2))


def _from_names(names: Sequence[str]) -> tuple[float, ...] | None:
    """Angles where every name holds exactly one of the words, and no two the same."""
    found = [{WORDS[w] for w in re.findall(r"[a-z]+", n.lower()) if w in WORDS} for n in names]
    if any(len(angles) != 1 for angles in found):
        return None
    angles = [float(angles.pop()) for angles in found]
    return tuple(angles) if len(set(angles)) == len(angles) else None


def _guess(pictures: Sequence[Array]) -> tuple[tuple[float, ...], float]:
    """Opposite views have mirrored outlines; fronts are symmetric; rims tell left from right."""
    count = len(pictures)
    if count > 4:  # as taken, once around
        return tuple(360.0 * k / count for k in range(count)), 0.3
    tiles = [_tile(picture) for picture in pictures]
    masks = [tile[..., 3] >= 0.5 for tile in tiles]
    mirrored = np.array([[_overlap(a, b[:, ::-1]) for b in masks] for a in masks])
    symmetry = np.diag(mirrored)
    pairs = [_pairs(count, first) for first in combinations(range(count), 2)]
    scores = [float(np.mean([mirrored[pair] for pair in found])) for found in pairs]
    best = int(np.argmax(scores))
    if count == 2 and scores[0] < 0.9:
        pairs, best = [[]], 0  # not opposite: a front and a side
    opposite = pairs[best]
    front_axis, side_axis = _choose_front(opposite, symmetry, count)
    angles = [0.0] * count
    for step, index in enumerate(front_axis):
        angles[index] = 180.0 * step
    sign = _side_sign(tiles, front_axis, side_axis) if side_axis else 0.0
    for step, index in enumerate(side_axis):
        angles[index] = 90.0 if (step == 0) == (sign >= 0) else 270.0
    others = [s for k, s in enumerate(scores) if k != best]
    margin = scores[best] - max(others) if others else abs(scores[0] - 0.9)
    sure = (
        0.3
        + 0.3 * min(1.0, margin / 0.15)
        + 0.3 * (min(1.0, abs(sign) / 0.3) if side_axis else 1.0)
    )
    return tuple(angles), sure


def _pairs(count: int, first: tuple[int, int]) -> list[tuple[int, int]]:
    rest = [k for k in range(count) if k not in first]
    return [first, (rest[0], rest[1])] if len(rest) == 2 else [first]


def _choose_front(
    opposite: Sequence[tuple[int, int]], symmetry: npt.NDArray[np.float64], count: int
) -> tuple[list[int], list[int]]:
    """Split the images into a front-back and a side axis; the more symmetric one is the front."""
    axes = [list(pair) for pair in opposite]
    used = {k for pair in opposite for k in pair}
    axes += [[k] for k in range(count) if k not in used]
    if len(axes) == 1:
        return axes[0], []
    # The first image counts as a front when symmetry says nothing.
    rank = [float(np.mean(symmetry[axis])) + 0.02 * (0 in axis) for axis in axes]
    front = int(np.argmax(rank))
    return axes[front], axes[1 - front]


def _side_sign(
    tiles: Sequence[Array], front_axis: Sequence[int], side_axis: Sequence[int]
) -> float:
    """-1..1: above 0 when the first side image was taken from +X.

    Seen from +X the front lies on the image's left. So its left rim has the colours of the front's
    middle, and what stands on feet points them there.
    """
    front = _column_colours(tiles[front_axis[0]], 0.4, 0.6)
    votes = []
    for step, index in enumerate(side_axis):
        left = _colour_distance(front, _column_colours(tiles[index], 0.0, 0.15))
        right = _colour_distance(front, _column_colours(tiles[index], 0.85, 1.0))
        colours = (right - left) / max(right + left, 1e-6)
        votes.append((colours + _feet_to_the_left(tiles[index])) * (1 if step == 0 else -1))
    return float(np.mean(votes))


def _feet_to_the_left(tile: Array) -> float:
    """How far the lowest tenth lies left of the whole, in half-widths of the object, -1..1."""
    solid = tile[..., 3] >= 0.5
    columns = np.flatnonzero(solid.any(axis=0))
    feet = np.flatnonzero(solid[-SIDE_PX // 10 :].any(axis=0))
    middle, half = np.nonzero(solid)[1].mean(), max(1.0, np.ptp(columns) / 2)
    return float(np.clip((middle - (feet[0] + feet[-1]) / 2) / half, -1, 1)) if len(feet) else 0.0


def _tile(picture: Array) -> Array:
    """The object scaled to a fixed height, centred in a tile twice as wide."""
    top, bottom, left, right = bounds(picture[..., 3])
    crop = picture[top:bottom, left:right]
    width = int(np.clip(round((right - left) * SIDE_PX / (bottom - top)), 1, 2 * SIDE_PX))
    small = cv2.resize(crop, (width, SIDE_PX), interpolation=cv2.INTER_AREA)
    before = (2 * SIDE_PX - width) // 2
    return np.pad(small, ((0, 0), (before, 2 * SIDE_PX - width - before), (0, 0)))


def _overlap(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _column_colours(tile: Array, start: float, stop: float) -> Array:  # -> (SIDE_PX, 4)
    """Mean colour of each row between two shares of its own extent; alpha 0 where it is empty."""
    result = np.zeros((SIDE_PX, 4), np.float32)
    for row in range(SIDE_PX):
        columns = np.flatnonzero(tile[row, :, 3] >= 0.5)
        if len(columns):
            first, last = columns[0], columns[-1] + 1
            low = first + int(start * (last - first))
            part = tile[row, low : max(low + 1, first + int(np.ceil(stop * (last - first))))]
            result[row] = part[part[:, 3] >= 0.5].mean(axis=0) if (part[:, 3] >= 0.5).any() else 0
    return result


def _colour_distance(a: Array, b: Array) -> float:
    both = (a[:, 3] > 0) & (b[:, 3] > 0)
    return float(np.linalg.norm(a[both, :3] - b[both, :3], axis=1).mean()) if both.any() else 0.0
