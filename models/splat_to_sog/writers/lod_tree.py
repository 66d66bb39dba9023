"""The tree of a streamed SOG: space cut in two until a leaf is small enough to load at once.

Does not know files or textures. One tree serves all levels of detail: it is built over the
centres of every level together, so that a leaf's levels cover the same place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.rotations import rotation_matrices
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import Splats

MAX_LOG_SCALE = 80.0  # e^80 units is past any scene and still a float32


@dataclass
class Leaf:
    """rows: the leaf's splats of each level, ascending; a level may have none here."""

    rows: list[NDArray[np.intp]]


@dataclass
class Branch:
    children: tuple[Node, Node]


Node = Leaf | Branch


def build_tree(
    levels: Sequence[Splats],
    max_splats: int,  # a leaf holds at most so many, of all levels together
    max_extent: float,  # scene units; a wider leaf is split ...
    min_splats: int,  # ... if it holds more than this
) -> Node:
    """Halves at the median of the widest axis. Needs 20 bytes a splat beside the levels."""
    centres = np.concatenate([level.means for level in levels])
    ends = np.cumsum([len(level) for level in levels])

    def split(rows: NDArray[np.intp]) -> Node:
        extents = [float(np.ptp(centres[rows, axis].astype(np.float64))) for axis in range(3)]
        axis = int(np.argmax(extents))
        if len(rows) <= max_splats and (extents[axis] <= max_extent or len(rows) <= min_splats):
            cuts = np.searchsorted(rows, ends[:-1])
            starts = (0, *ends[:-1])
            return Leaf([part - s for part, s in zip(np.split(rows, cuts), starts, strict=True)])
        lower = _lower_half(centres[rows, axis])
        return Branch((split(rows[lower]), split(rows[~lower])))

    return split(np.arange(len(centres)))


def leaves(node: Node) -> Iterator[Leaf]:
    if isinstance(node, Leaf):
        yield node
    else:
        for child in node.children:
            yield from leaves(child)


def _lower_half(values: NDArray[np.float32]) -> NDArray[np.bool_]:  # [N >= 2] -> [N]
    """Half of the values, none above any other; of equal ones at the border the first rows.

    Which rows a partial sort swaps depends on the processor; this does not.
    """
    half = len(values) // 2
    border = np.partition(values, half)[half]
    lower: NDArray[np.bool_] = values < border
    lower[np.flatnonzero(values == border)[: half - int(lower.sum())]] = True
    return lower


def bounds_of(
    splats: Splats, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(minimum [3], maximum [3]) of the boxes around these splats: one standard deviation along
    each of their axes, turned into the scene."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for part in chunks(len(rows), 1 << 15):
        chosen = rows[part]
        means = splats.means[chosen].astype(np.float64)
        sizes = np.exp(np.minimum(splats.scales[chosen].astype(np.float64), MAX_LOG_SCALE))
        reach = np.einsum("nij,nj->ni", np.abs(rotation_matrices(splats.quats[chosen])), sizes)
        low = np.minimum(low, (means - reach).min(axis=0))
        high = np.maximum(high, (means + reach).max(axis=0))
    return low, high
