"""Spatial sparse attention by the Triton kernels: five kinds of launch a layer.

Knows which tiles a card gets and how queries are dealt to programs; nothing of modules. For
inference: no gradient flows. Memory: two more tensors like q, and scores of some queries at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext

import torch
import triton
from torch import Tensor

from models.nn.attention import Partition, Segments
from models.nn.spatial_sparse_attention.blocks import Blocks
from models.nn.spatial_sparse_attention.triton_kernels import (
    attend_chosen,
    attend_tiles,
    choose_blocks,
    score_blocks,
)
from models.nn.spatial_sparse_attention.triton_tiles import (
    SCRATCH_BYTES,
    Tile,
    Tiles,
    choice_warps,
    tiles_of,
)

LOG2_E = math.log2(math.e)


def spatial_sparse_attention(
    q: Tensor,  # [N, H, D] fp16 or bf16, in block order
    k: Tensor,  # [N, G, D]
    v: Tensor,  # [N, G, D]
    compressed_k: Tensor,  # [M, G, D]
    compressed_v: Tensor,  # [M, G, D]
    gates: Tensor,  # [N, 3]
    blocks: Blocks,
    windows: Partition,
    topk: int,
    tiles: Tiles | None = None,
) -> Tensor:  # [N, H, D]
    """As in `functional`; N > 0, H / G and D powers of two."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    compressed_k, compressed_v = compressed_k.contiguous(), compressed_v.contiguous()
    with torch.cuda.device_of(q) if q.is_cuda else nullcontext():
        tiles = tiles or tiles_for(q.device)
        seen, sums = compressed_attention(q, compressed_k, compressed_v, blocks, tiles)
        chosen = chosen_blocks(q, compressed_k, sums, blocks, topk, tiles)
        near = window_attention(q, k, v, windows, tiles)
        return selected_attention(
            q, k, v, chosen, blocks, tiles, (seen, near, gates.contiguous()), out=seen
        )


def tiles_for(device: torch.device) -> Tiles:
    major, minor = torch.cuda.get_device_capability(device)
    return tiles_of(10 * major + minor)


def compressed_attention(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, G, D]
    v: Tensor,  # [M, G, D]
    blocks: Blocks,
    tiles: Tiles,
) -> tuple[Tensor, Tensor]:  # [N, H, D]; fp32 [N, H], log2 of the sum of exp(scores)
    share = q.shape[1] // k.shape[1]
    tile = tiles.compression
    table = dealt(blocks.rows, blocks.compressed, voxels_of(tile, share), q.device)
    out, sums = torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32)
    _attend(q, k, v, out, sums, table, None, tile)
    return out, sums


def window_attention(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [N, G, D]
    v: Tensor,  # [N, G, D]
    windows: Partition,
    tiles: Tiles,
) -> Tensor:  # [N, H, D]
    share = q.shape[1] // k.shape[1]
    lengths = windows.windows
    table = dealt(lengths, lengths, voxels_of(tiles.window, share), q.device)
    rows = lengths.cached(("rows", q.device), lambda: windows.order.int())
    out = torch.empty_like(q)
    _attend(q, k, v, out, None, table, rows, tiles.window)
    return out


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    sums: Tensor | None,
    table: Tensor,
    rows: Tensor | None,
    tile: Tile,
) -> None:
    groups, share = k.shape[1], q.shape[1] // k.shape[1]
    attend_tiles[(len(table), groups)](
        q, k, v, out, sums, table, rows, _scale(q),
        GROUPS=groups, SHARE=share, WIDTH=q.shape[2],
        QUERIES=voxels_of(tile, share), KEYS=tile.keys,
        BY_ROWS=rows is not None, WITH_SUMS=sums is not None,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def chosen_blocks(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, G, D]: of compression blocks
    sums: Tensor,  # fp32 [N, H]
    blocks: Blocks,
    topk: int,
    tiles: Tiles,
    scratch_bytes: int = SCRATCH_BYTES,
) -> Tensor:  # int32 [N, G, topk]: selection blocks, ascending; -1 where an item has fewer
    groups, share = k.shape[1], q.shape[1] // k.shape[1]
    tile = tiles.score
    table = dealt(blocks.rows, blocks.compressed, tile.rows, q.device)
    among = dealt(blocks.rows, blocks.selectable, tile.rows, q.device)
    columns = -(-blocks.compressed.longest // 16) * 16
    size = max(triton.next_power_of_2(blocks.selectable.longest), triton.next_power_of_2(topk))
    at_once = max(1, scratch_bytes // (4 * groups * tile.rows * columns))
    scores = sums.new_empty(groups * min(at_once, len(table)) * tile.rows * columns)
    chosen = q.new_empty((len(q), groups, topk), dtype=torch.int32)
    for first, count in _parts(len(table), at_once):
        score_blocks[(count, triton.cdiv(blocks.compressed.longest, tile.keys), groups)](
            q, k, sums, table, scores, first, columns, _scale(q),
            GROUPS=groups, SHARE=share, WIDTH=q.shape[2], QUERIES=tile.rows, KEYS=tile.keys,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        choose_blocks[(count * tile.rows, groups)](
            scores, table, among, blocks.children, chosen, first, columns,
            GROUPS=groups, QUERIES=tile.rows, TOPK=topk, SIZE=size,
            CHILDREN=0 if blocks.children is None else blocks.children.shape[1],
            num_warps=choice_warps(size),
        )  # fmt: skip
    return chosen


def selected_attention(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [N, G, D]
    v: Tensor,  # [N, G, D]
    chosen: Tensor,  # int32 [N, G, topk]
    blocks: Blocks,
    tiles: Tiles,
    gated: tuple[Tensor, Tensor, Tensor] | None = None,  # compression's, windows', gates [N, 3]
    out: Tensor | None = None,  # [N, H, D]; may be compression's: each program reads, then writes
) -> Tensor:  # [N, H, D]: this branch, or the gated sum of all
    groups, topk = k.shape[1], chosen.shape[2]
    share, tile = q.shape[1] // groups, tiles.chosen
    out = torch.empty_like(q) if out is None else out
    seen, near, gates = gated or (None, None, None)
    attend_chosen[(len(q), groups)](
        q, k, v, chosen, blocks.starts, seen, near, gates, out, _scale(q),
        GROUPS=groups, SHARE=share, HEADS=max(16, share), WIDTH=q.shape[2],
        TOPK=topk, SLOTS=triton.next_power_of_2(topk), KEYS=tile.keys, GATED=gated is not None,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out


def voxels_of(tile: Tile, share: int) -> int:
    """Voxels of a tile of rows, each with the heads that share its keys."""
    return max(1, tile.rows // share)


def dealt(queries: Segments, keys: Segments, most: int, device: torch.device) -> Tensor:
    """int32 [tiles, 4]: first query and how many, at most `most`; first key and how many.

    Sequence i of queries faces sequence i of keys. Kept with `queries`.
    """

    def deal() -> Tensor:
        lengths, widths = torch.tensor(queries.lengths), torch.tensor(keys.lengths)
        tiles = (lengths + most - 1) // most
        of = torch.arange(len(tiles)).repeat_interleave(tiles)
        skipped = (torch.arange(len(of)) - (tiles.cumsum(0) - tiles)[of]) * most
        columns = (
            (lengths.cumsum(0) - lengths)[of] + skipped,
            (lengths[of] - skipped).clamp(max=most),
            (widths.cumsum(0) - widths)[of],
            widths[of],
        )
        return torch.stack(columns, dim=1).int().to(device)

    others = None if keys is queries else keys  # nothing shall hold itself
    return queries.cached(("dealt", others, most, device), deal)


def _parts(total: int, most: int) -> Iterator[tuple[int, int]]:
    for first in range(0, total, most):
        yield first, min(most, total - first)


def _scale(q: Tensor) -> float:
    return LOG2_E / math.sqrt(q.shape[2])
