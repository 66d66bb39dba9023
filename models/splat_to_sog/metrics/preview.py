"""The picture that shows what coding changed: original, coded, and ten times the difference.

Does not choose the view.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from models.splat_to_sog.metrics.rasterise import Float32

WIDTH_PX = 1024
GAP_PX = 2
AMPLIFIED = 10
QUALITY = 90


def preview(original: Float32, decoded: Float32) -> bytes:  # [H, W, 3] of 0..1 each
    """A WebP of three pictures side by side, about 1024 px wide."""
    difference = np.minimum(AMPLIFIED * np.abs(original - decoded), 1)
    panels = [_fitted(picture) for picture in (original, decoded, difference)]
    gap = np.ones((len(panels[0]), GAP_PX, 3), np.float32)
    strip = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    out = io.BytesIO()
    Image.fromarray(np.rint(255 * strip).astype(np.uint8)).save(out, "WEBP", quality=QUALITY)
    return out.getvalue()


def _fitted(picture: Float32) -> Float32:
    """Scaled to a third of the strip's width."""
    height, width = picture.shape[:2]
    to_width = (WIDTH_PX - 2 * GAP_PX) // 3
    size = (to_width, max(1, round(height * to_width / width)))
    shrinks = to_width < width
    scaled = cv2.resize(
        picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    )
    return np.asarray(scaled, np.float32)
