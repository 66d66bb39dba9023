"""Separate an object from a plain background: border-colour fit, then GrabCut, with a confidence.

Knows nothing of objects: it only knows what the image's border looks like, so it says how sure it
is and leaves refusing to its caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

WORK_SIDE_PX = 448
PLAIN_DELTA_E = 12.0
"""Border pixels within this CIE76 distance of the fitted colour count as plain background."""


@dataclass(frozen=True)
class Separation:
    """alpha: (H, W) float32 0..1. confidence: 0..1. reason: the weakest of the signs behind it."""

    alpha: Array
    confidence: float
    reason: str


def separate(rgb: npt.NDArray[np.uint8], seed: int = 0) -> Separation:  # rgb: (H, W, 3) sRGB
    """Cut the object out of a background whose colour varies smoothly along the image's border."""
    height, width = rgb.shape[:2]
    scale = min(1.0, WORK_SIDE_PX / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    band = _border_band(lab.shape[0], lab.shape[1])
    background, plain = _fit_border(lab, band)
    distance = np.linalg.norm(lab - background, axis=2).astype(np.float32)  # CIE76 delta E
    noise = (
        float(np.sqrt(np.mean(np.square(distance[band & plain])))) if (band & plain).any() else 99.0
    )
    low, high = max(2.5 * noise, 4.0), max(5.0 * noise, 10.0)
    outside = _reached_from_border(distance < low, band)
    foreground = _grab_cut(small, distance, outside, band & plain, high, seed)
    confidence, reason = _confidence(distance, foreground, band, plain, noise, 0.5 * (low + high))
    soft = cv2.GaussianBlur(foreground.astype(np.float32), (0, 0), 0.8)
    alpha = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    # Steeper ramp: about one working pixel from transparent to opaque, centred on the contour.
    return Separation(
        np.clip((alpha - 0.5) * 2.0 + 0.5, 0, 1).astype(np.float32), confidence, reason
    )


def _border_band(height: int, width: int) -> Bools:
    band = np.zeros((height, width), bool)
    thickness = max(2, round(0.03 * min(height, width)))
    band[:thickness] = band[-thickness:] = True
    band[:, :thickness] = band[:, -thickness:] = True
    return band


def _fit_border(lab: Array, band: Bools) -> tuple[Array, Bools]:
    """Quadratic colour surface through the border, refitted without outliers.

    Returns the surface (H, W, 3) and which pixels lie within PLAIN_DELTA_E of it (H, W).
    """
    height, width = band.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    design, colours = basis[band], lab[band]
    # Start at the median colour: an object that touches the border must not tilt the surface.
    residual = np.linalg.norm(colours - np.median(colours, axis=0), axis=1)
    coefficients = np.zeros((6, 3))
    coefficients[0] = np.median(colours, axis=0)
    for limit in (24.0, 18.0, PLAIN_DELTA_E, PLAIN_DELTA_E):
        keep = residual < limit
        if keep.sum() < 64:
            break
        ridge = 1e-3 * keep.sum() * np.diag([0, 1, 1, 1, 1, 1])
        kept = design[keep]
        coefficients = np.linalg.solve(kept.T @ kept + ridge, kept.T @ colours[keep])
        residual = np.linalg.norm(colours - design @ coefficients, axis=1)
    surface = (basis @ coefficients).astype(np.float32)
    return surface, np.linalg.norm(lab - surface, axis=2) < PLAIN_DELTA_E


def _reached_from_border(like_background: Bools, band: Bools) -> Bools:
    """The part of `like_background` that is connected to the border."""
    _, labels = cv2.connectedComponents(like_background.astype(np.uint8), connectivity=4)
    touching = np.unique(labels[band & like_background])
    return np.asarray(np.isin(labels, touching[touching > 0]))


def _grab_cut(
    small: npt.NDArray[np.uint8],
    distance: Array,
    outside: Bools,
    plain_border: Bools,
    high: float,
    seed: int,
) -> Bools:
    state = np.full(distance.shape, cv2.GC_PR_BGD, np.uint8)
    state[distance > high] = cv2.GC_PR_FGD
    # Sure background stays a pixel away from the edge it stops at: GrabCut may still move it.
    sure = cv2.erode(outside.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0
    state[sure | plain_border] = cv2.GC_BGD
    foreground = state == cv2.GC_PR_FGD
    if foreground.sum() < 16 or (state == cv2.GC_BGD).sum() < 16:
        return np.asarray(foreground)
    cv2.setRNGSeed(seed)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    state, _, _ = cv2.grabCut(
        cv2.cvtColor(small, cv2.COLOR_RGB2BGR), state, None, *models, 3, cv2.GC_INIT_WITH_MASK
    )
    cut = (state == cv2.GC_PR_FGD) | (state == cv2.GC_FGD)
    # A patch in the middle of the object that merely resembles the background is not a hole unless
    # it equals it; GrabCut's colour clusters cannot tell.
    return np.asarray(cut | (foreground & ~outside))


def _confidence(
    distance: Array, foreground: Bools, band: Bools, plain: Bools, noise: float, middle: float
) -> tuple[float, str]:
    """The least of four signs, each 0..1: plain border, contrast, two methods agreeing, size."""
    area = float(foreground.mean())
    if area == 0:
        return 0.0, "nothing stands out from the background"
    border_plain = float(plain[band].mean())
    contrast = float(np.median(distance[foreground])) / (8.0 + 4.0 * noise)
    simple = distance > middle
    agreement = float((simple & foreground).sum() / max(1, (simple | foreground).sum()))
    signs = {
        "the border is not one smooth colour": np.clip((border_plain - 0.45) / 0.4, 0, 1),
        "the object's colours are close to the background's": np.clip(contrast / 1.5, 0, 1),
        "the outline is ambiguous": np.clip((agreement - 0.4) / 0.5, 0, 1),
        "the object is too small or fills the image": min(
            np.clip(area / 0.004, 0, 1), np.clip((0.95 - area) / 0.05, 0, 1)
        ),
    }
    reason = min(signs, key=lambda name: float(signs[name]))
    return float(signs[reason]), reason
