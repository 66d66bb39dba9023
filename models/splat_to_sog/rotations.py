"""Rotations as quaternions w, x, y, z and as matrices whose columns are the rotated axes.

Does not know splats. Scenes store quaternions of any length, and of none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def rotation_matrices(quats: NDArray[np.floating]) -> Float64:  # [N, 4] -> [N, 3, 3]
    """Of quaternions of any length; one of length 0 rotates nothing."""
    q = quats.astype(np.float64)
    length = np.linalg.norm(q, axis=1, keepdims=True)
    unit = np.where(length > 0, q / np.where(length > 0, length, 1), (1, 0, 0, 0))
    return np.asarray(unit_matrices(unit))


def unit_matrices(quats: NDArray[np.floating]) -> NDArray[np.floating]:  # [N, 4] -> [N, 3, 3]
    """Of quaternions of length 1, in their own precision."""
    w, x, y, z = quats.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)


def quaternions(matrices: Float64) -> Float64:  # [N, 3, 3] -> [N, 4]
    """Of rotation matrices: length 1, the largest component positive.

    Shepperd, "Quaternion from rotation matrix", 1978: divides by the largest component only.
    """
    m = matrices
    trace = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    squares = np.stack(
        [1 + trace, *(1 - trace + 2 * m[:, a, a] for a in range(3))], axis=1
    )  # 4 q^2
    a, b, c = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]  # 4 w xyz
    d, e, f = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    products = np.stack(  # row i: 4 q_i q
        [
            np.stack([squares[:, 0], a, b, c], axis=1),
            np.stack([a, squares[:, 1], d, e], axis=1),
            np.stack([b, d, squares[:, 2], f], axis=1),
            np.stack([c, e, f, squares[:, 3]], axis=1),
        ],
        axis=1,
    )
    largest = products[np.arange(len(m)), squares.argmax(axis=1)]
    unit: Float64 = largest / np.linalg.norm(largest, axis=1, keepdims=True)
    return unit
