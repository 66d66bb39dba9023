"""Coarser and finer sparse tensors: pooling, un-pooling to where it came from, subdivision.

They know no weights. Indices are cached on the sites, so a network run at many time steps on the
same voxels computes them once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from models.nn.sites import LIMIT, Sites, pack, unpack
from models.nn.sparse_tensor import SparseTensor

Mean = Literal["trellis", "true"]
"""How voxels that fall together are averaged.

trellis: sum / (count + 1). TRELLIS 1 and Direct3D-S2 average onto a row of zeros that counts too;
         their checkpoints were trained so.
true:    sum / count, as TRELLIS.2 does.
"""


@dataclass(frozen=True, eq=False)
class Pooling:
    """Which fine rows become one coarse row.

    coarse:   its M sites, ascending.
    parent:   int64 [N], the coarse row of each fine row.
    order:    int64 [N], fine rows grouped by parent.
    children: int64 [M], how many each coarse row has.
    """

    coarse: Sites
    parent: Tensor
    order: Tensor
    children: Tensor


def pooling(sites: Sites, factor: int) -> Pooling:
    """Cells of factor^3 voxels, aligned at 0."""

    def build() -> Pooling:
        cells = sites.coords.clone()
        cells[:, 1:] = torch.div(cells[:, 1:], factor, rounding_mode="floor")
        keys, parent, children = torch.unique(pack(cells), return_inverse=True, return_counts=True)
        coarse = Sites(unpack(keys), sites.batch_size, sites.scale * factor)
        return Pooling(coarse, parent, torch.argsort(parent, stable=True), children)

    return sites.cached(("pooling", factor), build)


def subdivided(sites: Sites, factor: int = 2) -> Sites:
    """All factor^3 children of each voxel, parent after parent, z fastest.

    Raises ValueError where a child would lie beyond what a key holds.
    """

    def build() -> Sites:
        highest = int(sites.coords[:, 1:].amax()) if len(sites) else 0
        if (highest + 1) * factor > LIMIT:
            raise ValueError(
                f"Voxels up to {highest} divided by {factor} would pass {LIMIT - 1}, the last one."
            )
        steps = [(0, *step) for step in product(range(factor), repeat=3)]
        origin = sites.coords * sites.coords.new_tensor([1, factor, factor, factor])
        coords = origin[:, None] + origin.new_tensor(steps)
        return Sites(coords.reshape(-1, 4), sites.batch_size, sites.scale / factor)

    return sites.cached(("subdivided", factor), build)


def downsample(x: SparseTensor, factor: int, mean: Mean) -> SparseTensor:
    """[N, C] -> [M, C]: the mean of each cell, summed in fp32 in an order that never changes."""
    cells = pooling(x.sites, factor)
    grouped = x.feats.index_select(0, cells.order).float()
    # `unsafe` leaves out the check that lengths add up to N, which would wait for the device.
    total = torch.segment_reduce(grouped, "sum", lengths=cells.children, axis=0, unsafe=True)
    counted = cells.children + 1 if mean == "trellis" else cells.children
    feats = (total / counted[:, None]).to(x.dtype)
    return SparseTensor.on(feats, cells.coarse, (*x.finer, x.sites))


def upsample(x: SparseTensor, factor: int) -> SparseTensor:
    """[M, C] -> [N, C]: each voxel that was pooled gets its cell's features. Undoes `downsample`.

    Raises ValueError where x was not pooled by this factor: the voxels to return to are unknown.
    """
    fine = x.finer[-1] if x.finer else None
    cells = None if fine is None else pooling(fine, factor)
    if fine is None or cells is None or cells.coarse is not x.sites:
        raise ValueError(f"{x!r} was not down-sampled by {factor}: nowhere to return to.")
    return SparseTensor.on(x.feats.index_select(0, cells.parent), fine, x.finer[:-1])


def subdivide(x: SparseTensor, factor: int = 2) -> SparseTensor:
    """[N, C] -> [N * factor^3, C]: each child gets its parent's features; see `subdivided`."""
    feats = x.feats.repeat_interleave(factor**3, dim=0)
    return SparseTensor.on(feats, subdivided(x.sites, factor))


class SparseDownsample(nn.Module):
    """`downsample` by a fixed factor. mean has no default: the wrong one loads and runs too."""

    def __init__(self, factor: int, mean: Mean) -> None:
        super().__init__()
        self.factor = factor
        self.mean: Mean = mean

    def forward(self, x: SparseTensor) -> SparseTensor:
        return downsample(x, self.factor, self.mean)


class SparseUpsample(nn.Module):
    """`upsample` by a fixed factor: pairs with the last `SparseDownsample` before it."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: SparseTensor) -> SparseTensor:
        return upsample(x, self.factor)


class SparseSubdivide(nn.Module):
    """`subdivide` into eight."""

    def forward(self, x: SparseTensor) -> SparseTensor:
        return subdivide(x)
