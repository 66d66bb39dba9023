"""The loop of `normal_map`, compiled: normals of the object's space into each texel's own.

Knows nothing of files. Import it inside functions only (see `models.compiled`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.compiled import f32, filled, i32, i64, kernel, taken, u8

Floats = npt.NDArray[np.float32]
LEAST_Z = 0.05
"""A normal behind the surface it lies on would shade black: it is laid down to 3 degrees."""


@kernel(
    taken(i32, 1), taken(f32, 2), taken(i32, 2), taken(f32, 2), taken(f32, 2), taken(f32, 2),
    i64, i64, filled(u8, 2),
)  # fmt: skip
def encode(
    face: npt.NDArray[np.int32],  # (P,)
    weights: Floats,  # (P, 3)
    faces: npt.NDArray[np.int32],  # (F, 3)
    normals: Floats,  # (N, 3)
    tangents: Floats,  # (N, 4)
    detailed: Floats,  # (P, 3)
    begin: int,
    end: int,
    result: npt.NDArray[np.uint8],  # (P, 3) filled
) -> None:
    n, t = np.empty(3), np.empty(3)
    for index in range(begin, end):
        a, b, c = faces[face[index]]
        u, v, w = weights[index]
        for axis in range(3):
            n[axis] = u * normals[a, axis] + v * normals[b, axis] + w * normals[c, axis]
            t[axis] = u * tangents[a, axis] + v * tangents[b, axis] + w * tangents[c, axis]
        n /= max(math.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]), 1e-30)
        t /= max(math.sqrt(t[0] * t[0] + t[1] * t[1] + t[2] * t[2]), 1e-30)
        hand = tangents[a, 3]
        bx = (n[1] * t[2] - n[2] * t[1]) * hand
        by = (n[2] * t[0] - n[0] * t[2]) * hand
        bz = (n[0] * t[1] - n[1] * t[0]) * hand
        # x t + y b + z n = d, b made unit: it is square to both, and t leans on n by a cosine.
        dx, dy, dz = detailed[index]
        lean = n[0] * t[0] + n[1] * t[1] + n[2] * t[2]
        along_n = n[0] * dx + n[1] * dy + n[2] * dz
        along_t = t[0] * dx + t[1] * dy + t[2] * dz
        square = max(1 - lean * lean, 1e-6)
        x = (along_t - lean * along_n) / square
        y = (bx * dx + by * dy + bz * dz) / math.sqrt(square)
        z = (along_n - lean * along_t) / square
        length = math.sqrt(x * x + y * y + z * z)
        if length < 1e-12:
            x, y, z, length = 0.0, 0.0, 1.0, 1.0
        if z < LEAST_Z * length:
            flat = math.sqrt(x * x + y * y)
            keep = length * math.sqrt(1 - LEAST_Z * LEAST_Z) / max(flat, 1e-12)
            x, y, z = x * keep, y * keep, LEAST_Z * length
            if flat < 1e-12:
                x, y, z = 0.0, 0.0, length
        result[index, 0] = int(127.5 + 127.5 * x / length + 0.5)
        result[index, 1] = int(127.5 + 127.5 * y / length + 0.5)
        result[index, 2] = int(127.5 + 127.5 * z / length + 0.5)
