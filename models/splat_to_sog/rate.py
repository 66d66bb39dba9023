"""Rate and distortion: how fine each splat's numbers are stored, from one price for all of them.

Does not know textures or files. A number whose error costs `worth` per squared unit, stored in
steps of d, loses worth d^2 / 12, and one bit more or less changes that by a factor of four: at a
price in squared error per bit the best step is sqrt(6 price / (ln 2 worth)). The same price holds
for positions, rotations, scales, colours, opacities and harmonics, so no attribute could give a bit
to another with profit.

A texture cannot say the step of each splat, so splats of like worth form classes, each stored in a
run of its own where WebP finds the short codes; within a class one step serves all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.importance import ATTRIBUTES, Importance
from models.splat_to_sog.layout import log_position
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.threads import in_threads

CLASSES = 8
MIN_CLASS = 4096  # splats: a run shorter than that spoils its neighbours' codes
SAMPLE = 20_000
ROWS = 1 << 16  # a thread's share at a time
ROUNDS = 12
LEAST_WORTH = (
    1e-20  # even of a splat that is not drawn: at the finest price it has the finest steps
)

MAX_STEP = {"scale": 0.4, "rotation": 0.27, "colour": 0.8, "opacity": 16 / 255}
"""Worth is the cost of small errors; a larger step could bring what is hidden into sight."""

MAX_POSITION_STEP = 0.004  # of the spread of the middle 90 % of an axis


@dataclass(frozen=True)
class Classes:
    """of [N]: the class of each splat, most important first; worth[attribute] [C]: the class's."""

    of: NDArray[np.uint8]
    worth: Mapping[str, NDArray[np.float64]]

    @property
    def count(self) -> int:
        return len(self.worth["colour"])

    def steps(self, price: float) -> dict[str, NDArray[np.float64]]:
        """Step of each attribute in each class [C], in the units of its worth."""
        steps = {}
        for name, worth in self.worth.items():
            best = np.sqrt(6 * price / (math.log(2) * np.maximum(worth, 1e-300)))
            steps[name] = np.minimum(best, MAX_STEP.get(name, math.inf))
        return steps


def classify(importance: Importance, count: int | None = None) -> Classes:
    """At most `count` classes by k-means over the logarithms of worth, deterministic.

    A class wastes half the logarithm of (arithmetic mean / geometric mean) of its worths, in bits a
    number, which k-means makes small. Its worth is the arithmetic mean where it is the only one:
    the error of one step for all. In each of several that mean hangs on a few splats whose worth is
    an upper bound, and halfway to the geometric mean is 1 to 2 % smaller at the same PSNR.
    """
    n = len(importance)
    count = min(CLASSES if count is None else count, max(1, n // MIN_CLASS))
    of = np.zeros(n, np.uint8) if count == 1 else _labels(importance, count)
    rows = slice(None, None, max(1, n // SAMPLE) if count == 1 else 1)
    members = np.bincount(of[rows])
    worth = {}
    for name in ATTRIBUTES:
        value = np.maximum(importance.worth[name][rows], LEAST_WORTH)
        mean = np.bincount(of[rows], value) / members
        middle = np.exp(np.bincount(of[rows], np.log(value)) / members)
        worth[name] = mean if count == 1 else np.sqrt(mean * middle)
    return Classes(of, worth)


def _labels(importance: Importance, count: int) -> NDArray[np.uint8]:  # [N]
    """The class of each splat, most important first; none is empty."""
    n = len(importance)
    root = np.sqrt(list(ATTRIBUTES.values())).astype(np.float32)

    def features(rows: slice) -> NDArray[np.float32]:
        worth = [
            np.log2(np.maximum(importance.worth[name][rows], LEAST_WORTH)) for name in ATTRIBUTES
        ]
        return np.asarray(np.stack(worth, axis=1) * root, np.float32)

    sample = features(slice(None, None, max(1, n // SAMPLE)))
    sample = np.maximum(sample, np.quantile(sample, 0.01, axis=0).astype(np.float32))
    floor = sample.min(axis=0)
    ranked = sample[np.argsort(sample @ root, kind="stable")]
    centres = ranked[((np.arange(count) + 0.5) / count * len(ranked)).astype(np.intp)]
    for _ in range(ROUNDS):
        label = _nearest(sample, centres)
        for i in range(count):
            if (label == i).any():
                centres[i] = sample[label == i].mean(axis=0)
    centres = centres[np.argsort(-(centres @ root), kind="stable")]

    of = np.empty(n, np.uint8)

    def one(rows: slice) -> None:
        of[rows] = _nearest(np.maximum(features(rows), floor), centres)

    in_threads(one, chunks(n, ROWS))
    labels: NDArray[np.uint8] = np.unique(of, return_inverse=True)[1].astype(np.uint8)
    return labels


def _nearest(features: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.intp]:
    half = (centres**2).sum(axis=1) / 2
    return np.asarray((half - features @ centres.T).argmin(axis=1))


def position_limit(means: NDArray[np.float32]) -> NDArray[np.float64]:  # [N, 3] -> [3]
    """Largest step of positions, in the log domain."""
    sample = log_position(means[:: max(1, len(means) // SAMPLE)])
    low, high = np.quantile(sample, (0.05, 0.95), axis=0)
    return np.asarray(MAX_POSITION_STEP * (high - low), np.float64)
