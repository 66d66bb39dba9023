"""The active sites of a sparse tensor: integer coordinates and everything derived from them.

They know no features. Kernel maps, windows and pooling indices depend on coordinates alone, so
they are kept here, built once, and used by every tensor of a network that lives on these sites.
("Active site": Graham et al., 3D Semantic Segmentation with Submanifold Sparse Convolutional
Networks, CVPR 2018.)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")

LIMIT = 1 << 15
"""Coordinates and batch indices lie in [0, LIMIT): four of them fit one int64 key."""

_BIAS = 1 << 14  # keeps a neighbour's key of a site at the border within its own 16 bits
_SHIFTS = (48, 32, 16, 0)


class Sites:
    """N coordinates, int32 [N, 4] of (b, x, y, z); rows of a batch item lie together, in order.

    batch_size: number of items, empty ones included, also at the end.
    scale:      edge of a voxel here; 1 where a network begins, 2 after one halving.
    """

    def __init__(self, coords: Tensor, batch_size: int, scale: float = 1) -> None:
        self.coords = coords
        self.batch_size = batch_size
        self.scale = scale
        self._cache: dict[Hashable, object] = {}

    def __len__(self) -> int:
        return self.coords.shape[0]

    def cached(self, key: Hashable, build: Callable[[], T]) -> T:
        """The value under `key`, built on first use. Start `key` with the name of what it is."""
        if key not in self._cache:
            self._cache[key] = build()
        return cast(T, self._cache[key])

    @property
    def item_index(self) -> Tensor:
        """int64 [N]: the batch item of each row."""
        return self.cached("item_index", lambda: self.coords[:, 0].long())

    @property
    def counts(self) -> list[int]:
        """Rows of each batch item; the device is asked once."""

        def count() -> list[int]:
            per_item = torch.bincount(self.item_index, minlength=self.batch_size)
            return [int(rows) for rows in per_item.tolist()]

        return self.cached("counts", count)

    @property
    def layout(self) -> list[slice]:
        """The rows of each batch item."""
        slices, start = [], 0
        for rows in self.counts:
            slices.append(slice(start, start + rows))
            start += rows
        return slices

    @property
    def sorted_keys(self) -> tuple[Tensor, Tensor]:
        """Ascending int64 keys [N] of all sites, and the row of each [N].

        Raises ValueError where two rows have the same coordinates.
        """

        def sort() -> tuple[Tensor, Tensor]:
            keys, rows = torch.sort(pack(self.coords))
            same = keys[1:] == keys[:-1]
            if bool(same.any()):
                first = int(same.int().argmax())
                a, b = sorted(rows[first : first + 2].tolist())
                raise ValueError(
                    f"Rows {a} and {b} have the same coordinates {self.coords[a].tolist()}: "
                    "a sparse tensor holds each voxel once; merge duplicates first."
                )
            return keys, rows

        return self.cached("sorted_keys", sort)

    def find(self, keys: Tensor) -> Tensor:
        """int64 keys [...] -> int64 [...]: the row of the site of each key, -1 where none is."""
        known, rows = self.sorted_keys
        if len(self) == 0:
            return torch.full_like(keys, -1)
        place = torch.searchsorted(known, keys).clamp_(max=len(self) - 1)
        return torch.where(known[place] == keys, rows[place], -1)


def pack(coords: Tensor) -> Tensor:
    """int [N, 4] of (b, x, y, z) -> int64 keys [N], ascending as (b, x, y, z) do.

    A sum of shifted fields: the key of a site moved by d is its key plus `key_offset(d)`.
    """
    b, x, y, z = (coords[:, axis].long() << shift for axis, shift in enumerate(_SHIFTS))
    return b + x + y + z + key_offset((_BIAS, _BIAS, _BIAS))


def unpack(keys: Tensor) -> Tensor:
    """int64 keys [N] -> int32 [N, 4] of (b, x, y, z): undoes `pack`."""
    fields = [(keys >> shift) & 0xFFFF for shift in _SHIFTS]
    coords = torch.stack(fields, dim=1)
    coords[:, 1:] -= _BIAS
    return coords.int()


def key_offset(step: tuple[int, int, int]) -> int:
    """What a step (dx, dy, dz), each within +-2^14, adds to a key."""
    return sum(d << shift for d, shift in zip(step, _SHIFTS[1:], strict=True))


def check_coords(coords: Tensor, batch_size: int | None) -> int:
    """Raise ValueError unless `coords` may be sites; the number of batch items otherwise."""
    if coords.ndim != 2 or coords.shape[1] != 4 or coords.dtype != torch.int32:
        raise ValueError(
            f"coords must be int32 [N, 4] of (b, x, y, z), not {coords.dtype} {list(coords.shape)}."
        )
    if coords.shape[0] == 0:
        return batch_size or 0
    items = coords[:, 0]
    low, high, last, falls = torch.stack(
        (coords.amin(), coords.amax(), items[-1], (items[1:] < items[:-1]).any().int())
    ).tolist()
    if low < 0 or high >= LIMIT:
        raise ValueError(f"coords run from {low} to {high}; 0 to {LIMIT - 1} are allowed.")
    if falls:
        raise ValueError("coords must list batch items in ascending order, each in one run.")
    if batch_size is not None and last >= batch_size:
        raise ValueError(f"coords name batch item {last}, but batch_size is {batch_size}.")
    return last + 1 if batch_size is None else batch_size
