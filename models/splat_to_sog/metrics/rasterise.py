"""Draws projected Gaussians: depth-ordered alpha blending in 16 px tiles, in plain numpy.

Knows nothing of scenes, cameras or harmonics: `project` makes what it takes. This is the reference;
`rasterise_numba` and `rasterise_cuda` offer the same `rasterise(projected, width, height,
background)` and are compared with it. Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance
Field Rendering", 2023, section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def rasterise(
    projected: Projected, width: int, height: int, background: Colour = BLACK
) -> Float32:  # [H, W, 3]
    """The picture, not clipped: colours may exceed 1."""
    image = np.empty((height, width, 3), np.float32)
    for tile, entries in tiles(projected, width, height):
        transmittance = np.ones(tile.pixels, np.float32)
        colour = np.zeros((tile.pixels, 3), np.float32)
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            weights, transmittance = blend(projected, batch, tile, transmittance)
            colour += weights.T @ projected.colours[batch]
            if not (transmittance >= TRANSMITTANCE_MIN).any():
                break
        colour += transmittance[:, None] * np.asarray(background, np.float32)
        image[tile.top : tile.bottom, tile.left : tile.right] = colour.reshape(*tile.shape, 3)
    return image


@dataclass(frozen=True)
class Tile:
    """Pixels left..right-1, top..bottom-1 of a picture."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    @property
    def pixels(self) -> int:
        return self.shape[0] * self.shape[1]


def tiles(projected: Projected, width: int, height: int) -> Iterator[tuple[Tile, NDArray[np.intp]]]:
    """Every tile, row by row, with the Gaussians whose box touches it, front to back."""
    boxes = tile_boxes(projected, width, height)
    for row, top in enumerate(range(0, height, TILE_PX)):
        in_row = np.flatnonzero((boxes[:, 1] <= row) & (row <= boxes[:, 3]))
        for column, left in enumerate(range(0, width, TILE_PX)):
            here = (boxes[in_row, 0] <= column) & (column <= boxes[in_row, 2])
            yield (
                Tile(left, top, min(left + TILE_PX, width), min(top + TILE_PX, height)),
                in_row[here],
            )


def tile_boxes(projected: Projected, width: int, height: int) -> NDArray[np.int32]:  # [M, 4]
    """First and last column and row of tiles each Gaussian touches: left, top, right, bottom."""
    last = np.array([-(-width // TILE_PX) - 1, -(-height // TILE_PX) - 1])
    low = np.floor((projected.means2d - projected.radii) / TILE_PX)
    high = np.floor((projected.means2d + projected.radii) / TILE_PX)
    # Clipped before they become integers: a huge Gaussian's box has no limits.
    return np.concatenate([np.clip(low, 0, last + 1), np.clip(high, -1, last)], 1).astype(np.int32)


def blend(
    projected: Projected,
    batch: NDArray[np.intp],  # [B] Gaussians, front to back
    tile: Tile,
    transmittance: Float32,  # [P] that reaches the first of them, P pixels of the tile
) -> tuple[Float32, Float32]:
    """(weights [B, P]: alpha times the transmittance that is left, transmittance behind [P])."""
    y, x = np.mgrid[tile.top : tile.bottom, tile.left : tile.right].reshape(2, -1) + 0.5
    dx = x.astype(np.float32) - projected.means2d[batch, 0, None]
    dy = y.astype(np.float32) - projected.means2d[batch, 1, None]
    a, b, c = projected.conics[batch].T[:, :, None]
    power = -0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy
    alpha = np.minimum(projected.opacities[batch, None] * np.exp(np.minimum(power, 0)), ALPHA_MAX)
    alpha[(alpha < ALPHA_MIN) | (power > 0)] = 0
    passed = np.cumprod(np.concatenate([transmittance[None], 1 - alpha]), axis=0)
    alive = passed[:-1] >= TRANSMITTANCE_MIN
    weights = np.where(alive, alpha * passed[:-1], 0)
    # A finished pixel keeps what was left when it finished: the first value below the limit.
    finished = np.minimum(alive.sum(axis=0), len(batch))
    return weights, passed[finished, np.arange(tile.pixels)]
