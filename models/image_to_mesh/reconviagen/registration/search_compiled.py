"""The loop of `search`, compiled: how well points at many trial places match every photo.

Knows nothing of how the trials are chosen. Import it inside functions only (see `models.compiled`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.compiled import boolean, f32, f64, filled, i64, kernel, taken

Floats = npt.NDArray[np.float32]

BEHIND = 0.06
"""Of the object's size, which is 1: what lies this much behind the nearest point may be seen."""


@kernel(
    taken(f32, 2), taken(f32, 2), taken(f32, 4), taken(boolean, 3), taken(f32, 4), i64, i64,
    filled(f64, 3),
)  # fmt: skip
def compare(
    points: Floats,  # (P, 3) of the surface
    colours: Floats,  # (P, 3)
    cameras: Floats,  # (T, N, 3, 4): of each trial and photo, from points to pixels; w in sizes
    solid: npt.NDArray[np.bool_],  # (N, S, S): the object, a pixel wider than it is
    pictures: Floats,  # (N, S, S, 3)
    begin: int,
    end: int,
    result: npt.NDArray[np.float64],  # (T, N, 2) filled: common area / area of both; spread of
) -> None:  # the colours' differences
    """Each point is drawn 3 pixels wide, as the object is drawn a pixel wider on every side."""
    size = solid.shape[1]
    depth = np.empty((size, size), np.float32)
    rows, columns = np.empty(len(points), np.int64), np.empty(len(points), np.int64)
    aheads = np.empty(len(points), np.float32)
    total, squares = np.empty(3), np.empty(3)
    for trial in range(begin, end):
        for photo in range(len(solid)):
            m = cameras[trial, photo]
            depth[:] = np.float32(1e30)
            lost = 0
            for p in range(len(points)):
                x, y, z = points[p]
                w = m[2, 0] * x + m[2, 1] * y + m[2, 2] * z + m[2, 3]
                rows[p] = -1
                if w <= 1e-6:
                    lost += 1
                    continue
                u = (m[0, 0] * x + m[0, 1] * y + m[0, 2] * z + m[0, 3]) / w
                v = (m[1, 0] * x + m[1, 1] * y + m[1, 2] * z + m[1, 3]) / w
                if not (0.5 < u < size - 1.5 and 0.5 < v < size - 1.5):
                    lost += 1
                    continue
                column, row = int(math.floor(u + 0.5)), int(math.floor(v + 0.5))
                rows[p], columns[p], aheads[p] = row, column, w
                for i in range(row - 1, row + 2):
                    for j in range(column - 1, column + 2):
                        if w < depth[i, j]:
                            depth[i, j] = w
            common, either = 0, 0
            for i in range(size):
                for j in range(size):
                    drawn = depth[i, j] < 1e29
                    if drawn and solid[photo, i, j]:
                        common += 1
                    if drawn or solid[photo, i, j]:
                        either += 1
            total[:] = 0
            squares[:] = 0
            seen = 0
            for p in range(len(points)):
                i, j = rows[p], columns[p]
                if i < 0 or not solid[photo, i, j] or aheads[p] > depth[i, j] + BEHIND:
                    continue
                seen += 1
                for channel in range(3):
                    difference = pictures[photo, i, j, channel] - colours[p, channel]
                    total[channel] += difference
                    squares[channel] += difference * difference
            # Points beyond the square would have covered about so much more.
            either += int(lost / len(points) * solid[photo].sum())
            result[trial, photo, 0] = common / max(either, 1)
            spread = 0.0
            for channel in range(3):
                mean = total[channel] / max(seen, 1)
                spread += squares[channel] / max(seen, 1) - mean * mean
            result[trial, photo, 1] = math.sqrt(max(spread, 0.0) / 3) if seen > 0 else 1.0
