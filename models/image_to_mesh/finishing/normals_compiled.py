"""The loops of `normals`, compiled. Knows nothing of texture.

Import it inside functions only (see `models.compiled`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from models.compiled import f32, f64, filled, i32, kernel, taken

Floats = npt.NDArray[np.float64]


@kernel(taken(f32, 2), taken(i32, 2), filled(f64, 2))
def gather(
    vertices: npt.NDArray[np.float32],  # (V, 3)
    faces: npt.NDArray[np.int32],  # (F, 3)
    total: Floats,  # (V, 3) zero; filled with unit normals times angles
) -> None:
    edges, length, unit = np.empty((3, 3)), np.empty(3), np.empty(3)
    for face in range(len(faces)):
        for side in range(3):
            start, end = faces[face, side], faces[face, (side + 1) % 3]
            square = 0.0
            for axis in range(3):
                edges[side, axis] = np.float64(vertices[end, axis]) - vertices[start, axis]
                square += edges[side, axis] ** 2
            length[side] = max(math.sqrt(square), 1e-30)
        area = 0.0
        for axis in range(3):
            one, two = (axis + 1) % 3, (axis + 2) % 3
            unit[axis] = edges[1, one] * edges[0, two] - edges[1, two] * edges[0, one]
            area += unit[axis] ** 2
        scale = -1 / max(math.sqrt(area), 1e-30)
        for corner in range(3):
            before = (corner + 2) % 3
            dot = 0.0
            for axis in range(3):
                dot -= edges[corner, axis] * edges[before, axis]
            angle = math.acos(min(max(dot / (length[corner] * length[before]), -1.0), 1.0))
            for axis in range(3):
                total[faces[face, corner], axis] += angle * scale * unit[axis]


@kernel(taken(f64, 2), filled(f32, 2))
def normalise(total: Floats, result: npt.NDArray[np.float32]) -> None:  # (V, 3), (V, 3) filled
    for index in range(len(total)):
        x, y, z = total[index]
        length = math.sqrt(x * x + y * y + z * z)
        if length > 1e-12:
            x, y, z = x / length, y / length, z / length
        else:  # faces that cancel out: any unit vector, for glTF forbids zero normals
            x, y, z = 0.0, 0.0, 1.0
        result[index, 0], result[index, 1], result[index, 2] = x, y, z
