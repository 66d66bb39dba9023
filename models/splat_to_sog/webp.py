"""Lossless WebP textures: arrays of bytes to files and back, dimensions checked before decoding.

Knows nothing of splats; a texel's three or four bytes come back exactly, visible or not.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray
from PIL import Image, WebPImagePlugin  # named: else saving imports the plugins of all formats

FORMAT = WebPImagePlugin.WebPImageFile.format
MAX_SIDE_PX = 16383
"""Largest side a WebP may have."""

Effort = tuple[tuple[int, int], ...]
"""(quality, method) pairs of libwebp to try; the smallest file stays, of equals the first."""

QUICKEST: Effort = ((20, 1),)
FAST: Effort = ((20, 1), (20, 2))
THOROUGH: Effort = ((20, 1), (20, 2), (20, 3), (50, 3), (20, 4), (90, 4))
"""Measured on arranged textures (docs/benchmarks.md): which pair wins differs by texture and by up
to 1 %, and more effort alone is often worse. FAST takes a sixth of the time of (20, 3) and (75, 4)
together and gives smaller files; THOROUGH takes 15 times as long as FAST for 0.1 to 0.2 % less;
methods 5 and 6 give nothing."""


ENTRIES: Effort = ((50, 3), (75, 4))
"""For palette entries: 8 to 11 % smaller than with FAST."""


class WebpError(ValueError):
    """The bytes are not a lossless still WebP of the expected size."""


def encode_webp(
    texels: NDArray[np.uint8],  # [H, W, 3 or 4]
    effort: Effort = FAST,
) -> bytes:
    """A lossless WebP of these texels. `exact` keeps the colour of texels whose alpha is 0."""
    return min((_encode(texels, *pair) for pair in effort), key=len)


def start_webp(
    texels: NDArray[np.uint8],  # [H, W, 3 or 4]
    effort: Effort,
    pool: Executor,
) -> Callable[[], bytes]:
    """As `encode_webp`, all pairs at once in the threads of `pool`: libwebp leaves the interpreter
    lock. The function given waits for the file."""
    tries = [pool.submit(_encode, texels, *pair) for pair in effort]
    return lambda: min((one.result() for one in tries), key=len)


def _encode(texels: NDArray[np.uint8], quality: int, method: int) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(texels)  # one a try: what `save` is asked for is kept in the image
    image.save(out, FORMAT, lossless=True, quality=quality, method=method, exact=True)
    return out.getvalue()


def webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels from the file's header alone; nothing is decoded.

    Raises WebpError for anything but a lossless still image: a lossy texture cannot hold indices.
    """
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise WebpError(f"it is not a WebP image (it begins with {data[:12]!r})")
    chunk, body = data[12:16], data[20:]
    if chunk == b"VP8X":
        if body[0] & 0x02:
            raise WebpError("it is an animation")
        width = 1 + int.from_bytes(body[4:7], "little")
        height = 1 + int.from_bytes(body[7:10], "little")
    elif chunk == b"VP8L" and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        raise WebpError(f"it is a lossy WebP (chunk {chunk!r}); textures are lossless")
    if max(width, height) > MAX_SIDE_PX:
        raise WebpError(f"it is {width} x {height} pixels; a side has at most {MAX_SIDE_PX}")
    return width, height


def decode_webp(data: bytes, max_texels: int) -> NDArray[np.uint8]:  # [H, W, 4]
    """The texels as RGBA; refused before decoding if there are more than `max_texels`."""
    width, height = webp_size(data)
    if width * height > max_texels:
        raise WebpError(f"it is {width} x {height} pixels; at most {max_texels} texels belong here")
    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            if image.size != (width, height):
                raise WebpError(f"its header says {width} x {height}, its image {image.size}")
            return np.asarray(image.convert("RGBA"))
    except (OSError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise WebpError(f"it cannot be decoded ({error})") from error
