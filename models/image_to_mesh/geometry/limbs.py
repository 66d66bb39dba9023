"""Split outlines into trunk and limbs, and give limbs their place in depth.

Knows nothing of the trunk's shape. Arms, ears and handles are where few views fail: another view
hides them before the trunk, which leaves them as deep as that, or draws them elsewhere, which
leaves nothing. So a limb is built from the one view that shows it: round, at the depth where the
other outlines, best their own limbs, have room for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.image_to_mesh.geometry.outline import Outline, distance

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LIMB_RADIUS = 0.045
"""Of the object's height: parts that no disc of this radius fits into are thin."""
LEAST_REACH = 0.06
"""Of the object's height: thin parts that reach less far from the trunk are bits of its rim."""
LEAST_SLENDERNESS = 5.5
"""Reach over mean radius: what is stouter (a foot, a nose) has its depth from the other views;
but for bridges between thick parts."""
ALREADY_SHOWN = 0.4
"""Share of a limb that limbs of other views may show without making it one of them."""
SHOWN_SLACK = 0.03
"""Of the object's height: how far off another view's limb may be and still be the same."""
LIMB_IN_OTHER_VIEW = 8.0
"""How much more room counts that another view shows as a limb too, one nobody has placed yet."""
DEPTH_STEPS = 96
LEVEL = 0.98
"""Depths with this share of the most room are as good: the limb goes to their middle."""
PROBE_PX = 3
"""Depth is looked for at every third pixel of a limb, and smooth in between."""


@dataclass(frozen=True)
class Limb:
    """view: which outline shows it. mask: (H, W) where. depth: (H, W) float32, the middle of it
    along that view's axis, in the object's frame; meaningful on the mask and some way around."""

    view: int
    mask: Mask
    depth: Array


def place_limbs(outlines: Sequence[Outline], extent: float) -> tuple[list[Limb], list[Mask]]:
    """Limbs of all views, each once, and what remains as each view's trunk, (H, W).

    extent: half the depth the object can have. A thin part is a limb if it is slender, or if it is
    where limbs of other views are: a hand that its arm hides behind.
    """
    parts = [_thin_parts(outline) for outline in outlines]
    slender = [_slender(outline, labels) for outline, labels in zip(outlines, parts, strict=True)]
    unplaced = [labels > 0 for labels in parts]
    shown = [np.zeros(outline.solid.shape, bool) for outline in outlines]
    placed = []
    for view, index in _largest_view_first(outlines, parts, slender):
        mask = parts[view] == index
        if shown[view][mask].mean() > ALREADY_SHOWN:
            continue
        limb = Limb(view, mask, _depth(view, mask, outlines, unplaced, extent))
        placed.append(limb)
        rows, columns = np.nonzero(mask)
        points = outlines[view].points(columns, rows, limb.depth[mask])
        for other, seen in enumerate(outlines):
            marks = np.ones(seen.solid.shape, bool)
            at = seen.nearest_pixels(points)
            marks[at[:, 1], at[:, 0]] = False
            slack = SHOWN_SLACK * seen.height_px
            shown[other] |= distance(marks) <= slack
            unplaced[other] &= ~shown[other]
    trunks = []
    for outline, labels, chosen, there in zip(outlines, parts, slender, shown, strict=True):
        limbs = (chosen | (_mean(there, labels) > ALREADY_SHOWN))[labels]
        trunks.append(outline.solid & ~limbs)
    return placed, trunks


def thick_parts(outline: Outline) -> Array:  # -> (H, W)
    """The outline's alpha without its thin parts: what views a little apart still agree on."""
    return np.where(_thin_parts(outline) > 0, 0, outline.alpha).astype(np.float32)


def _thin_parts(outline: Outline) -> npt.NDArray[np.int32]:  # -> (H, W) labels, 0 is thick
    """Parts too thin for a disc of LIMB_RADIUS that reach far enough out of the thick ones."""
    radius = max(1.0, LIMB_RADIUS * outline.height_px)
    core = distance(outline.solid) > radius
    if not core.any():  # thin all over: all trunk
        return np.zeros(core.shape, np.int32)
    opened = distance(~core) <= radius
    labels, _ = ndimage.label(outline.solid & ~opened, np.ones((3, 3)))
    reach, _ = _reach(opened & outline.solid, labels)
    far = reach > LEAST_REACH * outline.height_px
    far[0] = False
    return np.asarray(np.where(far, np.cumsum(far), 0)[labels], np.int32)


def _slender(outline: Outline, labels: npt.NDArray[np.int32]) -> Mask:  # -> (labels + 1,)
    reach, bridges = _reach(outline.solid & (labels == 0), labels)
    return np.asarray(bridges | (reach > LEAST_SLENDERNESS * _mean(outline.thickness, labels)))


def _mean(values: npt.NDArray[Any], labels: npt.NDArray[np.int32]) -> Doubles:
    """Over each label, (labels + 1,); 0 for label 0."""
    thin = labels > 0
    count = np.bincount(labels[thin], minlength=int(labels.max()) + 1)
    return np.bincount(labels[thin], values[thin], len(count)) / np.maximum(count, 1)


def _reach(thick: Mask, labels: npt.NDArray[np.int32]) -> tuple[Doubles, Mask]:  # (labels + 1,)
    """How far each thin part leads away from the thick ones, pixels, and which are bridges: they
    lead from one to another, a leg from body to foot."""
    count = int(labels.max()) + 1
    away = distance(~thick)
    reach = np.zeros(count)
    thin = labels > 0
    np.maximum.at(reach, labels[thin], away[thin])
    ends, _ = ndimage.label(thick)
    around = ndimage.grey_dilation(labels, (5, 5))
    touching = (around > 0) & (ends > 0)
    pairs = np.unique(np.stack([around[touching], ends[touching]]), axis=1)
    bridges = np.bincount(pairs[0], minlength=count) > 1
    return np.where(bridges, 2 * reach, reach), np.asarray(bridges)


def _largest_view_first(
    outlines: Sequence[Outline],
    parts: Sequence[npt.NDArray[np.int32]],
    slender: Sequence[Mask],
) -> Iterator[tuple[int, int]]:
    """View and label of each limb; first those of the view that shows most of them."""
    areas = [
        np.bincount(labels.ravel(), minlength=len(chosen)) * chosen
        for labels, chosen in zip(parts, slender, strict=True)
    ]
    shares = [a.sum() / o.height_px**2 for a, o in zip(areas, outlines, strict=True)]
    for view in np.argsort(-np.array(shares), kind="stable"):
        for index in np.argsort(-areas[view], kind="stable"):
            if areas[view][index]:
                yield int(view), int(index)


def _depth(
    view: int, mask: Mask, outlines: Sequence[Outline], unplaced: Sequence[Mask], extent: float
) -> Array:  # -> (H, W)
    """Where along the view's axis there is most room for the limb, smooth along it."""
    outline = outlines[view]
    probed = np.zeros_like(mask[::PROBE_PX, ::PROBE_PX])
    rows, columns = np.nonzero(mask)
    probed[rows // PROBE_PX, columns // PROBE_PX] = True
    rows, columns = (index * PROBE_PX + PROBE_PX // 2 for index in np.nonzero(probed))
    ticks = np.linspace(-extent, extent, DEPTH_STEPS)
    points = outline.points(columns[:, None], rows[:, None], ticks[None, :]).reshape(-1, 3)
    free = np.ones(len(points))
    for other, seen in enumerate(outlines):
        if other != view:
            at = seen.nearest_pixels(points)
            inside = seen.solid[at[:, 1], at[:, 0]]
            own = unplaced[other][at[:, 1], at[:, 0]]
            free *= np.where(own, LIMB_IN_OTHER_VIEW, np.where(inside, 1.0, 1e-3))
    room = free.reshape(len(rows), DEPTH_STEPS)
    radius = float(outline.thickness[mask].mean()) / outline.unit
    step = ticks[1] - ticks[0]
    total = ndimage.gaussian_filter1d(room.sum(axis=0), max(1.0, radius / step), mode="constant")
    best = int(np.argmax(total))
    level, _ = ndimage.label(total >= LEVEL * total[best])
    peak = float(ticks[level == level[best]].mean())
    room *= np.exp(-0.5 * ((ticks - peak) / max(2 * radius, 2 * step)) ** 2)
    weight, middle = np.zeros((2, *probed.shape), np.float32)
    weight[probed], middle[probed] = room.sum(axis=1), room @ ticks
    blur = max(1.0, LIMB_RADIUS * outline.height_px / PROBE_PX)
    weight, middle = (cv2.GaussianBlur(values, (0, 0), blur) for values in (weight, middle))
    depth = np.where(weight > 1e-9, middle / np.maximum(weight, 1e-9), peak).astype(np.float32)
    size = probed.shape[1] * PROBE_PX, probed.shape[0] * PROBE_PX
    fine = cv2.resize(depth, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine[: mask.shape[0], : mask.shape[1]])


def limb_field(limb: Limb, outline: Outline, points: Array, floor: float) -> Array:  # -> (N,)
    """1 on the limb's axis, 0 on its surface: round, as wide as its outline."""
    field = np.full(len(points), floor, np.float32)
    seen = outline.seen(points)
    exact = outline.pixels(seen)
    at = outline.clipped(exact)
    around = ndimage.binary_dilation(limb.mask, iterations=3)
    mine = np.flatnonzero(around[at[:, 1], at[:, 0]])
    flat = at[mine, 1] * around.shape[1] + at[mine, 0]
    radius = np.maximum(outline.thickness.ravel()[flat], 1.0) / outline.unit
    behind = (seen[mine, 2] - limb.depth.ravel()[flat]) / radius
    field[mine] = np.maximum(outline.look_up(outline.depth, exact[mine]) - behind**2, floor)
    return field
