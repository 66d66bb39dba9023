"""Spatial sparse attention in plain PyTorch: what the kernels are held to, and what a CPU computes.

Knows no modules and no sites. Half precision is computed in fp32; a step holds the scores of some
queries at once, never those of all. Grouped queries (Ainslie et al. 2023): H heads of queries share
G heads of keys, heads g * H / G and on the g-th.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.nn.attention import Partition, attend_varlen
from models.nn.spatial_sparse_attention.blocks import Blocks

HELD = 1 << 25
"""Scores, or gathered numbers, held at once."""


def spatial_sparse_attention(
    q: Tensor,  # [N, H, D], in block order
    k: Tensor,  # [N, G, D]
    v: Tensor,  # [N, G, D]
    compressed_k: Tensor,  # [M, G, D]
    compressed_v: Tensor,  # [M, G, D]
    gates: Tensor,  # [N, 3]: of compression, selection and window
    blocks: Blocks,
    windows: Partition,
    topk: int,
) -> Tensor:  # [N, H, D]
    seen, chosen = compressed_attention(q, compressed_k, compressed_v, blocks, topk)
    near = window_attention(q, k, v, windows)
    far = selected_attention(q, k, v, chosen, blocks)
    g = wide(gates)[..., None, None]
    return (g[:, 0] * wide(seen) + g[:, 1] * wide(far) + g[:, 2] * wide(near)).to(q.dtype)


def compressed_attention(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [M, G, D]: of compression blocks
    v: Tensor,  # [M, G, D]
    blocks: Blocks,
    topk: int,
) -> tuple[Tensor, Tensor]:  # [N, H, D], and `choose`'s int32 [N, G, topk]
    outs, chosen = [], []
    first_block = 0
    for rows, columns, among in zip(
        blocks.rows.slices(), blocks.compressed.slices(), blocks.selectable.slices(), strict=True
    ):
        children = None
        if blocks.children is not None:
            children = blocks.children[among]
            children = torch.where(children >= 0, children - columns.start, -1)
        step = max(1, HELD // max(1, q.shape[1] * (columns.stop - columns.start)))
        for part in q[rows].split(step):
            out, scores = attend_to_blocks(part, k[columns], v[columns])
            picked = choose(scores, children, topk)
            outs.append(out.to(q.dtype))
            chosen.append(torch.where(picked >= 0, picked + first_block, -1))
        first_block = among.stop
    none = q.new_empty((0, k.shape[1], topk), dtype=torch.int32)
    return torch.cat([*outs, q[:0]]), torch.cat([*chosen, none])


def attend_to_blocks(
    q: Tensor,  # [n, H, D], of one item
    k: Tensor,  # [m, G, D], of its blocks
    v: Tensor,  # [m, G, D]
) -> tuple[Tensor, Tensor]:  # [n, H, D]; [G, n, m]: weights of a block, summed over heads
    grouped = wide(q).unflatten(1, (k.shape[1], -1))
    scores = torch.einsum("nghd,mgd->gnhm", grouped, wide(k)) / q.shape[-1] ** 0.5
    weights = scores.softmax(-1)
    out = torch.einsum("gnhm,mgd->nghd", weights, wide(v))
    return out.flatten(1, 2), weights.sum(2)


def choose(
    scores: Tensor,  # [G, n, m], of compression blocks
    children: Tensor | None,  # int32 [s, c], see `Blocks`, counted within the item
    topk: int,
) -> Tensor:  # int32 [n, G, topk]: selection blocks, ascending; -1 where an item has fewer
    """The best selection blocks of each query; of equal ones those that come first."""
    if children is not None:
        held = scores.index_select(2, children.clamp(min=0).flatten().long())
        held = held.unflatten(2, children.shape)
        scores = torch.where(children >= 0, held, 0).sum(3)
    taken = min(topk, scores.shape[2])
    best = scores.sort(dim=2, descending=True, stable=True).indices[..., :taken]
    ascending = best.sort(dim=2).values.int().transpose(0, 1)
    return torch.nn.functional.pad(ascending, (0, topk - taken), value=-1)


def selected_attention(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [N, G, D]
    v: Tensor,  # [N, G, D]
    chosen: Tensor,  # int32 [N, G, topk]
    blocks: Blocks,
) -> Tensor:  # [N, H, D]
    width = chosen.shape[2] * blocks.largest * max(q.shape[1], 2 * q.shape[2] * k.shape[1])
    step = max(1, HELD // max(1, width))
    parts = [
        attend_to_chosen(part, k, v, picked, blocks).to(q.dtype)
        for part, picked in zip(q.split(step), chosen.split(step), strict=True)
    ]
    return torch.cat(parts)


def attend_to_chosen(
    q: Tensor,  # [n, H, D]
    k: Tensor,  # [N, G, D]
    v: Tensor,  # [N, G, D]
    chosen: Tensor,  # int32 [n, G, topk]
    blocks: Blocks,
) -> Tensor:  # [n, H, D]
    """Every query attends to all rows of its blocks; each block is padded to the largest."""
    grouped = wide(q).unflatten(1, (k.shape[1], -1))
    chosen = chosen.transpose(0, 1)
    which, place = chosen.clamp(min=0).long(), torch.arange(blocks.largest, device=q.device)
    rows = blocks.starts[which][..., None] + place
    there = (rows < blocks.starts[which + 1][..., None]) & (chosen >= 0)[..., None]
    rows = rows.clamp(max=max(len(k) - 1, 0)).flatten(2)  # [G, n, topk * largest]
    outs = []
    for head, (at, real) in enumerate(zip(rows, there.flatten(2), strict=True)):
        keys, values = wide(k)[at, head], wide(v)[at, head]
        scores = torch.einsum("nhd,nld->nhl", grouped[:, head], keys) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~real[:, None], -torch.inf).softmax(-1)
        outs.append(torch.einsum("nhl,nld->nhd", weights, values))
    return torch.cat(outs, dim=1)


def window_attention(
    q: Tensor,  # [N, H, D]
    k: Tensor,  # [N, G, D]
    v: Tensor,  # [N, G, D]
    windows: Partition,
) -> Tensor:  # [N, H, D]
    share = q.shape[1] // k.shape[1]
    queries = wide(q).index_select(0, windows.order)
    keys, values = (
        wide(x).index_select(0, windows.order).repeat_interleave(share, dim=1) for x in (k, v)
    )
    out = attend_varlen(queries, keys, values, windows.windows, windows.windows)
    return out.index_select(0, windows.back).to(q.dtype)


def wide(x: Tensor) -> Tensor:
    """Half precision in fp32; fp32 and fp64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
