"""Rasterise triangles: which face covers each pixel, and where on it the pixel lies.

Knows nothing of colours or cameras; points are already in pixels. Plain numpy: nothing is compiled
at the first call.
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
        return np.asarray(np.einsum("pk,pkc->pc", weights, values[corners].astype(np.float32)))


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
    """Pixel index, face index and barycentric weights of every pixel centre inside a triangle.

    Triangle -> the rows it crosses -> the span of pixels on each row: the work is the area covered,
    so long slivers cost no more than what they show.
    """
    low = np.maximum(np.ceil(corners[..., 1].min(axis=1)), 0).astype(np.int64)
    high = np.minimum(np.floor(corners[..., 1].max(axis=1)), height - 1).astype(np.int64)
    seen = np.flatnonzero((high >= low) & (np.abs(_cross(corners)) > 1e-12))
    face, row = _expand(seen, low[seen], high[seen])
    left, right = _span(corners[face], row)
    start = np.maximum(np.ceil(left - 1e-4), 0).astype(np.int64)
    stop = np.minimum(np.floor(right + 1e-4), width - 1).astype(np.int64)
    lengths = np.maximum(stop - start + 1, 0)
    chunk = np.cumsum(lengths) // FRAGMENTS_AT_ONCE
    for part in range(int(chunk[-1]) + 1 if len(chunk) else 0):
        mine = np.flatnonzero((chunk == part) & (lengths > 0))
        which, column = _expand(mine, start[mine], stop[mine])
        index, at = face[which], row[which]
        pixel = np.stack([column, at], axis=-1)
        yield at * width + column, index, _barycentric(corners[index], pixel)


def _expand(
    keys: npt.NDArray[np.int64], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Each key repeated for each whole number from its first to its last."""
    lengths = last - first + 1
    begin = np.cumsum(lengths) - lengths
    offset = np.arange(int(lengths.sum())) - np.repeat(begin, lengths)
    return np.repeat(keys, lengths), np.repeat(first, lengths) + offset


def _span(
    corners: npt.NDArray[np.float32], row: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:  # (N, 3, 2), (N,) -> (N,), (N,)
    """Where the triangle's outline crosses a row: leftmost and rightmost column."""
    left, right = np.full(len(row), np.inf), np.full(len(row), -np.inf)
    for a, b in ((0, 1), (1, 2), (2, 0)):
        x0, y0, x1, y1 = (
            corners[:, k, c].astype(np.float64) for k, c in ((a, 0), (a, 1), (b, 0), (b, 1))
        )
        crosses = (np.minimum(y0, y1) <= row) & (np.maximum(y0, y1) >= row)
        flat = y0 == y1
        share = np.where(flat, 0.0, (row - y0) / np.where(flat, 1.0, y1 - y0))
        x = x0 + share * (x1 - x0)
        left = np.where(crosses, np.minimum(left, np.where(flat, np.minimum(x0, x1), x)), left)
        right = np.where(crosses, np.maximum(right, np.where(flat, np.maximum(x0, x1), x)), right)
    return left, right


def _cross(corners: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:  # (F, 3, 2) -> (F,)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    return np.asarray(
        (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    )


def _barycentric(
    corners: npt.NDArray[np.float32], pixel: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:  # (N, 3, 2), (N, 2) -> (N, 3), clamped onto the triangle
    a, b, c = (corners[:, k].astype(np.float64) - pixel for k in range(3))
    first = b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]
    second = c[:, 0] * a[:, 1] - c[:, 1] * a[:, 0]
    third = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    weights = np.stack([first, second, third], axis=-1)
    weights /= weights.sum(axis=1, keepdims=True)
    weights = np.maximum(weights, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
