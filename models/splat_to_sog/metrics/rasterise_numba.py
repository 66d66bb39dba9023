"""Draws projected Gaussians as `rasterise` does, compiled and on all cores.

Knows nothing of scenes. Import it inside functions only (see `models.compiled`). A tile is drawn by
one thread, front to back, so the picture does not depend on the number of cores. Rows of a tile are
handled 16 pixels at a time without branches, which compilers turn into vector instructions; rows
and tiles that no visible part of an ellipse crosses are left out first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.compiled import (
    f32,
    filled,
    i64,
    inlined,
    kernel,
    taken,
    u64,
)
from models.splat_to_sog.metrics.packed import (
    BLUE,
    COLUMNS,
    FLOOR,
    GREEN,
    HALF_HEIGHT,
    OPACITY,
    RED,
    A,
    B,
    C,
    Packed,
    U,
    V,
    pack,
)
from models.splat_to_sog.metrics.rasterise import (
    ALPHA_MAX,
    BLACK,
    TILE_PX,
    TRANSMITTANCE_MIN,
    Colour,
    Float32,
    Projected,
)
from models.splat_to_sog.metrics.tiles_numba import Strip, strips
from models.splat_to_sog.threads import in_threads

Number = Any  # a float32, which mypy and numpy's stubs do not treat as a number in arithmetic

BATCH = 32  # Gaussians of a tile fetched at once; before each, finished rows are found

# float32, so that no product of the inner loop is promoted to float64
LOW_BITS = np.uint64(0xFFFFFFFF)  # of a key: the index
ONE, HALF, ZERO, TINY = np.float32(1), np.float32(0.5), np.float32(0), np.float32(1e-30)
MAX_ALPHA = np.float32(ALPHA_MAX)
MIN_TRANSMITTANCE = np.float32(TRANSMITTANCE_MIN)
MARGIN = np.float32(1e-3)  # keeps the skipping of rows clear of rounding
# exp(x) = (exp(x / 16))^16; its Taylor series about the middle of x / 16, x in -ln(255)..0,
# is exact to 4e-8 there, the power to 2e-6.
SIXTEENTH, MIDDLE = np.float32(1 / 16), np.float32(0.1735)
E0 = np.float32(np.exp(-0.1735))
E1, E2, E3 = E0, np.float32(np.exp(-0.1735) / 2), np.float32(np.exp(-0.1735) / 6)
E4, E5 = np.float32(np.exp(-0.1735) / 24), np.float32(np.exp(-0.1735) / 120)

# One row of a tile in scratch memory: transmittance, red, green, blue of 16 pixels each
ROW = 4 * TILE_PX


def rasterise(
    projected: Projected, width: int, height: int, background: Colour = BLACK
) -> Float32:  # [H, W, 3]
    """The picture, not clipped: colours may exceed 1."""
    return draw(pack(projected), width, height, background)


def draw(packed: Packed, width: int, height: int, background: Colour = BLACK) -> Float32:
    """The same of what `project_numba.visible` finds, sorted tile by tile."""
    image = np.empty((height, width, 3), np.float32)
    behind = np.asarray(background, np.float32)
    for strip in strips(packed, width, height):

        def draw_tiles(part: slice, strip: Strip = strip) -> None:
            strip.sort(part)
            _draw(packed.table, strip.starts, strip.keys, behind, image, part.start, part.stop)

        in_threads(draw_tiles, strip.parts())
    return image


@inlined
def _rows_touched(splat: Float32, top: int, bottom: int) -> tuple[int, int]:
    """First and last + 1 of the pixel rows top..bottom whose middles the Gaussian reaches."""
    reach = splat[HALF_HEIGHT] + MARGIN
    first = max(np.float32(top), np.ceil(splat[V] - reach - HALF))
    last = min(np.float32(bottom), np.floor(splat[V] + reach - HALF) + ONE)
    return int(first), int(last)


@inlined
def _row_is_empty(splat: Float32, slope: Number, dy: Number, left: int) -> bool:
    """Whether the Gaussian is invisible at every pixel of a tile's row: its peak is too low."""
    low, high = np.float32(left) - splat[U], np.float32(left + TILE_PX) - splat[U]
    peak = min(max(slope * dy, low), high)
    power = -HALF * (splat[A] * peak * peak + splat[C] * dy * dy) - splat[B] * peak * dy
    return bool(power < splat[FLOOR] - MARGIN)


@inlined
def _blend_row(
    splat: Float32,  # [COLUMNS]
    dy: Number,
    left: int,
    red: Number,
    green: Number,
    blue: Number,
    row: Float32,  # [ROW]
) -> None:
    """Adds the Gaussian to a row's 16 pixels. One loop without branches: it becomes vectors."""
    a, b, opacity, floor = -HALF * splat[A], -splat[B] * dy, splat[OPACITY], splat[FLOOR]
    c = -HALF * splat[C] * dy * dy
    first = np.float32(left) + HALF - splat[U]
    for x in range(TILE_PX):
        dx = first + np.float32(x)
        power = dx * (a * dx + b) + c
        r = power * SIXTEENTH + MIDDLE
        e = E0 + r * (E1 + r * (E2 + r * (E3 + r * (E4 + r * E5))))
        e = e * e
        e = e * e
        e = e * e
        e = e * e
        alpha = min(opacity * e, MAX_ALPHA)
        passed = row[x]
        seen = (power >= floor) & (power <= ZERO) & (passed >= MIN_TRANSMITTANCE)
        weight = alpha * passed if seen else ZERO
        row[x] = passed - weight
        row[TILE_PX + x] += weight * red
        row[2 * TILE_PX + x] += weight * green
        row[3 * TILE_PX + x] += weight * blue


@inlined
def _find_open(pixels: Float32, right: int, bottom: int, open_rows: NDArray[np.bool_]) -> bool:
    """Which rows of a tile have pixels that are not finished; whether there is any."""
    found = False
    for y in range(bottom):
        count = 0
        for x in range(TILE_PX):
            count += (pixels[y, x] >= MIN_TRANSMITTANCE) & (x < right)
        open_rows[y] = count > 0
        found |= count > 0
    return found


@inlined
def _fetch(
    table: Float32,
    keys: NDArray[np.uint64],
    begin: int,
    end: int,
    near: Float32,  # [BATCH, COLUMNS]
) -> int:
    """Copies the next Gaussians of a tile side by side and returns how many: memory is slow, but
    serves many requests at once."""
    count = min(BATCH, end - begin)
    for i in range(count):
        near[i] = table[np.int64(keys[begin + i] & LOW_BITS)]
    return count


@kernel(taken(f32, 2), taken(i64, 1), taken(u64, 1), taken(f32, 1), filled(f32, 3), i64, i64)
def _draw(
    table: Float32,  # [M, COLUMNS]
    starts: NDArray[np.int64],
    keys: NDArray[np.uint64],
    background: Float32,  # [3]
    image: Float32,  # [H, W, 3]
    begin: int,
    end: int,
) -> None:
    """Fills the pixels of the tiles begin..end-1."""
    height, width, _ = image.shape
    columns = -(-width // TILE_PX)
    pixels = np.empty((TILE_PX, ROW), np.float32)
    near = np.empty((BATCH, COLUMNS), np.float32)
    open_rows = np.empty(TILE_PX, np.bool_)
    for tile in range(begin, end):
        top, left = tile // columns * TILE_PX, tile % columns * TILE_PX
        bottom, right = min(top + TILE_PX, height), min(left + TILE_PX, width)
        pixels[:, :TILE_PX] = ONE
        pixels[:, TILE_PX:] = ZERO
        for batch in range(starts[tile], starts[tile + 1], BATCH):
            if not _find_open(pixels, right - left, bottom - top, open_rows):
                break
            for i in range(_fetch(table, keys, batch, starts[tile + 1], near)):
                splat = near[i]
                slope = -splat[B] / max(splat[A], TINY)  # a conic may underflow
                red, green, blue = splat[RED], splat[GREEN], splat[BLUE]
                first, last = _rows_touched(splat, top, bottom)
                for y in range(first, last):
                    dy = np.float32(y) + HALF - splat[V]
                    if not open_rows[y - top] or _row_is_empty(splat, slope, dy, left):
                        continue
                    _blend_row(splat, dy, left, red, green, blue, pixels[y - top])
        for y in range(top, bottom):
            for x in range(left, right):
                for channel in range(3):
                    image[y, x, channel] = (
                        pixels[y - top, (1 + channel) * TILE_PX + x - left]
                        + pixels[y - top, x - left] * background[channel]
                    )
