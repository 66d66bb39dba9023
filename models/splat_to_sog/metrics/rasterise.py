"""Draws projected Gaussians: depth-ordered alpha blending in 16 px tiles, in plain numpy.

Knows nothing of scenes, cameras or harmonics: `project` makes what it takes. This is the reference;
`rasterise_numba` and `rasterise_cuda` offer the same `rasterise(projected, width, height,
background)` and are compared with it. Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance
Field Rendering", 2023, section 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Colour = tuple[float, float, float]

TILE_PX = 16
ALPHA_MIN = 1 / 255
"""A Gaussian that adds less than this to a pixel is not drawn there."""
ALPHA_MAX = 0.99
"""No Gaussian hides what lies behind it entirely."""
TRANSMITTANCE_MIN = 1e-4
"""A pixel through which less light than this passes is finished."""
BLACK: Colour = (0.0, 0.0, 0.0)

BATCH = 512  # Gaussians of a tile handled at once: 512 x 256 px of float32 stay in cache


@dataclass(frozen=True)
class Camera:
    """A pinhole camera whose principal point is the centre of the picture."""

    position: Float32  # [3] scene units
    rotation: Float32  # [3, 3] world -> camera; rows: right, down, forward
    focal_px: float
    width: int  # px
    height: int  # px
    near: float  # scene units; nothing nearer is drawn


@dataclass(frozen=True)
class Projected:
    """M Gaussians on the picture plane, front to back: a row hides those after it.

    A pixel (column x, row y) is sampled at (x + 0.5, y + 0.5). With d = sample - mean, a Gaussian's
    alpha there is min(ALPHA_MAX, opacity * exp(-(A dx^2 + C dy^2) / 2 - B dx dy)).
    """

    means2d: Float32  # [M, 2] px: x right, y down
    conics: Float32  # [M, 3] A, B, C: inverse of the 2-D covariance [[A, B], [B, C]], 1 / px^2
    colours: Float32  # [M, 3] red, green, blue, at least 0, may exceed 1
    opacities: Float32  # [M] ALPHA_MIN..1, compensated for the low-pass if the model asks for it
    radii: Float32  # [M, 2] px: half width and height of the box outside which alpha < ALPHA_MIN
    rows: NDArray[np.int32]  # [M] of the scene the Gaussians come from

    def __len__(self) -> int:
        return len(self.opacities)


Rasterise = Callable[[Projected, int, int, Colour], Float32]
"""(projected, width px, height px, background) -> picture [H, W, 3]."""
