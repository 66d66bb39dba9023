"""A sparse tensor: features [N, C] on integer voxels of a batch of grids.

It does not know how it is convolved or attended to; it holds rows, and the sites that many tensors
share. What is computed from coordinates alone is cached there (`x.sites.cached`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.nn.sites import Sites, check_coords


class SparseTensor:
    """Features and where they are.

    feats:  [N, C], any dtype.
    coords: int32 [N, 4] of (b, x, y, z), values in [0, 2^15); rows of a batch item lie together,
            items ascend, each voxel once (checked when the first kernel map is built).
    batch_size: needed only where the last items are empty.
    scale:  edge of a voxel; 1 where a network begins, 2 after one halving.
    finer:  sites this tensor was pooled from, the last pooling last; un-pooling returns there.
    """

    def __init__(
        self,
        feats: Tensor,  # [N, C]
        coords: Tensor,  # int32 [N, 4]
        batch_size: int | None = None,
        *,
        scale: float = 1,
    ) -> None:
        items = check_coords(coords, batch_size)
        self._place(feats, Sites(coords, items, scale), ())

    @classmethod
    def on(cls, feats: Tensor, sites: Sites, finer: tuple[Sites, ...] = ()) -> SparseTensor:
        """Features [N, C] on sites that exist already: shares what is cached there."""
        tensor = cls.__new__(cls)
        tensor._place(feats, sites, finer)
        return tensor

    def _place(self, feats: Tensor, sites: Sites, finer: tuple[Sites, ...]) -> None:
        if feats.ndim != 2 or feats.shape[0] != len(sites):
            raise ValueError(f"feats must be [{len(sites)}, C], not {list(feats.shape)}.")
        if feats.device != sites.coords.device:
            raise ValueError(f"feats are on {feats.device}, coords on {sites.coords.device}.")
        self.feats = feats
        self.sites = sites
        self.finer = finer

    def __repr__(self) -> str:
        n, c = self.feats.shape
        return (
            f"SparseTensor({n} voxels x {c} channels, {self.dtype}, {self.device}, "
            f"batch {self.batch_size}, scale {self.scale})"
        )

    # -- where it is ---------------------------------------------------------------------------

    @property
    def coords(self) -> Tensor:
        """int32 [N, 4] of (b, x, y, z)."""
        return self.sites.coords

    @property
    def batch_size(self) -> int:
        return self.sites.batch_size

    @property
    def scale(self) -> float:
        return self.sites.scale

    @property
    def layout(self) -> list[slice]:
        """The rows of each batch item; an empty item has an empty slice."""
        return self.sites.layout

    @property
    def counts(self) -> list[int]:
        """The number of rows of each batch item."""
        return self.sites.counts

    @property
    def device(self) -> torch.device:
        return self.feats.device

    @property
    def dtype(self) -> torch.dtype:
        return self.feats.dtype

    # -- the same place, other features --------------------------------------------------------

    def replace(self, feats: Tensor) -> SparseTensor:
        """Features [N, C'] in the place of these; coordinates and their cache are shared."""
        return SparseTensor.on(feats, self.sites, self.finer)

    def to(self, target: torch.dtype | torch.device | str) -> SparseTensor:
        """Another dtype on the same sites, or another device: there nothing is cached or pooled."""
        if isinstance(target, torch.dtype):
            return self if target == self.dtype else self.replace(self.feats.to(target))
        if torch.device(target) == self.device:
            return self

        def moved(sites: Sites) -> Sites:
            return Sites(sites.coords.to(target), sites.batch_size, sites.scale)

        return SparseTensor.on(self.feats.to(target), moved(self.sites))

    def same_sites(self, other: SparseTensor) -> None:
        """Raise ValueError unless both live on the same sites, row by row."""
        if self.sites is other.sites:
            return
        if self.coords.shape != other.coords.shape or not torch.equal(self.coords, other.coords):
            raise ValueError(f"{self!r} and {other!r} do not lie on the same voxels.")

    def __add__(self, other: SparseTensor) -> SparseTensor:
        self.same_sites(other)
        return self.replace(self.feats + other.feats)

    # -- batches and dense grids ---------------------------------------------------------------

    def items(self) -> list[SparseTensor]:
        """One tensor for each batch item, numbered 0."""
        parts = []
        for rows in self.layout:
            coords = self.coords[rows].clone()
            coords[:, 0] = 0
            parts.append(SparseTensor.on(self.feats[rows], Sites(coords, 1, self.scale)))
        return parts

    @staticmethod
    def cat(tensors: Sequence[SparseTensor]) -> SparseTensor:
        """All items of all tensors as one batch, in order."""
        if not tensors:
            raise ValueError("cat needs at least one tensor.")
        first, coords = 0, []
        for tensor in tensors:
            if tensor.scale != tensors[0].scale:
                raise ValueError(f"Scales differ: {tensor.scale} and {tensors[0].scale}.")
            coords.append(tensor.coords + tensor.coords.new_tensor([first, 0, 0, 0]))
            first += tensor.batch_size
        sites = Sites(torch.cat(coords), first, tensors[0].scale)
        return SparseTensor.on(torch.cat([tensor.feats for tensor in tensors]), sites)

    def dense(self, extent: tuple[int, int, int]) -> Tensor:
        """[B, C, X, Y, Z], zero where no voxel is."""
        grid = self.feats.new_zeros((self.batch_size, *extent, self.feats.shape[1]))
        b, x, y, z = self.coords.long().unbind(1)
        grid[b, x, y, z] = self.feats
        return grid.permute(0, 4, 1, 2, 3)
