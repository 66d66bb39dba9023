"""The search of kernels.cu written in Triton: one program per block of rows, tiles in a loop.

Does not rescore and does not need the packed tiles: entries are plain rows of halves. The column
of a tile's maximum travels in the low bits of its score, so that one integer maximum finds both.
Needs PyTorch to launch; imported only where it is asked for.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

ROWS, TILE = 128, 128
SIGNATURE = {"rows": "*fp16", "entries": "*fp16", "label": "*i32", "n": "i32", "tiles": "i32"}


@triton.jit
def search(
    rows,  # [n padded to ROWS, COLUMNS]
    entries,  # [tiles * TILE, COLUMNS]
    label,  # [n]
    n,
    tiles,
    LOW: tl.constexpr,  # noqa: N803  columns in the first product, a power of two
    HIGH: tl.constexpr,  # noqa: N803  and in the second: 0 or a power of two
    ROWS: tl.constexpr,  # noqa: N803
    TILE: tl.constexpr,  # noqa: N803
):
    columns: tl.constexpr = LOW + HIGH
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    low = tl.arange(0, LOW)
    x_low = tl.load(rows + row[:, None] * columns + low[None, :])
    if HIGH > 0:
        high = LOW + tl.arange(0, HIGH)
        x_high = tl.load(rows + row[:, None] * columns + high[None, :])
    inside = tl.arange(0, TILE)
    best = tl.zeros([ROWS], tl.int32)
    where = tl.zeros([ROWS], tl.int32)
    for tile in range(tiles):
        start = entries + (tile * TILE + inside)[None, :] * columns
        score = tl.dot(x_low, tl.load(start + low[:, None]))
        if HIGH > 0:
            score = tl.dot(x_high, tl.load(start + high[:, None]), score)
        key = (score.to(tl.int32, bitcast=True) & ~(TILE - 1)) | inside[None, :]
        top = tl.max(key, axis=1)
        closer = top > best
        best = tl.where(closer, top, best)
        where = tl.where(closer, tile, where)
    tl.store(label + row, where * TILE + (best & (TILE - 1)), mask=row < n)


def launch(rows: Any, entries: Any, label: Any, *, low: int, high: int, **options: int) -> None:
    """Torch tensors on one device, as `search` describes them; label i32."""
    grid = (rows.shape[0] // ROWS,)
    tiles = entries.shape[0] // TILE
    search[grid](
        rows, entries, label, label.shape[0], tiles, LOW=low, HIGH=high, ROWS=ROWS, TILE=TILE,
        **options,
    )  # fmt: skip
