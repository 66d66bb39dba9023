"""Blocks of a voxel grid: the order that keeps each in one run of rows, and where the runs are.

Knows coordinates alone. All of it is kept with the sites: 24 layers and every time step share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.nn.attention import Segments
from models.nn.resample import pooling
from models.nn.sites import Sites, pack
from models.nn.sparse_tensor import SparseTensor


def block_order(
    coords: Tensor,  # int32 [N, 4] of (b, x, y, z)
    size: int,  # edge of a block, in voxels
) -> Tensor:  # int64 [N]: the row at each place
    """Ascending by batch item, then block, then voxel within the block; x before y before z."""
    cubes = coords.clone()
    cubes[:, 1:] = torch.div(coords[:, 1:], size, rounding_mode="floor")
    by_voxel = torch.argsort(pack(coords))
    return by_voxel[torch.argsort(pack(cubes)[by_voxel], stable=True)]


def in_block_order(x: SparseTensor, size: int) -> tuple[SparseTensor, Tensor | None]:
    """The tensor with blocks of `size`^3 in runs, and the place of each row of x.

    x itself, and None, where its rows lie so already, in whatever order within a block.
    """
    found: tuple[Tensor, Tensor, Sites] | None = x.sites.cached(
        ("block_order", size), lambda: _reorder(x.sites, size)
    )
    if found is None:
        return x, None
    order, back, sites = found
    return SparseTensor.on(x.feats.index_select(0, order), sites), back


def _reorder(sites: Sites, size: int) -> tuple[Tensor, Tensor, Sites] | None:
    parent = pooling(sites, size).parent
    if bool((parent[1:] >= parent[:-1]).all()):
        return None
    order = block_order(sites.coords, size)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return order, back, Sites(sites.coords[order], sites.batch_size, sites.scale)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Of sites whose rows lie in block order. Blocks of an item lie in one run too, ascending.

    rows:       of each batch item.
    compressed: compression blocks of each item, M together.
    selectable: selection blocks of each item, S together.
    starts:     int32 [S + 1], the first row of each selection block, then N.
    largest:    rows of the largest selection block.
    children:   int32 [S, c], the compression blocks within each selection block, -1 behind the
                last; None where the two are the same blocks.
    """

    rows: Segments
    compressed: Segments
    selectable: Segments
    starts: Tensor
    largest: int
    children: Tensor | None


def blocks_of(sites: Sites, compression: int, selection: int) -> Blocks:
    """compression, selection: edges in voxels; the second is a multiple of the first."""
    return sites.cached(
        ("blocks", compression, selection), lambda: _find(sites, compression, selection)
    )


def _find(sites: Sites, compression: int, selection: int) -> Blocks:
    chosen = pooling(sites, selection)
    small = pooling(sites, compression).coarse
    children = None
    if compression != selection:
        children = _children(pooling(small, selection // compression).parent, len(chosen.coarse))
    starts = torch.nn.functional.pad(chosen.children.cumsum(0), (1, 0)).int()
    return Blocks(
        Segments(sites.counts),
        Segments(small.counts),
        Segments(chosen.coarse.counts),
        starts,
        int(chosen.children.max()) if len(sites) else 0,
        children,
    )


def _children(
    parent: Tensor,  # int64 [M], in [0, count)
    count: int,
) -> Tensor:  # int32 [count, c]
    order = torch.argsort(parent, stable=True)
    numbers = torch.bincount(parent, minlength=count)
    first = numbers.cumsum(0) - numbers
    rank = torch.arange(len(parent), device=parent.device) - first[parent[order]]
    most = int(numbers.max()) if len(parent) else 0
    table = parent.new_full((count, most), -1)
    table[parent[order], rank] = order
    return table.int()
