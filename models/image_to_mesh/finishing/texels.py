"""The texels of an unwrapped mesh: which face covers each, where on it the texel's centre lies.

Knows nothing of what they show. Compiled loops for the CPU; `rasterize` is their plain reference,
`rasterize_device` does the same on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.cores import in_ranges

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Texels:
    """The covered texels of a square texture, in row-major order.

    index:   (P,) int32, row * size + column
    face:    (P,) int32
    weights: (P, 3) float32, barycentric
    """

    index: npt.NDArray[np.int32]
    face: npt.NDArray[np.int32]
    weights: Array
    size: int

    def picture(self, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(P, C) -> (size, size, C), zero where nothing is covered."""
        canvas = np.zeros((self.size * self.size, values.shape[1]), np.uint8)
        canvas[self.index] = values
        return canvas.reshape(self.size, self.size, -1)

    @property
    def covered(self) -> npt.NDArray[np.bool_]:  # (size, size)
        known = np.zeros(self.size * self.size, bool)
        known[self.index] = True
        return known.reshape(self.size, self.size)


def cover(uv: Array, faces: npt.NDArray[np.int32], size: int) -> Texels:  # (N, 2), (F, 3)
    """Texels whose centre a face covers. Charts lie apart, so no face hides another."""
    from models.image_to_mesh.finishing import texels_compiled as loops

    face = np.full((size, size), -1, np.int32)
    weights = np.zeros((size, size, 3), np.float32)
    points = np.ascontiguousarray(uv.astype(np.float64) * size - 0.5)
    loops.cover(points, np.ascontiguousarray(faces), face, weights)
    index = np.flatnonzero(face.reshape(-1) >= 0)
    return Texels(
        index.astype(np.int32), face.reshape(-1)[index], weights.reshape(-1, 3)[index], size
    )


def interpolate(
    face: npt.NDArray[np.int32],  # (P,)
    weights: Array,  # (P, 3)
    faces: npt.NDArray[np.int32],  # (F, 3)
    values: Array,  # (V, C)
) -> Array:  # (P, C)
    from models.image_to_mesh.finishing import texels_compiled as loops

    result = np.empty((len(face), values.shape[1]), np.float32)
    values = np.ascontiguousarray(values, np.float32)

    def some(begin: int, end: int) -> None:
        loops.interpolate(face, weights, faces, values, begin, end, result)

    in_ranges(some, len(face))
    return result
