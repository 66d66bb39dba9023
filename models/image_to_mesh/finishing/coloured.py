"""A surface with a colour at each vertex: what networks decode, and what finishing starts from.

Knows nothing of how it was made, nor of files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ColouredMesh:
    """vertices: (V, 3) float32, y up; faces: (F, 3) int32, counter-clockwise from outside;
    colours: (V, 3) float32 sRGB 0..1. Faces that meet share their vertices: where they only lie
    on the same places, each is a piece of its own."""

    vertices: npt.NDArray[np.float32]
    faces: npt.NDArray[np.int32]
    colours: npt.NDArray[np.float32]
