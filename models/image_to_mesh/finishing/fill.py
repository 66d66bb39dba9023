"""Fill the unknown part of an image from its known part: by the nearest colour, or diffused.

Knows nothing of what the pixels show.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Pixel = TypeVar("Pixel", np.float32, np.uint8)


def diffuse(colours: Array, weight: Array) -> Array:  # (H, W, 3), (H, W) >= 0 -> (H, W, 3)
    """Pull-push: average down a pyramid until everything is covered, then blend back up.

    Pixels of weight 1 keep their colour; pixels of weight 0 get a smooth blend of their
    surroundings. Gortler et al., The Lumigraph, 1996, section 3.4.2.
    """
    levels = [np.concatenate([colours * weight[..., None], weight[..., None]], axis=2)]
    while min(levels[-1].shape[:2]) > 1:
        height, width = levels[-1].shape[:2]
        smaller = cv2.resize(
            levels[-1], ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA
        )
        # Coverage saturates: a quarter-covered cell already knows its colour.
        scale = np.minimum(1.0, 4.0 * smaller[..., 3:]) / np.maximum(smaller[..., 3:], 1e-9)
        levels.append(smaller * scale)
    filled = levels[-1][..., :3] / np.maximum(levels[-1][..., 3:], 1e-9)
    for level in reversed(levels[:-1]):
        height, width = level.shape[:2]
        # Cubic, not linear: linear leaves the pyramid's squares visible in large fills.
        wide = cv2.resize(
            filled.reshape(*filled.shape[:2], 3), (width, height), interpolation=cv2.INTER_CUBIC
        )
        known = np.minimum(level[..., 3:], 1.0)
        filled = level[..., :3] + (1.0 - known) * wide
    return np.asarray(np.clip(filled, 0, 1), np.float32)


def fill_nearest(
    picture: npt.NDArray[Pixel], known: npt.NDArray[np.bool_]
) -> npt.NDArray[Pixel]:  # (H, W, C), (H, W)
    """Every unknown pixel takes the value of the nearest known one, to within 2 %."""
    if known.all() or not known.any():
        return picture
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # A known pixel's label is its own; a table leads from label to pixel.
    pixel = np.zeros(int(labels.max()) + 1, np.int64)
    at = np.flatnonzero(known)
    pixel[labels.reshape(-1)[at]] = at
    unknown = np.flatnonzero(~known)
    filled = np.ascontiguousarray(picture).copy()
    flat = filled.reshape(known.size, -1)
    flat[unknown] = flat[pixel[labels.reshape(-1)[unknown]]]
    return filled
