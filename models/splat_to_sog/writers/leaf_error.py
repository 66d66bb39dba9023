"""How much worse a leaf of a streamed SOG looks at its coarser levels, in pictures from six sides.

Does not know trees or files. The measure is the one that viewers expect in `errors`: squared
difference of premultiplied colour and coverage, over all pixels and views, as a fraction of the
finest level's own squares. It has no unit, so leaves of any size compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog.metrics.rasterise import Camera
from models.splat_to_sog.metrics.renderer import renderer
from models.splat_to_sog.rotations import rotation_matrices
from models.splat_to_sog.splats import Splats
from models.splat_to_sog.writers.lod_tree import bounds_of

TURN = (0.9, 0.3, -0.3, -0.5)  # w, x, y, z
"""Turns the six axes, so that no harmonic of degree 1 to 3 vanishes in any view (each is at least
0.07 there); seen along the scene's own axes, colour that a level lost in some would not count."""

DISTANCE = 200.0  # in radii: nearly parallel rays, so thin leaves seen edge-on stay thin
MARGIN = 1.05  # of the picture around the leaf's sphere
MIN_PX, MAX_PX = 64, 512
PX_A_SPLAT = 4.0  # across the finest splats: more pixels would change nothing
FINEST_SHARE = 0.1  # of the splats are finer than "the finest", so that a few specks do not decide
WHITE = (1.0, 1.0, 1.0)


def rendered_errors(levels: Sequence[Splats]) -> list[float]:
    """One error a level, the finest (first) being the reference and 0. At least one level."""
    if len(levels) < 2:
        return [0.0] * len(levels)
    cameras = leaf_cameras(levels)
    drawn = [renderer(level) for level in levels]
    squares, differences = 0.0, [0.0] * len(levels)
    for camera in cameras:
        pictures = (
            _premultiplied(scene.render(camera), scene.render(camera, WHITE)) for scene in drawn
        )
        reference = next(pictures)
        squares += float((reference**2).sum(dtype=np.float64))
        for index, picture in enumerate(pictures, 1):
            differences[index] += float(((picture - reference) ** 2).sum(dtype=np.float64))
    if not squares:  # nothing to be seen: a level that shows something is wholly wrong
        return [float(difference > 0) for difference in differences]
    return [difference / squares for difference in differences]


def leaf_cameras(levels: Sequence[Splats]) -> list[Camera]:
    """Six cameras around the boxes of all levels, as many pixels as the finest level needs."""
    boxes = [bounds_of(level, np.arange(len(level))) for level in levels]
    low, high = np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-3)
    size = _size_px(levels[0], 2 * radius)
    axes = rotation_matrices(np.array([TURN], np.float32))[0].T
    cameras = []
    for axis in range(3):
        for sign in (1, -1):
            forward, down = sign * axes[axis], axes[(axis + 1) % 3]
            rotation = np.stack([np.cross(down, forward), down, forward])
            cameras.append(
                Camera(
                    position=((low + high) / 2 - forward * DISTANCE * radius).astype(np.float32),
                    rotation=rotation.astype(np.float32),
                    focal_px=size / (2 * MARGIN) * DISTANCE,
                    width=size,
                    height=size,
                    near=radius,
                )
            )
    return cameras


def _size_px(finest: Splats, extent: float) -> int:
    largest = np.max(finest.scales, axis=1)
    footprint = 2 * math.exp(
        float(np.clip(np.quantile(largest, FINEST_SHARE, method="lower"), -60, 60))
    )
    wanted = PX_A_SPLAT * extent / footprint
    return int(np.clip(math.ceil(wanted), MIN_PX, MAX_PX))


def _premultiplied(
    over_black: NDArray[np.float32],  # [H, W, 3]
    over_white: NDArray[np.float32],
) -> NDArray[np.float32]:  # [H, W, 4]
    """Colour times coverage as a screen shows it, and the coverage: what hides the white."""
    coverage = 1 - (over_white - over_black)[..., :1]
    return np.concatenate([np.minimum(over_black, 1), coverage], axis=2)
