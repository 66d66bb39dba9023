"""Textures as bytes: JPEG, PNG or WebP. Knows nothing of what they are put into.

A normal map's channels are directions, not colours: it never loses resolution in two of them, as
colour formats do by themselves, and lossy formats get a finer step.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

TextureFormat = Literal["jpeg", "png", "webp"]

ENDINGS: dict[TextureFormat, str] = {"jpeg": "jpg", "png": "png", "webp": "webp"}
JPEG_QUALITY, NORMAL_JPEG_QUALITY = 92, 95
WEBP_QUALITY = 90


def encode_texture(
    texture: npt.NDArray[np.uint8], kind: TextureFormat, *, normals: bool = False
) -> bytes:  # (H, W, 3)
    stream = io.BytesIO()
    image = Image.fromarray(texture, "RGB")
    if kind == "jpeg":
        # No chroma subsampling: it would smear chart borders.
        quality = NORMAL_JPEG_QUALITY if normals else JPEG_QUALITY
        image.save(stream, "JPEG", quality=quality, subsampling=0, optimize=True)
    elif kind == "png":
        image.save(stream, "PNG", compress_level=6)
    elif normals:  # lossy WebP halves chroma, always
        image.save(stream, "WEBP", lossless=True, quality=30, method=1)
    else:
        image.save(stream, "WEBP", quality=WEBP_QUALITY, method=3)
    return stream.getvalue()
