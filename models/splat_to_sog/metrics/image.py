"""How alike two pictures are: squared error, PSNR and SSIM.

Does not know where the pictures come from. Values are display-space, 0..1, as they are shown.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

PSNR_MAX_DB = 120.0
"""What equal pictures get in place of infinity, which JSON cannot carry."""

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
WINDOW_PX, WINDOW_SIGMA_PX = 11, 1.5
C1, C2 = 0.01**2, 0.03**2


def mean_squared_error(a: Float32, b: Float32) -> float:  # [H, W, 3] each
    return float(np.mean(np.square(a - b, dtype=np.float64)))


def psnr_db(squared_error: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error, the peak being 1."""
    if squared_error <= 10 ** (-PSNR_MAX_DB / 10):
        return PSNR_MAX_DB
    return -10 * math.log10(squared_error)


def ssim(a: Float32, b: Float32) -> float:  # [H, W, 3] each
    """Mean structural similarity of the luma, -1..1.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004:
    an 11 px Gaussian window, sigma 1.5 px; the borders are mirrored.
    """
    x, y = (image.astype(np.float64) @ np.array(LUMA) for image in (a, b))
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    likeness /= (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    return float(likeness.mean())


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    window = (WINDOW_PX, WINDOW_PX)
    return np.asarray(
        cv2.GaussianBlur(image, window, WINDOW_SIGMA_PX, borderType=cv2.BORDER_REFLECT)
    )
