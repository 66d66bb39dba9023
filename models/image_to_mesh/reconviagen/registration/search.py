"""Where the mesh may lie: rotations all around are tried, the best of them moved about.

Knows nothing of faces: points of the surface with their colours are drawn into small squares. For
each rotation, size and place follow from the boxes around the photos' objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from models.cores import in_ranges
from models.image_to_mesh.reconviagen.registration.photos import Photo, sight_lines, square
from models.image_to_mesh.reconviagen.registration.placement import (
    Placement,
    all_around,
    degrees_between,
    turned,
)

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SIDE_PX = 56
ROTATIONS = 2000
BOX_POINTS = 250
"""Points whose box tells the size: the farthest in so many directions."""
COLOUR_WEIGHT = 1.0
"""An outline that agrees 10 % better weighs as much as colours that differ by 0.1 less."""
KEPT = 16
APART_DEGREES = 20.0
TRIALS = 40
TURN_DEGREES = 6.0
SPREADS = (8.0, 4.0, 2.0)
"""Degrees that trials stray; their place strays by as much of the object's size."""


class Search:
    """Scores placements of one mesh among one set of photos."""

    def __init__(self, points: Array, colours: Array, photos: Sequence[Photo]) -> None:
        self.points, self.colours, self.photos = points, colours, photos
        squares = [square(photo, SIDE_PX) for photo in photos]
        self.solid = np.stack([one.distance < 1.0 for one in squares])
        self.pictures = np.stack([one.colours for one in squares])
        self.intrinsics = np.stack([one.intrinsics for one in squares])
        self.to_camera = np.stack([photo.to_camera for photo in photos])
        boxes = [photo.outline for photo in photos]
        self.halves = np.stack([(high - low) / 2 for low, high in boxes])

    def scores(self, placements: Sequence[Placement]) -> Doubles:  # (T,): larger is better
        each = self.compare(placements)
        return np.asarray((each[..., 0] - COLOUR_WEIGHT * each[..., 1]).mean(axis=1))

    def compare(self, placements: Sequence[Placement]) -> Doubles:  # (T, N, 2)
        from models.image_to_mesh.reconviagen.registration import search_compiled as loops

        turns = np.stack([one.rotation for one in placements])
        centres = np.stack([one.centre for one in placements])
        scales = np.array([one.scale for one in placements])
        turn, shift = self.to_camera[:, :, :3], self.to_camera[:, :, 3]
        cameras = np.empty((len(turns), len(turn), 3, 4))
        cameras[..., :3] = turn @ turns[:, None]
        moved = np.einsum("nij,tj->tni", turn, centres) + shift
        cameras[..., 3] = moved / scales[:, None, None]
        cameras = (self.intrinsics @ cameras).astype(np.float32)
        result = np.empty((*cameras.shape[:2], 2))
        in_ranges(
            lambda begin, end: loops.compare(
                self.points, self.colours, cameras, self.solid, self.pictures, begin, end, result
            ),
            len(cameras),
        )
        return result

    def boxed(self, rotations: Doubles) -> list[Placement]:  # (T, 3, 3) -> T
        """Of each rotation, the size and the place by which the boxes around the object agree."""
        turn, shift = self.to_camera[:, :, :3], self.to_camera[:, :, 3]
        rows, right = sight_lines(self.photos)
        ahead = turn.mean(axis=0)[2]
        reach = np.abs(shift).max() + 1e-9
        # Photos from one side say little of the distance: any will do, if it is one ahead.
        matrix = np.concatenate([rows.reshape(-1, 3), 1e-3 * ahead[None]])
        inverse = np.linalg.pinv(matrix)
        aim = 1e-3 * (max(reach, 1e-3) - shift[:, 2].mean())
        first = inverse @ np.append(right.ravel(), aim)
        depth = np.maximum(turn[:, 2] @ first + shift[:, 2], 1e-3 * reach)  # (N,)
        axes = all_around(BOX_POINTS)[:, 2]
        corners = self.points[np.unique((self.points @ axes.T).argmax(axis=0))].astype(float)
        seen = np.einsum("nij,tjk,pk->tnip", turn[:, :2], rotations, corners, optimize=True)
        low, high = seen.min(axis=3), seen.max(axis=3)  # (T, N, 2)
        box, middle = (high - low) / 2, (high + low) / 2
        wanted = self.halves * depth[:, None]
        scales = np.median((wanted * box).sum(axis=2) / (box * box).sum(axis=2), axis=1)
        sides = right[None] - scales[:, None, None] * middle  # the box's middle is not the origin
        flat = np.concatenate(
            [sides.reshape(len(rotations), -1), np.full((len(rotations), 1), aim)], axis=1
        )
        centres = flat @ inverse.T
        return [
            Placement(float(scale), rotation, centre)
            for scale, rotation, centre in zip(scales, rotations, centres, strict=True)
        ]

    def best(self, count: int, rng: np.random.Generator) -> list[tuple[float, Placement]]:
        """Up to so many placements that differ by their rotation, the best first."""
        placements = self.boxed(all_around(ROTATIONS))
        found = _apart(list(zip(self.scores(placements), placements, strict=True)), KEPT)
        for spread in SPREADS:
            found = [self._moved_about(*one, spread, rng) for one in found]
            found = _apart(found, max(count, len(found) // 2))
        return found[:count]

    def turned_about(self, placement: Placement, count: int) -> list[Placement]:
        """The best of its turns about each axis: a round object's outline tells nothing of them."""
        _, principal = np.linalg.eigh(np.cov(self.points.T.astype(float)))
        angles = np.radians(np.arange(TURN_DEGREES, 360, TURN_DEGREES))
        trials = [
            replace(placement, rotation=placement.rotation @ turned(angle * axis))
            for axis in (*np.eye(3), *principal.T)
            for angle in angles
        ]
        scored = list(zip(self.scores(trials), trials, strict=True))
        return [one for _, one in _apart(scored, count)]

    def _moved_about(
        self, score: float, placement: Placement, spread: float, rng: np.random.Generator
    ) -> tuple[float, Placement]:
        steps = rng.normal(size=(TRIALS, 7)) * np.radians(spread)
        steps[:, 3:] *= 0.5
        trials = [placement.stepped(step) for step in steps]
        scores = self.scores(trials)
        best = int(scores.argmax())
        return (float(scores[best]), trials[best]) if scores[best] > score else (score, placement)


def _apart(scored: list[tuple[float, Placement]], count: int) -> list[tuple[float, Placement]]:
    """The best, none within APART_DEGREES of a better one."""
    left = sorted(scored, key=lambda one: -one[0])
    rotations = np.stack([placement.rotation for _, placement in left])
    open_ = np.ones(len(left), bool)
    kept: list[tuple[float, Placement]] = []
    for index, one in enumerate(left):
        if open_[index]:
            kept.append(one)
            open_ &= degrees_between(rotations, one[1].rotation) > APART_DEGREES
        if len(kept) == count:
            break
    return kept
