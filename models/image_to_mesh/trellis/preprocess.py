"""What TRELLIS looks at: the object alone, centred, on black, 518 pixels square.

It knows pixels and their alpha, not how the alpha was found and not the network that looks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.context import InvalidInput

SIDE_PX = 518
MARGIN = 1.2
"""Side of the crop, in units of the object's longer side."""
SOLID = 0.8 * 255
"""Pixels with more alpha than this belong to the object's bounding box."""


def centre_on_black(
    rgba: npt.NDArray[np.uint8],  # (H, W, 4), straight alpha, sRGB
    name: str = "The image",
) -> npt.NDArray[np.uint8]:
    """The object as the network was trained to see it: (518, 518, 3) uint8.

    Raises InvalidInput where nothing is solid or the object is a point.
    """
    rows, columns = np.nonzero(rgba[..., 3] > SOLID)
    size = int(max(np.ptp(columns), np.ptp(rows)) * MARGIN) if len(rows) else 0
    if size < 2:
        raise InvalidInput(
            f"{name} shows no object: fewer than two pixels have an alpha above 80 %.",
            code="image_transparent",
            next_step="Upload an image with a visible, opaque object.",
        )
    x, y = (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2
    half = size // 2
    square = Image.fromarray(rgba).crop((x - half, y - half, x + half, y + half))
    small = square.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    straight = np.asarray(small).astype(np.float32) / 255
    on_black: npt.NDArray[np.uint8] = (straight[..., :3] * straight[..., 3:] * 255).astype(np.uint8)
    return on_black


def in_bytes(rgba: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """(H, W, 4) of 0..1 -> of 0..255."""
    return np.asarray((rgba * 255 + 0.5).astype(np.uint8))
