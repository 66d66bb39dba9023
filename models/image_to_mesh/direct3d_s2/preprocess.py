"""What Direct3D-S2 looks at: the object alone, filling a white square of 518 pixels but for a rim.

It knows pixels and their alpha, not how the alpha was found and not the network that looks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE_PX = 518
RIM_PX = 16
"""White around the square of SIDE_PX, before both are brought to SIDE_PX again."""
LEAST_SHARE = 0.001
"""Of the image: an object smaller than this is not cropped to."""


@dataclass(frozen=True)
class Picture:
    """rgb: (518, 518, 3) uint8 on white. alpha: (518, 518) uint8, the object's."""

    rgb: npt.NDArray[np.uint8]
    alpha: npt.NDArray[np.uint8]


def centre_on_white(rgba: npt.NDArray[np.uint8]) -> Picture:  # (H, W, 4), straight alpha, sRGB
    """The object as the networks were trained to see it."""
    cropped = _crop(rgba).astype(np.float64) / 255
    alpha = cropped[..., 3:]
    on_white = cropped[..., :3] * alpha + (1 - alpha)
    rgb = Image.fromarray((on_white * 255).astype(np.uint8))
    mask = Image.fromarray((alpha[..., 0] * 255).astype(np.uint8))
    return Picture(
        np.asarray(_squared(rgb, "white", Image.Resampling.BILINEAR)),
        np.asarray(_squared(mask, 0, Image.Resampling.NEAREST)),
    )


def _crop(rgba: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """To every pixel that is not wholly transparent."""
    visible = rgba[..., 3] > 0
    if visible.mean() < LEAST_SHARE:
        return rgba
    rows, columns = (np.flatnonzero(visible.any(axis=axis)) for axis in (1, 0))
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _squared(image: Image.Image, ground: str | int, how: Image.Resampling) -> Image.Image:
    """Padded to a square, resized, given the rim, and resized to the same again."""
    side = max(image.size)
    place = ((side - image.width) // 2, (side - image.height) // 2)
    square = _on(ground, image, place, side).resize((SIDE_PX, SIDE_PX), how)
    rimmed = _on(ground, square, (RIM_PX, RIM_PX), SIDE_PX + 2 * RIM_PX)
    return rimmed.resize((SIDE_PX, SIDE_PX), how)


def _on(ground: str | int, image: Image.Image, place: tuple[int, int], side: int) -> Image.Image:
    canvas = Image.new(image.mode, (side, side), ground)
    canvas.paste(image, place)
    return canvas
