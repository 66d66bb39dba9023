"""Kernel maps: which input row meets which weight for each output row of a sparse convolution.

They know coordinates, no features and no backend. Found by sorting 64-bit keys and binary search,
in torch alone, so the same code runs on CPU and on every GPU; cached on the sites they start from.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import product
from typing import TypeVar, cast

import torch
from torch import Tensor

from models.nn.sites import LIMIT, Sites, key_offset, pack, unpack

T = TypeVar("T")
Size = tuple[int, int, int]

_QUERIES_AT_ONCE = 1 << 23  # keys of one search: 64 MB, and a few temporaries of that size


class KernelMap:
    """For each weight offset v = (kx * KY + ky) * KZ + kz and each output row, the input row.

    neighbours:  int32 [V, N_out], -1 where the offset meets no voxel; a row is contiguous.
    kernel_size: (KX, KY, KZ), V = KX * KY * KZ.
    n_in:        number of input rows.

    For one v no input row occurs twice. A backend keeps what it derives in `cached`: the map lives
    as long as the sites, so this is paid once for all layers on them.
    """

    def __init__(self, neighbours: Tensor, kernel_size: Size, n_in: int) -> None:
        self.neighbours = neighbours
        self.kernel_size = kernel_size
        self.n_in = n_in
        self._cache: dict[Hashable, object] = {}

    @property
    def volume(self) -> int:
        return self.neighbours.shape[0]

    @property
    def n_out(self) -> int:
        return self.neighbours.shape[1]

    def cached(self, key: Hashable, build: Callable[[], T]) -> T:
        """The value under `key`, built on first use. Start `key` with the backend's name."""
        if key not in self._cache:
            self._cache[key] = build()
        return cast(T, self._cache[key])

    def transposed(self) -> KernelMap:
        """Input and output exchanged: the map of the inverse convolution."""
        return self.cached("transposed", self._transpose)

    def _transpose(self) -> KernelMap:
        flipped = _invert(self.neighbours, self.n_in)
        return KernelMap(flipped, self.kernel_size, self.n_out)


def _invert(
    neighbours: Tensor,  # int32 [V, N_out]
    n_in: int,
) -> Tensor:  # int32 [V, n_in]
    """Where row v maps i to j >= 0, the result maps j to i; -1 elsewhere. Asks the device nothing.

    The -1 are sent to one column more, which is dropped.
    """
    volume, n_out = neighbours.shape
    target = torch.where(neighbours < 0, n_in, neighbours).long()
    rows = torch.arange(n_out, dtype=torch.int32, device=neighbours.device)
    inverse = neighbours.new_full((volume, n_in + 1), -1)
    inverse.scatter_(1, target, rows.expand(volume, n_out))
    return inverse[:, :n_in].contiguous()


def submanifold_map(sites: Sites, kernel_size: Size, by_triton: bool = False) -> KernelMap:
    """The map of a submanifold convolution (Graham et al. 2018): outputs are the inputs' sites.

    Output p takes input p + k - size // 2 for each k. by_triton: a 3^3 kernel's map is found by
    one Triton kernel, the same map up to three times as fast. In torch only half of the offsets is
    searched: where i finds j under v, j finds i under the opposite offset V - 1 - v.

    Raises ValueError for an even kernel, which has no centre.
    """
    if any(size % 2 == 0 for size in kernel_size):
        raise ValueError(f"A submanifold kernel must be odd along each axis, not {kernel_size}.")

    def build() -> KernelMap:
        if by_triton and kernel_size == (3, 3, 3) and len(sites):
            return KernelMap(_search_by_triton(sites), kernel_size, len(sites))
        cx, cy, cz = (size // 2 for size in kernel_size)
        offsets = _offsets(kernel_size)
        half = offsets[: len(offsets) // 2]
        steps = [key_offset((x - cx, y - cy, z - cz)) for x, y, z in half]
        first = _search(sites, pack(sites.coords), steps)
        centre = torch.arange(len(sites), dtype=torch.int32, device=sites.coords.device)
        last = _invert(first, len(sites)).flip(0)
        return KernelMap(torch.cat((first, centre[None], last)), kernel_size, len(sites))

    return sites.cached(("submanifold_map", kernel_size), build)


def strided_map(
    sites: Sites, kernel_size: Size, stride: int, padding: int = 0, extent: Size | None = None
) -> tuple[Sites, KernelMap]:
    """Output sites (ascending) and map of a strided convolution.

    Output o takes input o * stride - padding + k; outputs are the voxels that reach at least one
    input. Where the grid ends after `extent` voxels, they lie within the grid that a dense
    convolution gives; None is a grid without end.
    """

    def build() -> tuple[Sites, KernelMap]:
        limits = [LIMIT - 1] * 3
        if extent is not None:
            last = zip(extent, kernel_size, strict=True)
            limits = [(size + 2 * padding - k) // stride for size, k in last]
        steps = [(x - padding, y - padding, z - padding) for x, y, z in _offsets(kernel_size)]
        keys = [_reached(sites.coords, step, stride, limits) for step in steps]
        coords = unpack(torch.unique(torch.cat(keys)))
        outputs = Sites(coords, sites.batch_size, sites.scale * stride)
        first = coords.clone()
        first[:, 1:] *= stride
        found = _search(sites, pack(first), [key_offset(step) for step in steps])
        return outputs, KernelMap(found, kernel_size, len(sites))

    return sites.cached(("strided_map", kernel_size, stride, padding, extent), build)


def _search(
    sites: Sites,
    keys: Tensor,  # int64 [N]
    steps: list[int],  # V of them, added to the keys
) -> Tensor:  # int32 [V, N]: rows, -1 where no site is
    found = torch.empty((len(steps), len(keys)), dtype=torch.int32, device=keys.device)
    moves = torch.tensor(steps, dtype=torch.int64, device=keys.device)
    many = max(1, _QUERIES_AT_ONCE // max(1, len(keys)))
    for start in range(0, len(steps), many):
        stop = start + many
        found[start:stop] = sites.find(keys[None] + moves[start:stop, None])
    return found


def _search_by_triton(sites: Sites) -> Tensor:  # int32 [27, N]
    from models.nn.sparse_conv.triton_map import find_neighbours

    steps = key_offset((1, 0, 0)), key_offset((0, 1, 0))
    with torch.cuda.device_of(sites.coords):
        return find_neighbours(pack(sites.coords), *sites.sorted_keys, *steps)


def _reached(
    coords: Tensor,  # int32 [N, 4]
    step: Size,
    stride: int,
    limits: list[int],
) -> Tensor:  # int64 [M], not unique
    """Keys of the outputs o with o * stride + step in coords, within 0 .. limits."""
    moved = coords[:, 1:] - coords.new_tensor(step)
    out = torch.div(moved, stride, rounding_mode="floor")
    inside = (out * stride == moved) & (out >= 0) & (out <= coords.new_tensor(limits))
    keep = inside.all(dim=1)
    return pack(torch.cat((coords[keep, :1], out[keep]), dim=1))


def _offsets(kernel_size: Size) -> list[Size]:
    """(kx, ky, kz) in the order of the weight's rows, z fastest."""
    return cast(list[Size], list(product(*(range(size) for size in kernel_size))))
