"""How much of each splat can be seen from anywhere, 0 to 1: what is buried may be merged freely.

Does not draw pictures, nor take a mean: what one side shows in full is not buried, while the
estimate for coding (`models.splat_to_sog.visibility`) averages. The scene is looked at along a few
parallel directions from both sides; the splats of a cell of the picture are sorted by depth, and
the light that passes those in front is what a splat shows there. Only what lies within `WINDOW` in
front hides: a wall hides the splats inside it, but not the room behind it, in which a camera may
stand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.scene.moments import Moments
from models.splat_to_sog.scene.pair_cost import Views

Float32 = NDArray[np.float32]

HALF_WIDTH = 3.0
"""The picture reaches this many scene radii to each side; splats beyond it count as seen."""

WINDOW = 0.1
"""Depth within which a splat hides another, scene radii."""

CELLS_PER_SPLAT = 0.8
"""Cells of the picture, by the number of splats; fewer hide too much, more take longer."""

MAX_SIDE = 1024
MAX_FOOTPRINT = 12  # cells to each side of the centre: larger splats are cut, not slow
REACH = 1.25  # half width, in standard deviations, of the box as large as the Gaussian
FAINT = 1 / 255  # below this alpha renderers draw nothing
DEPTH_BITS = 24
DEPTHS = 16.0  # scene radii that the depth's bits span, centred
EMPTY = 1e-12


def seen_share(
    scene: Moments,
    centre: NDArray[np.float64],  # [3]
    radius: float,  # scene units
    views: Views,
) -> Float32:  # [N]
    """The largest share of its alpha that a splat shows along one of the directions."""
    side = int(np.clip(np.sqrt(CELLS_PER_SPLAT * len(scene)), 16, MAX_SIDE))
    relative = ((scene.means - centre) / radius).astype(np.float32)
    seen = np.zeros(len(scene), np.float32)
    drawn = np.zeros(len(scene), bool)
    for view in range(len(views)):
        plane = relative @ views.frames[view].T.astype(np.float32)  # [N, 3] right, down, forward
        cov = scene.covs @ views.cov_matrix(view) / np.float32(radius**2)
        owner, cell, alpha = _fragments(plane, cov, scene.alphas, side)
        if not len(owner):
            continue
        drawn[owner] = True
        front, back = _passed_light(owner, cell, alpha, plane[:, 2])
        whole = np.maximum(np.bincount(owner, alpha, len(scene)), EMPTY)
        for light in (front, back):
            shown = np.bincount(owner, alpha * light, len(scene)) / whole
            np.maximum(seen, shown, out=seen)
    seen[~drawn & (scene.alphas > FAINT)] = 1
    return np.minimum(seen, 1)


def _fragments(
    plane: Float32,  # [N, 3]
    cov: Float32,  # [N, 3] xx, xy, yy in the picture
    alphas: Float32,  # [N]
    side: int,
) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float64]]:
    """(splat, cell, mean alpha there) of every cell a splat covers: [F] each."""
    cell_size = 2 * HALF_WIDTH / side
    inside = (np.abs(plane[:, :2]) < HALF_WIDTH).all(axis=1) & (alphas > FAINT)
    rows = np.flatnonzero(inside)
    position = (plane[rows, :2] + HALF_WIDTH) / cell_size  # in cells
    half = np.minimum(REACH * np.sqrt(cov[rows][:, [0, 2]]) / cell_size, MAX_FOOTPRINT)
    home = np.floor(position)
    first = np.minimum(np.floor(position - half + 0.5), home)
    last = np.maximum(np.floor(position + half - 0.5), home)
    first = np.clip(first, 0, side - 1).astype(np.int64)
    last = np.clip(last, 0, side - 1).astype(np.int64)
    width, height = (last - first + 1).T
    count = width * height
    area = 2 * np.pi * np.sqrt(np.maximum(cov[rows, 0] * cov[rows, 2] - cov[rows, 1] ** 2, 0))
    cover = np.minimum(area / (count * cell_size**2), 1)
    index = np.repeat(np.arange(len(rows)), count)
    number = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
    x = first[index, 0] + number % width[index]
    y = first[index, 1] + number // width[index]
    alpha = np.minimum(alphas[rows] * cover, 0.99).astype(np.float64)[index]
    return rows[index], y * side + x, alpha


def _passed_light(
    owner: NDArray[np.intp],  # [F]
    cell: NDArray[np.int64],  # [F]
    alpha: NDArray[np.float64],  # [F]
    depth: Float32,  # [N] scene radii
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # [F], [F]
    """Light 0..1 that reaches each fragment from the front, and from the back."""
    top = (1 << DEPTH_BITS) - 1
    steps = np.clip((depth / DEPTHS + 0.5) * top, 0, top).astype(np.int64)
    key = cell << DEPTH_BITS | steps[owner]
    order = np.argsort(key, kind="stable")
    key = key[order]
    log_light = np.log1p(-alpha[order])
    through = np.cumsum(log_light)  # of all fragments up to and with this one
    window = int(WINDOW / DEPTHS * top)
    start_of_cell = key & ~np.int64(top)
    nearest = np.searchsorted(key, np.maximum(key - window, start_of_cell))
    farthest = np.searchsorted(key, np.minimum(key + window, start_of_cell | top), "right") - 1
    before = through - log_light
    front, back = np.empty_like(alpha), np.empty_like(alpha)
    front[order] = np.exp(np.minimum(before - before[nearest], 0))
    back[order] = np.exp(np.minimum(through[farthest] - through, 0))
    return front, back
