"""Rasterise triangles: which face covers each pixel, and where on it the pixel lies.

Knows nothing of colours or cameras; points are already in pixels. Plain numpy, grouped by triangle
size, so that nothing is compiled at the first call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
FRAGMENTS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Raster:
    """face: (H, W) int32, -1 where empty. weights: (H, W, 3) float32, barycentric."""

    face: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.face >= 0)

    def interpolate(self, values: Floats, faces: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Per-vertex values (V, C) at every covered pixel, in row-major order: (covered, C)."""
        corners = faces[self.face[self.covered]]
        weights = self.weights[self.covered]
        return np.einsum("pk,pkc->pc", weights, values[corners].astype(np.float32))


def rasterize(
    points: Floats,  # (V, 2) as (column, row), pixels; pixel centres at whole numbers
    depth: Floats,  # (V,) larger is nearer
    faces: npt.NDArray[np.int32],  # (F, 3), either winding
    height: int,
    width: int,
) -> Raster:
    face = np.full(height * width, -1, np.int32)
    weights = np.zeros((height * width, 3), np.float32)
    nearest = np.full(height * width, -np.inf, np.float32)
    corners = points[faces].astype(np.float32)
    for pixel, index, barycentric in _fragments(corners, height, width):
        z = np.einsum("pk,pk->p", barycentric, depth[faces[index]].astype(np.float32))
        order = np.argsort(z)  # the nearest is written last and stays
        order = order[z[order] > nearest[pixel[order]]]
        nearest[pixel[order]] = z[order]
        face[pixel[order]] = index[order]
        weights[pixel[order]] = barycentric[order]
    return Raster(face.reshape(height, width), weights.reshape(height, width, 3))


def _fragments(
    corners: npt.NDArray[np.float32], height: int, width: int
) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]]:
    """Pixel index, face index and barycentric weights of every pixel centre inside a triangle."""
    low = np.maximum(np.ceil(corners.min(axis=1)), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(axis=1)), (width - 1, height - 1)).astype(np.int64)
    extent = (high - low + 1).max(axis=1)
    seen = ((high >= low).all(axis=1)) & (np.abs(_cross(corners)) > 1e-12)
    size_class = np.ceil(np.log2(np.maximum(extent, 1))).astype(np.int64)
    for size in np.unique(size_class[seen]):
        members = np.flatnonzero(seen & (size_class == size))
        side = 1 << int(size)
        at_once = max(1, FRAGMENTS_AT_ONCE // side**2)
        offset = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)
        for start in range(0, len(members), at_once):
            index = members[start : start + at_once]
            pixel = low[index, None, :] + offset  # (faces, side^2, 2)
            barycentric = _barycentric(corners[index], pixel)
            inside = (barycentric >= -1e-5).all(axis=2) & (pixel <= high[index, None, :]).all(
                axis=2
            )
            which, _ = np.nonzero(inside)
            chosen = pixel[inside]
            yield chosen[:, 1] * width + chosen[:, 0], index[which], barycentric[inside]


def _cross(corners: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:  # (F, 3, 2) -> (F,)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    return np.asarray(
        (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    )


def _barycentric(
    corners: npt.NDArray[np.float32], pixel: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:  # (F, 3, 2), (F, P, 2) -> (F, P, 3)
    a, b, c = (corners[:, None, k, :] for k in range(3))
    p = pixel.astype(np.float32)
    area = _cross(corners)[:, None]
    first = ((b - p)[..., 0] * (c - p)[..., 1] - (b - p)[..., 1] * (c - p)[..., 0]) / area
    second = ((c - p)[..., 0] * (a - p)[..., 1] - (c - p)[..., 1] * (a - p)[..., 0]) / area
    return np.stack([first, second, 1 - first - second], axis=-1)
