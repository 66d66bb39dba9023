"""Bake pictures of an object into its texture: each texel takes the colours of the views it faces.

Knows nothing of charts, nor of how the cameras were found. A view counts by how squarely it sees
the place, to a high power, so that the best one decides and its neighbours only soften the change;
not at all where something hides the place from it, and little near its outlines, where a pixel may
show what lies behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from threadpoolctl import threadpool_limits

from models.cores import usable_cores
from models.image_to_mesh.finishing.bake import look_up, low_pass
from models.image_to_mesh.finishing.visibility import DepthBuffer, View
from models.image_to_mesh.geometry.surface import Faces

Array = npt.NDArray[np.float32]

SHARPNESS = 6
"""Power of the cosine between surface and view: at 45 degrees a view counts an eighth."""
SEEN_FULLY = 0.05
"""Of such weights: from here on the views alone say the colour; below, the surface's own too."""
BUFFER_SIDE_PX = 1024
BIAS_SHARE = 0.005
"""Of the object's size: this far behind the buffer still counts as seen."""
OUTLINE_PX = 3.0
"""Pixels from an outline, of the object's or of a part before another, within which trust fades."""
LEAST_FACING = 0.1
"""Cosine below which a view says nothing."""
POINTS_AT_ONCE = 1 << 16


def paint_views(
    points: Array,  # (P, 3) where the texels lie, in the mesh's coordinates
    normals: Array,  # (P, 3) there
    colours: Array,  # (P, 3) sRGB 0..1 to keep where no view sees
    vertices: Array,  # (V, 3) of the mesh that may hide them
    faces: Faces,
    views: Sequence[View],
    texels_per_unit: float,
    check: Callable[[], None] = lambda: None,  # called before each view; may raise to stop
) -> tuple[Array, float]:
    """The colours (P, 3), and the share of the points whose colours come from views."""
    total, weight = np.zeros((len(points), 3), np.float32), np.zeros(len(points), np.float32)
    hiding = vertices.astype(np.float64)

    def paint(view: View, buffer: DepthBuffer, picture: Array, trust: Array, part: slice) -> None:
        towards = view.camera.towards(points[part].astype(np.float64))
        length = np.linalg.norm(normals[part], axis=1)
        facing = np.einsum("pi,pi->p", normals[part], towards) / np.maximum(length, 1e-30)
        mine = np.flatnonzero(facing > LEAST_FACING)
        at = points[part][mine].astype(np.float64)
        pixels = view.pixels(at)
        share = facing[mine] ** SHARPNESS * buffer.sees(at) * look_up(trust, pixels)[:, 0]
        total[part.start + mine] += share[:, None] * look_up(picture, pixels)
        weight[part.start + mine] += share

    parts = [slice(k, k + POINTS_AT_ONCE) for k in range(0, len(points), POINTS_AT_ONCE)]
    # BLAS takes one thread a call: its own, times those that call it, would wait for each other.
    with ThreadPoolExecutor(usable_cores()) as pool, threadpool_limits(1, user_api="blas"):
        for view in views:
            check()
            buffer = DepthBuffer(hiding, faces, view, side_px=BUFFER_SIDE_PX, bias_share=BIAS_SHARE)
            picture = low_pass(view.beyond_outline, texels_per_unit / view.pixels_per_unit)
            trust = np.repeat(_trust(view, buffer)[..., None], 3, axis=2)
            list(pool.map(partial(paint, view, buffer, picture, trust), parts))
    seen = np.minimum(weight / SEEN_FULLY, 1)[:, None]
    painted = total / np.maximum(weight, 1e-12)[:, None]
    return np.asarray(seen * painted + (1 - seen) * colours, np.float32), float(seen.mean())


def _trust(view: View, buffer: DepthBuffer) -> Array:  # (H, W) 0..1
    """Falls to nothing at the object's outline, and where the buffer's depth jumps."""
    solid = np.pad(view.rgba[..., 3] >= 0.5, 1)
    distance = ndimage.distance_transform_edt(solid)[1:-1, 1:-1]
    nearest = np.where(np.isfinite(buffer.nearest), buffer.nearest, buffer.farthest)
    jump = ndimage.maximum_filter(nearest, 3) - ndimage.minimum_filter(nearest, 3)
    # Where the surface leans away depth falls fast too: only a fall of many steps is an edge.
    edges = ndimage.distance_transform_edt(jump < 4 * buffer.bias) / buffer.scale
    rows, columns = (
        np.minimum((np.arange(n) * buffer.scale).astype(int), limit - 1)
        for n, limit in zip(view.rgba.shape[:2], buffer.nearest.shape, strict=True)
    )
    distance = np.minimum(distance, edges[np.ix_(rows, columns)])
    return np.asarray(np.clip((distance - 0.5) / OUTLINE_PX, 0, 1), np.float32)
