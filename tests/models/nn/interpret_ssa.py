"""Runs the kernels of spatial sparse attention on CPU: `TRITON_INTERPRET=1 python -m MODULE SEED`.

A process of its own, since Triton decides when a kernel is defined whether it interprets. Prints
{case: {branch: error}}; the test that started it judges.
"""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor

from models.nn.attention import Window, partition
from models.nn.spatial_sparse_attention import Blocks, blocks_of, in_block_order, reference
from models.nn.spatial_sparse_attention import triton_attention as fast
from models.nn.spatial_sparse_attention.triton_tiles import Tile, Tiles
from tests.models.nn.voxels import random_grid

TILES = Tiles(Tile(64, 16, 1, 1), Tile(32, 16, 1, 1), Tile(32, 16, 1, 1), Tile(16, 16, 1, 1))
CASES = {
    # compression block, topk, heads, heads of keys, width, scratch: bytes
    "as release 1.1": (4, 2, 32, 2, 16, 1 << 20),
    "as release 1.0": (2, 2, 16, 1, 16, 1 << 20),
    "blocks are few": (4, 5, 8, 2, 32, 1 << 20),
    "a few queries at a time": (4, 1, 4, 2, 16, 1),
}


def errors(seed: int, case: tuple[int, ...]) -> dict[str, float]:
    """|out - reference| at most, the reference in fp64 on the same numbers."""
    compression, topk, heads, groups, width, scratch = case
    grid = random_grid(seed, items=3, extent=(9, 4, 5), occupancy=0.09, empty=frozenset([1]))
    x, _ = in_block_order(grid.tensor, 4)
    blocks, windows = blocks_of(x.sites, compression, 4), partition(x.sites, Window(4, 2))

    def normal(*shape: int) -> Tensor:
        return grid.normal(*shape).half()

    n, m = blocks.rows.total, blocks.compressed.total
    q = normal(n, heads, width)
    k, v, few_k, few_v = (normal(rows, groups, width) for rows in (n, n, m, m))
    gates = normal(n, 3).sigmoid()

    exact = [t.double() for t in (q, k, v, few_k, few_v, gates)]
    expected, among = reference.compressed_attention(exact[0], *exact[3:5], blocks, topk)
    seen, sums = fast.compressed_attention(q, few_k, few_v, blocks, TILES)
    chosen = fast.chosen_blocks(q, few_k, sums, blocks, topk, TILES, scratch)
    far = fast.selected_attention(q, k, v, chosen, blocks, TILES)
    near = fast.window_attention(q, k, v, windows, TILES)
    whole = fast.spatial_sparse_attention(
        q, k, v, few_k, few_v, gates, blocks, windows, topk, TILES
    )
    return {
        "compression": _most(seen, expected),
        "rows of other blocks": float((chosen != among).any(2).sum()),
        "equal scores": ties(blocks, topk) if compression == 2 else 0,
        "selection": _most(far, reference.selected_attention(*exact[:3], among, blocks)),
        "window": _most(near, reference.window_attention(*exact[:3], windows)),
        "sum": _most(
            whole, reference.spatial_sparse_attention(*exact, blocks, windows, topk)
        ),
    }  # fmt: skip


def ties(blocks: Blocks, topk: int) -> float:
    """Queries for which, all keys being alike, other blocks than the first were chosen."""
    q = torch.ones(blocks.rows.total, 2, 16).half()
    k = torch.ones(blocks.compressed.total, 1, 16).half()
    _, sums = fast.compressed_attention(q, k, k, blocks, TILES)
    chosen = fast.chosen_blocks(q, k, sums, blocks, topk, TILES)
    _, expected = reference.compressed_attention(q.double(), k.double(), k.double(), blocks, topk)
    return float((chosen != expected).any(2).sum())


def _most(out: Tensor, expected: Tensor) -> float:
    return float((out.double() - expected).abs().max())


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({name: errors(int(sys.argv[1]), case) for name, case in CASES.items()}))
