"""Which points of a surface a view sees: a depth buffer, built once and asked many times.

Knows nothing of textures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from models.image_to_mesh.finishing.fill import fill_nearest
from models.image_to_mesh.finishing.rasterize import rasterize
from models.image_to_mesh.geometry.cameras import Projection, to_pixels
from models.image_to_mesh.geometry.surface import Faces, Vertices

SIDE_PX = 384
TRUSTED_ALPHA = 0.98
"""Below it a pixel's colour is mixed with the background it was cut from."""
BIAS_SHARE = 0.02
"""Points this share of the object's size behind the buffer still count as seen."""


@dataclass(frozen=True)
class View:
    """One image of the object. rgba: (H, W, 4) float32 0..1, straight alpha."""

    rgba: npt.NDArray[np.float32]
    camera: Projection

    @cached_property
    def beyond_outline(self) -> npt.NDArray[np.float32]:  # (H, W, 3)
        """Colours continued past the outline: no trace of the old background reaches the mesh."""
        alpha = self.rgba[..., 3]
        trusted = alpha >= TRUSTED_ALPHA
        inner = ndimage.binary_erosion(trusted, border_value=1)
        colours = np.ascontiguousarray(self.rgba[..., :3])
        for candidate in (inner, trusted, alpha >= 0.5):
            if candidate.sum() >= 0.25 * (alpha >= 0.5).sum():
                return fill_nearest(colours, candidate)
        return colours

    @property
    def pixels_per_unit(self) -> float:
        """Pixels of the image per unit of length, at the object's origin."""
        height, width = self.rgba.shape[:2]
        return float(self.camera.scale * max(height, width) / 2)

    def pixels(self, points: Vertices) -> npt.NDArray[np.float64]:  # (..., 3) -> (..., 2)
        """Where points of the object's frame lie in the image, as (column, row)."""
        return to_pixels(self.camera.project(points), *self.rgba.shape[:2])


class DepthBuffer:
    """What one view sees of a mesh; `behind` looks at it from the opposite side."""

    def __init__(
        self,
        vertices: Vertices,
        faces: Faces,
        view: View,
        behind: bool = False,
        *,
        side_px: int = SIDE_PX,
        bias_share: float = BIAS_SHARE,
    ) -> None:
        self.view = view
        self.side = -1 if behind else 1
        self.bias = bias_share * float(np.ptp(vertices, axis=0).max())
        self.scale = side_px / max(view.rgba.shape[:2])
        height, width = (max(1, round(n * self.scale)) for n in view.rgba.shape[:2])
        depth = self.side * view.camera.depth(vertices)
        raster = rasterize(view.pixels(vertices) * self.scale, depth, faces, height, width)
        self.farthest = float(depth.min())
        self.nearest = np.full((height, width), -np.inf, np.float32)
        self.nearest[raster.covered] = raster.interpolate(depth[:, None], faces)[:, 0]

    def sees(self, points: Vertices) -> npt.NDArray[np.bool_]:  # (P, 3) -> (P,)
        """Points outside the image count as seen: nothing there hides them."""
        height, width = self.nearest.shape
        at = np.rint(self.view.pixels(points) * self.scale).astype(int)
        inside = (at >= 0).all(axis=1) & (at < (width, height)).all(axis=1)
        column, row = np.clip(at, 0, (width - 1, height - 1)).T
        depth = self.side * self.view.camera.depth(points)
        return np.asarray(~inside | (depth >= self.nearest[row, column] - self.bias))
