"""Fewer splats that look the same: neighbours are merged, the least visible change first.

Does not drop a splat: its light moves into a neighbour. In rounds, every splat is paired with the
neighbour it merges with at the least cost (`pair_cost`, `matching`), and the cheapest pairs become
one splat each. Merging by moments after Goldberger & Roweis, "Hierarchical clustering of a mixture
model", 2004; measured choices are in docs/scene-operations.md. Same splats in, same splats out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from models.splat_to_sog.order import hilbert_order
from models.splat_to_sog.scene.matching import cheapest_pairs
from models.splat_to_sog.scene.moments import Moments, moments_of, splats_of
from models.splat_to_sog.scene.pair_cost import Merged, Scene, Views, merge_pairs, picture_areas
from models.splat_to_sog.scene.seen_share import seen_share
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.stages import OnStep

Float32 = NDArray[np.float32]
Indices = NDArray[np.intp]

NEIGHBOURS = 3
"""Candidates a splat. More are slower and worse: far pairs blur more than their cost says."""

ROUND_SHARE = 0.35
"""Of the splats, merged away a round at most. Small shares merge one cheap region again and again
before anything else; large ones take poor pairs."""

PIXEL = 0.002
"""Size of a pixel for which the scene is made, in scene radii at the scene's centre."""

RENDERER_BLUR = 0.3
"""Variance that 3DGS renderers add to every projected splat, pixels squared."""

SEEN_LEAST = 0.2
"""Visible share of a buried splat: a camera may come closer than `seen_share` looked from."""

FARTHEST = 1e12
"""Squared distance from the centre, in radii, beyond which all is equally far."""

DIAGONAL = [0, 3, 5]  # of a covariance's upper triangle

CHUNK_ROWS = 1 << 15  # of pairs: their working set stays in cache
QUERY_ROWS = 1 << 17


@dataclass(frozen=True)
class Level:
    """One level of detail.

    error: root mean square change of the pictures, display units (0..1), per unit of splat area;
    never less than the level's before. changes: each splat's part of its square, display units
    squared x scene units squared; a chunk's error is the sum over its splats.
    """

    splats: Splats
    error: float
    changes: Float32  # [N]


def decimate(
    splats: Splats,  # finite (`drop_non_finite`)
    keep: int,  # at least 1
    on_round: OnStep = lambda fraction: None,
) -> Splats:
    """`keep` splats in Hilbert order, or `splats` itself if it has no more. Never modifies it."""
    if keep >= len(splats):
        return splats
    return levels(splats, [keep], on_round)[0].splats


def levels(
    splats: Splats,  # finite
    counts: Sequence[int | float],  # descending; int: splats to keep, float: share of all
    on_round: OnStep = lambda fraction: None,
) -> list[Level]:
    """One level a count, each merged from the one before. A count of all returns the scene itself.

    Raises ValueError when the counts do not descend or are below one splat.
    """
    n = len(splats)
    wanted = [max(1, round(c * n)) if isinstance(c, float) and 0 < c <= 1 else c for c in counts]
    if any(c < 1 for c in wanted) or any(a < b for a, b in zip(wanted, wanted[1:], strict=False)):
        raise ValueError(f"counts {list(counts)} of {n} splats: they descend, to 1 at least")
    work = _Work(splats)
    found = []
    for count in wanted:
        work.reduce(int(count), lambda n: on_round(_progress(len(splats), n, int(wanted[-1]))))
        found.append(work.level())
    return found


def _progress(start: int, now: int, end: int) -> float:
    """Work of a round is in proportion to the splats it sees."""
    return min(1.0, (start - now) / max(1, start - end))


class _Work:
    """The scene between rounds."""

    def __init__(self, splats: Splats) -> None:
        self.original = splats
        self.views = Views()
        self.moments: Moments | None = None  # made when the first pair is merged
        self.seen = np.empty(0, np.float32)
        self.area = 0.0

    def reduce(self, count: int, on_round: Callable[[int], None]) -> None:
        if count >= (len(self.original) if self.moments is None else len(self.moments)):
            return
        moments = self._start() if self.moments is None else self.moments
        while len(moments) > count:
            moments = self._round(moments, count)
            on_round(len(moments))
        self.moments = moments

    def level(self) -> Level:
        if self.moments is None:
            return Level(self.original, 0.0, np.zeros(len(self.original), np.float32))
        total = float(self.moments.changes.sum(dtype=np.float64))
        return Level(
            splats_of(self.moments, self.original),
            float(np.sqrt(total / max(self.area, 1e-300))),
            self.moments.changes.copy(),
        )

    def _start(self) -> Moments:
        """Along a Hilbert curve, so that neighbours lie near in memory; with what is seen."""
        order = hilbert_order(_grid(self.original.means))
        moments = moments_of(self.original, order)
        self.centre = np.median(moments.means, axis=0).astype(np.float64)
        distances = np.linalg.norm(moments.means - self.centre, axis=1)
        size = float(np.sqrt(np.median(moments.covs[:, DIAGONAL].max(axis=1))))
        self.radius = max(float(np.percentile(distances, 80)), size, 1e-12)
        self.seen = seen_share(moments, self.centre, self.radius, self.views)
        np.maximum(self.seen, np.float32(SEEN_LEAST), out=self.seen)
        away = self._away(moments)
        areas = picture_areas(moments.covs, self._blur(away), self.views) / away
        self.area = 2 * np.pi * float((areas * moments.alphas * self.seen).sum(dtype=np.float64))
        return moments

    def _away(self, moments: Moments) -> Float32:  # [N]
        """How much smaller areas look that far out, to a camera inside or around the scene."""
        offset = (moments.means - self.centre) / self.radius
        square = np.einsum("nd,nd->n", offset, offset)
        return np.asarray(np.minimum(1 + square, FARTHEST), np.float32)

    def _blur(self, away: Float32) -> Float32:  # [N] scene units squared
        """A pixel covers more of the scene the farther out it looks."""
        size = (PIXEL * self.radius) ** 2
        if self.original.model == "antialiased":  # the renderer takes back what it adds
            return np.full(len(away), 1e-6 * size, np.float32)
        return np.float32(RENDERER_BLUR * size) * away

    def _round(self, moments: Moments, count: int) -> Moments:
        n = len(moments)
        away = self._away(moments)
        blur = self._blur(away)
        areas = picture_areas(moments.covs, blur, self.views)
        scene = Scene(moments, areas, blur, away, self.seen)

        # 1. candidates, 2. what each would cost, 3. the cheapest that do not share a splat
        i, j = neighbour_pairs(moments.means, NEIGHBOURS)
        costs = np.empty(len(i), np.float32)
        for rows in chunks(len(i), CHUNK_ROWS):
            costs[rows] = merge_pairs(scene, i[rows], j[rows], self.views).costs
        chosen = cheapest_pairs(i, j, costs, n, min(n - count, max(1, int(ROUND_SHARE * n))))

        # 4. each becomes one splat, in the place of its first
        gone = np.zeros(n, bool)
        for rows in chunks(len(chosen), CHUNK_ROWS):
            a, b = i[chosen[rows]], j[chosen[rows]]
            merged = merge_pairs(scene, a, b, self.views)
            _store(moments, merged, a, b)
            self.seen[a] = np.maximum(self.seen[a], self.seen[b])
            gone[b] = True
        self.seen = self.seen[~gone]
        return moments.take(~gone)


def _store(moments: Moments, merged: Merged, a: Indices, b: Indices) -> None:
    share = merged.shares[:, None]
    moments.means[a] = merged.means
    moments.covs[a] = merged.covs
    moments.alphas[a] = merged.alphas
    moments.colours[a] = share * moments.colours[a] + (1 - share) * moments.colours[b]
    moments.changes[a] += moments.changes[b] + merged.changes
    moments.sources[a] = -1


def neighbour_pairs(
    means: Float32,  # [N, 3]
    neighbours: int,
) -> tuple[Indices, Indices]:  # [E], [E]
    """Every splat with each of its nearest others, each pair once."""
    n = len(means)
    tree = cKDTree(means)
    near = np.empty((n, min(neighbours + 1, n)), np.int32)
    for rows in chunks(n, QUERY_ROWS):
        near[rows] = tree.query(means[rows], k=near.shape[1], workers=-1)[1]
    own = np.arange(n, dtype=np.int32)[:, None]
    wanted = near != own
    for column in range(near.shape[1]):  # a pair that both ends name counts at the smaller one
        other = near[:, column]
        named_back = (near[other] == own).any(axis=1)
        wanted[:, column] &= (own[:, 0] < other) | ~named_back
    i, place = np.nonzero(wanted)
    return i, near[i, place].astype(np.intp)


def _grid(means: Float32) -> NDArray[np.uint16]:  # [N, 3] -> [N, 3]
    """Cells of the bounding box, 16 bits an axis."""
    low, high = means.min(axis=0).astype(np.float64), means.max(axis=0).astype(np.float64)
    steps = np.empty(means.shape, np.uint16)
    for rows in chunks(len(means)):
        steps[rows] = (means[rows] - low) / np.where(high > low, high - low, 1) * 65535
    return steps
