"""The loop of `voxelise` on the CPU, compiled: distances from the voxels of a block.

Knows nothing of grids or devices. Import it inside functions only (see `models.compiled`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.compiled import f32, f64, filled, i32, i64, inlined, kernel, taken

Floats = npt.NDArray[np.float64]


@inlined
def to_segment(x: float, y: float, ex: float, ey: float) -> float:
    """Squared distance in the plane from (x, y) to the segment from the origin to (ex, ey)."""
    square = ex * ex + ey * ey
    share = min(1.0, max(0.0, (x * ex + y * ey) / square)) if square > 0 else 0.0
    return (x - share * ex) ** 2 + (y - share * ey) ** 2


@kernel(
    *(taken(f64, 2), taken(f64, 2), taken(i64, 1), taken(i64, 1), f64, filled(f32, 3)),
    returns=i64,
)
def nearest_in_block(
    frames: Floats,  # (F, 15) origin, axes along, in and out, and shape: see `Triangles`
    boxes: Floats,  # (F, 6) lowest and highest corner
    own: npt.NDArray[np.int64],  # (P,) triangles near the block
    corner: npt.NDArray[np.int64],  # (3,) lowest voxel of the block
    band: float,
    best: npt.NDArray[np.float32],  # (X, Y, Z) starts at band^2; squared distances written
) -> int:
    """How many voxels are nearer than the band."""
    first = np.empty(3, np.int64)
    last = np.empty(3, np.int64)
    for triangle in own:
        row = frames[triangle]
        for axis in range(3):
            low, high = boxes[triangle, axis] - band, boxes[triangle, axis + 3] + band
            first[axis] = max(0, int(math.ceil(low)) - corner[axis])
            last[axis] = min(best.shape[axis] - 1, int(math.floor(high)) - corner[axis])
        length, cx, cy = row[12], row[13], row[14]
        z0 = corner[2] + first[2] - row[2]
        for i in range(first[0], last[0] + 1):
            for j in range(first[1], last[1] + 1):
                px, py = corner[0] + i - row[0], corner[1] + j - row[1]
                x0 = row[3] * px + row[4] * py + row[5] * z0
                y0 = row[6] * px + row[7] * py + row[8] * z0
                out0 = row[9] * px + row[10] * py + row[11] * z0
                for k in range(last[2] - first[2] + 1):
                    out = out0 + k * row[11]
                    known = best[i, j, first[2] + k]
                    if out * out >= known:  # its plane alone is farther
                        continue
                    x, y = x0 + k * row[5], y0 + k * row[8]
                    square = out * out
                    bx, ex = x - length, cx - length
                    if y < 0 or cy <= 0 or ex * y < cy * bx or cx * y > cy * x:
                        beside = x - min(max(x, 0.0), length)
                        square += min(
                            beside * beside + y * y,
                            to_segment(bx, y, ex, cy),
                            to_segment(x, y, cx, cy),
                        )
                    if square < known:
                        best[i, j, first[2] + k] = square
    count = 0
    limit = f32(band * band)
    for value in best.flat:
        count += value < limit
    return count


@kernel(taken(f32, 3), f64, taken(i64, 1), filled(i32, 2), filled(f32, 1))
def gather(
    best: npt.NDArray[np.float32],
    band: float,
    corner: npt.NDArray[np.int64],
    coords: npt.NDArray[np.int32],  # (N, 3) written
    distances: npt.NDArray[np.float32],  # (N,) written
) -> None:
    """The voxels that `nearest_in_block` counted, in ascending order."""
    limit = f32(band * band)
    row = 0
    for i in range(best.shape[0]):
        for j in range(best.shape[1]):
            for k in range(best.shape[2]):
                if best[i, j, k] < limit:
                    coords[row, 0] = corner[0] + i
                    coords[row, 1] = corner[1] + j
                    coords[row, 2] = corner[2] + k
                    distances[row] = math.sqrt(best[i, j, k])
                    row += 1
