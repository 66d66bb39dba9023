"""The loops of `texels`, compiled: rasterise triangles in texture space, interpolate on them.

Knows nothing of what the values mean. Import it inside functions only (see `models.compiled`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.compiled import f32, f64, filled, i32, i64, kernel, taken

Floats = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int32]

EDGE = 1e-4
"""Texels: a centre this close to an edge is covered, so that no gap opens between two faces."""


@kernel(taken(f64, 2), taken(i32, 2), filled(i32, 2), filled(f32, 3))
def cover(
    points: npt.NDArray[np.float64],  # (N, 2) column and row, centres at whole numbers
    faces: Whole,  # (F, 3)
    face: Whole,  # (S, S), -1; filled
    weights: Floats,  # (S, S, 3) filled
) -> None:
    """Triangle, then the rows it crosses, then the span of each row: work is the area covered."""
    size = len(face)
    for index in range(len(faces)):
        a, b, c = faces[index]
        ax, ay, bx, by = points[a, 0], points[a, 1], points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        doubled = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if abs(doubled) < 1e-12:
            continue
        top = max(int(math.ceil(min(ay, by, cy))), 0)
        bottom = min(int(math.floor(max(ay, by, cy))), size - 1)
        for row in range(top, bottom + 1):
            left, right = math.inf, -math.inf
            for x0, y0, x1, y1 in ((ax, ay, bx, by), (bx, by, cx, cy), (cx, cy, ax, ay)):
                if min(y0, y1) <= row <= max(y0, y1):
                    if y0 == y1:
                        left, right = min(left, x0, x1), max(right, x0, x1)
                    else:
                        x = x0 + (row - y0) / (y1 - y0) * (x1 - x0)
                        left, right = min(left, x), max(right, x)
            for column in range(
                max(int(math.ceil(left - EDGE)), 0),
                min(int(math.floor(right + EDGE)), size - 1) + 1,
            ):
                if face[row, column] >= 0:
                    continue
                u = max(((bx - column) * (cy - row) - (by - row) * (cx - column)) / doubled, 0.0)
                v = max(((cx - column) * (ay - row) - (cy - row) * (ax - column)) / doubled, 0.0)
                w = max(((ax - column) * (by - row) - (ay - row) * (bx - column)) / doubled, 0.0)
                total = u + v + w
                face[row, column] = index
                weights[row, column, 0] = u / total
                weights[row, column, 1] = v / total
                weights[row, column, 2] = w / total


@kernel(taken(i32, 1), taken(f32, 2), taken(i32, 2), taken(f32, 2), i64, i64, filled(f32, 2))
def interpolate(
    face: Whole,  # (P,)
    weights: Floats,  # (P, 3)
    faces: Whole,  # (F, 3)
    values: Floats,  # (V, C)
    begin: int,
    end: int,
    result: Floats,  # (P, C) filled
) -> None:
    for index in range(begin, end):
        a, b, c = faces[face[index]]
        u, v, w = weights[index]
        for channel in range(values.shape[1]):
            result[index, channel] = (
                u * values[a, channel] + v * values[b, channel] + w * values[c, channel]
            )
