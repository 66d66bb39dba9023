"""What ReconViaGen looks at: the object alone on black, 518 pixels square, and where it was cut.

It knows pixels and their alpha, not how the alpha was found and not the network that looks. Other
than TRELLIS's square, this one ends at the photo's edge and is padded, so that a camera keeps its
shape, and colours are not darkened by soft alpha: they are there or they are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from models.context import InvalidInput
from models.image_to_mesh.trellis.preprocess import SIDE_PX, SOLID

MARGIN = 1.1
"""Side of the crop, in units of the object's longer side."""
LARGEST_PX = 1024
"""Larger photos are reduced first: what follows interpolates between four pixels and no more."""
OPAQUE = 0.8


@dataclass(frozen=True)
class Framed:
    """pixels: (518, 518, 3) uint8, sRGB, black where the object is not.

    left_px, top_px, side_px: the square it shows, in pixels of the photo as it was given; it may
    reach beyond the photo's edges.
    """

    pixels: npt.NDArray[np.uint8]
    left_px: float
    top_px: float
    side_px: float


def frame_on_black(
    rgba: npt.NDArray[np.uint8],  # (H, W, 4), straight alpha, sRGB
    name: str = "The image",
) -> Framed:
    """The object as the networks were trained to see it.

    Raises InvalidInput where nothing is solid or the object is a point.
    """
    photo, scale = _reduced(rgba)
    height, width = photo.shape[:2]
    rows, columns = np.nonzero(photo[..., 3] > SOLID)
    size = int(max(np.ptp(columns), np.ptp(rows)) * MARGIN) if len(rows) else 0
    if size < 2:
        raise InvalidInput(
            f"{name} shows no object: fewer than two pixels have an alpha above 80 %.",
            code="image_transparent",
            next_step="Upload an image with a visible, opaque object.",
        )
    x, y = (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2
    half = size // 2
    left, right = max(0, int(x - half)), min(width, int(x + half))
    top, bottom = max(0, int(y - half)), min(height, int(y + half))
    crop = photo[top:bottom, left:right].astype(np.float32) / 255
    side = max(crop.shape[:2])
    above, before = (side - crop.shape[0]) // 2, (side - crop.shape[1]) // 2
    square = np.zeros((side, side, 4), np.float32)
    square[above : above + crop.shape[0], before : before + crop.shape[1]] = crop
    # Bilinear between pixel centres without a filter, as in training.
    small = cv2.resize(square, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_LINEAR)
    on_black = (small[..., :3] * (small[..., 3:] > OPAQUE) * 255).astype(np.uint8)
    return Framed(on_black, (left - before) / scale, (top - above) / scale, side / scale)


def _reduced(rgba: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], float]:
    """The photo at no more than `LARGEST_PX`, and how many times its size that is."""
    height, width = rgba.shape[:2]
    scale = min(1.0, LARGEST_PX / max(height, width))
    if scale == 1:
        return rgba, scale
    size = (int(width * scale), int(height * scale))
    small = Image.fromarray(rgba).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(small), scale
