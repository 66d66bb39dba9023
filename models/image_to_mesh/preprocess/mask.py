"""Cut the object out: by the image's own alpha where it says something, else by a mask found.

Knows nothing of geometry; it refuses what it cannot separate instead of guessing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from models.context import InvalidInput
from models.image_to_mesh.preprocess.decode import Picture
from models.image_to_mesh.preprocess.source import (
    CLASSIC,
    MIN_CONFIDENCE,
    Found,
    MaskSource,
    SourceName,
)

MIN_OBJECT_PX = 12
"""Least width and height of the object, pixels of the decoded image."""
SPECK_SHARE = 5e-4
"""Detached parts smaller than this share of the object are dropped and counted."""


@dataclass(frozen=True)
class Cutout:
    """An object on a transparent ground.

    rgba:       (H, W, 4) float32 0..1, straight alpha, sRGB
    source:     "alpha": the file's own; "background": what differs from a plain background;
                "birefnet": what the network sees
    confidence: 0..1; 1 for "alpha"
    """

    name: str
    rgba: npt.NDArray[np.float32]
    source: Literal["alpha"] | SourceName
    confidence: float
    notes: tuple[str, ...] = ()


def cut_out(picture: Picture, seed: int = 0, source: MaskSource = CLASSIC) -> Cutout:
    """source: what finds the object where the file's alpha says nothing.

    Raises InvalidInput when there is no object, it is too small, or it cannot be separated;
    Unavailable where the only method asked for cannot run here.
    """
    notes = list(picture.notes)
    rgba: npt.NDArray[np.float32] = picture.pixels.astype(np.float32) / np.float32(255)
    solid = rgba[..., 3] >= 0.5
    by: Literal["alpha"] | SourceName = "alpha"
    confidence = 1.0
    if not solid.any():
        raise InvalidInput(
            f"{picture.name} is entirely transparent: no pixel has an alpha of 50 % or more.",
            code="image_transparent",
            next_step="Upload an image with a visible object.",
        )
    if (~solid).mean() < 1e-3:
        found = source.find(picture.pixels[..., :3], seed)
        _check_sure(picture.name, found, source.advice)
        by, confidence = found.source, found.separation.confidence
        rgba[..., 3] = found.separation.alpha
        notes += (f"{picture.name}: {note}" for note in found.notes)
    notes += _drop_specks(picture.name, rgba)
    _check_extent(picture.name, rgba[..., 3] >= 0.5, notes)
    return Cutout(picture.name, rgba, by, round(confidence, 3), tuple(notes))


def _check_sure(name: str, found: Found, advice: str) -> None:
    confidence = found.separation.confidence
    if confidence < MIN_CONFIDENCE:
        steps = (
            "Remove the background and upload a PNG with transparency, or photograph the object "
            "whole against a plain backdrop of another colour.",
            *found.notes,
            advice,
        )
        raise InvalidInput(
            f"{name} has no transparency, and its object cannot be told from the background: "
            f"{found.separation.reason} (confidence {confidence:.2f}, at least {MIN_CONFIDENCE} "
            "is needed).",
            code="background_not_separable",
            next_step=" ".join(filter(None, steps)),
        )


def _drop_specks(name: str, rgba: npt.NDArray[np.float32]) -> list[str]:
    """Clear detached specks of alpha in place; they would become floating crumbs of mesh."""
    solid = (rgba[..., 3] >= 0.5).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    areas[0] = np.inf
    small = areas < max(4.0, SPECK_SHARE * float(solid.sum()))
    dropped = int(small.sum())
    if dropped and dropped < count - 1:
        specks = cv2.dilate(small[labels].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        rgba[..., 3][specks & ((solid == 0) | small[labels])] = 0
        return [f"{name}: {dropped} detached speck(s) removed, each below {SPECK_SHARE:.2%} of it"]
    return []


def _check_extent(name: str, solid: npt.NDArray[np.bool_], notes: list[str]) -> None:
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    height, width = (int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1) if len(rows) else (0, 0)
    if max(height, width) < MIN_OBJECT_PX or min(height, width) < 2:
        raise InvalidInput(
            f"The object in {name} is {width}x{height} pixels; at least {MIN_OBJECT_PX} across and "
            "2 thick are needed.",
            code="object_too_small",
            next_step="Crop the image around the object, or upload a larger one.",
        )
    touching = [
        side
        for side, hit in (
            ("top", solid[0]),
            ("bottom", solid[-1]),
            ("left", solid[:, 0]),
            ("right", solid[:, -1]),
        )
        if hit.mean() > 0.02
    ]
    if touching:
        notes.append(
            f"{name}: the object touches the {', '.join(touching)} of the image and is closed there"
        )
