"""The textures of a SOG, and what versions 1 and 2 store alike in them: positions and rotations.

Does not know colours, scales or harmonics. A texture's dimensions are checked against the splat
count before it is decoded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.splat_to_sog import layout
from models.splat_to_sog.readers.blocks import MAX_THREADS
from models.splat_to_sog.readers.container import Container, refuse
from models.splat_to_sog.readers.sog_meta import Description
from models.splat_to_sog.scratch import chunks
from models.splat_to_sog.splats import COEFFICIENTS, Float32
from models.splat_to_sog.threads import in_threads
from models.splat_to_sog.webp import WebpError, decode_webp, webp_size

ROWS = 1 << 16
FREE_SPLATS = 1 << 20  # up to this many splats a texture may be as empty as it likes
SPLATS_PER_BYTE = 64  # above it: the low bytes of real positions take more than half a byte each

Texels = NDArray[np.uint8]


def texels(container: Container, file: str, count: int) -> Texels:  # [count, 4]
    """One RGBA texel a splat, row by row from the top."""
    # Padding up to a square of twice the size is odd but harmless; more is an attack.
    pixels = _image(container, file, container.read(file), max_texels=4 * count + 4096)
    _check_size(container, file, pixels.shape[1], pixels.shape[0], count)
    return pixels.reshape(-1, 4)[:count]


def check_count(container: Container, meta: Description, count: int) -> None:
    """Refuse a count that the positions cannot hold, before room for so many splats is taken."""
    file = meta.files("means", 2)[0]
    size = len(container.read(file))
    if count > FREE_SPLATS + SPLATS_PER_BYTE * size:
        raise refuse(
            container.name,
            f"texture '{file}' of {size} bytes cannot hold the positions of {count} splats",
            code="splat_limits",
        )
    _check_size(container, file, *image_size(container, file), count)


def _check_size(container: Container, file: str, width: int, height: int, count: int) -> None:
    if width * height < count:
        raise refuse(
            container.name,
            f"texture '{file}' is {width} x {height} pixels, too small for {count} splats",
            code="splat_texture",
        )


def image_size(container: Container, file: str) -> tuple[int, int]:
    """(width, height) in pixels; nothing is decoded."""
    try:
        return webp_size(container.read(file))
    except WebpError as error:
        raise refuse(container.name, f"texture '{file}': {error}", code="splat_texture") from error


def palette_image(container: Container, file: str) -> Texels:  # [H, W, 4]
    largest = 2 * layout.MAX_PALETTE * COEFFICIENTS[3]
    return _image(container, file, container.read(file), max_texels=largest)


def palette_bytes(
    container: Container, file: str, pixels: Texels, entries: int, degree: int
) -> NDArray[np.uint8]:  # [entries, 3, K]
    """Each entry's coefficients, channel by channel."""
    width, height = layout.palette_size_px(entries, degree)
    if pixels.shape[1] != width or pixels.shape[0] < height:
        raise refuse(
            container.name,
            f"texture '{file}' is {pixels.shape[1]} x {pixels.shape[0]} pixels; "
            f"{entries} entries of {degree} bands take {width} x {height}",
            code="splat_texture",
        )
    rows = pixels[:height, :, :3].reshape(-1, COEFFICIENTS[degree], 3)[:entries]
    return rows.transpose(0, 2, 1)


def read_means(container: Container, meta: Description, count: int, means: Float32) -> None:
    """Fill means [count, 3]; `check_count` has seen the count."""
    low_file, high_file = meta.files("means", 2)
    mins, maxs = meta.floats("means", "mins", 3), meta.floats("means", "maxs", 3)
    low, high = texels(container, low_file, count), texels(container, high_file, count)

    def decode(rows: slice) -> None:
        steps = low[rows, :3] + 256.0 * high[rows, :3]
        with np.errstate(over="ignore"):  # bounds of 100 and more in the log domain
            means[rows] = layout.linear_position(
                mins + (maxs - mins) * (steps / layout.POSITION_STEPS)
            )

    in_threads(decode, chunks(count, ROWS), MAX_THREADS)


def read_quats(container: Container, file: str, count: int, quats: Float32) -> None:
    """Fill quats [count, 4]."""
    texture = texels(container, file, count)

    def decode(rows: slice) -> None:
        quats[rows] = layout.quats_from_texels(texture[rows])

    in_threads(decode, chunks(count, ROWS), MAX_THREADS)


def read_labels(
    palette: Float32,  # [P + 1, 3, K], the last entry all zero
    labels: NDArray[np.uint8],  # [count, 2] low and high byte
    harmonics: Float32,  # [count, 3, K], filled
) -> None:
    """A label past the palette decodes as zeros."""
    flat, rows_of = harmonics.reshape(len(labels), -1), palette.reshape(len(palette), -1)

    def decode(rows: slice) -> None:
        index = labels[rows, 0].astype(np.intp) + 256 * labels[rows, 1].astype(np.intp)
        flat[rows] = rows_of[np.minimum(index, len(palette) - 1)]

    in_threads(decode, chunks(len(labels), ROWS), MAX_THREADS)


def _image(container: Container, file: str, data: bytes, max_texels: int) -> Texels:
    try:
        return decode_webp(data, max_texels)
    except WebpError as error:
        raise refuse(container.name, f"texture '{file}': {error}", code="splat_texture") from error
