"""Random sparse tensors for tests, and the dense fp64 convolution they are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import strategies as st
from torch import Tensor

from models.nn.sites import LIMIT
from models.nn.sparse_tensor import SparseTensor

Size = tuple[int, int, int]


@dataclass
class Grid:
    """A sparse tensor within `extent` voxels that start at `corner`, in fp64."""

    tensor: SparseTensor
    extent: Size
    corner: int
    generator: torch.Generator

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def dense(self) -> Tensor:
        """[B, C, X, Y, Z]"""
        coords = self.tensor.coords - self.tensor.coords.new_tensor([0, *[self.corner] * 3])
        x = SparseTensor(self.tensor.feats, coords, self.tensor.batch_size)
        return x.dense(self.extent)

    def at(self, dense: Tensor, coords: Tensor) -> Tensor:
        """Rows [N, C] of a dense [B, C, X, Y, Z] at coordinates that include the corner."""
        b, x, y, z = coords.long().unbind(1)
        return dense[b, :, x - self.corner, y - self.corner, z - self.corner]

    def weight(self, channels_out: int, size: Size) -> Tensor:
        return self.normal(channels_out, *size, self.tensor.feats.shape[1])


def random_grid(
    seed: int,
    *,
    items: int = 2,
    extent: Size = (6, 5, 7),
    occupancy: float = 0.4,
    channels: int = 3,
    corner: int = 0,
    empty: frozenset[int] = frozenset(),
    shuffled: bool = True,
) -> Grid:
    """Voxels taken at random; the items in `empty` have none; rows within an item in any order."""
    generator = torch.Generator().manual_seed(seed)
    coords = []
    for item in range(items):
        taken = torch.rand(extent, generator=generator) < (0 if item in empty else occupancy)
        voxels = taken.nonzero().int() + corner
        if shuffled:
            voxels = voxels[torch.randperm(len(voxels), generator=generator)]
        coords.append(torch.cat((torch.full((len(voxels), 1), item).int(), voxels), dim=1))
    rows = torch.cat(coords)
    feats = torch.randn(len(rows), channels, generator=generator, dtype=torch.float64)
    return Grid(SparseTensor(feats, rows, items), extent, corner, generator)


extents = st.tuples(*[st.integers(1, 6)] * 3)
odd_sizes = st.tuples(*[st.sampled_from((1, 3, 5))] * 3).filter(lambda size: size != (1, 1, 1))


@st.composite
def grids(draw: st.DrawFn, *, corners: bool = True) -> Grid:
    """Any extent, batches with empty items in any place, the far corner of what is allowed too."""
    items = draw(st.integers(1, 4))
    extent = draw(extents)
    return random_grid(
        draw(st.integers(0, 2**31)),
        items=items,
        extent=extent,
        occupancy=draw(st.sampled_from((0.05, 0.3, 0.7, 1.0))),
        channels=draw(st.integers(1, 4)),
        corner=draw(st.sampled_from((0, 100, LIMIT - max(extent)))) if corners else 0,
        empty=draw(st.frozensets(st.integers(0, items - 1))),
        shuffled=draw(st.booleans()),
    )


def dense_conv(
    dense: Tensor,  # [B, Cin, X, Y, Z]
    weight: Tensor,  # [Cout, KX, KY, KZ, Cin]
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int | Size | None = None,
) -> Tensor:  # [B, Cout, X', Y', Z']
    """F.conv3d; by default padded so that the output has the size of the input."""
    kernel = weight.permute(0, 4, 1, 2, 3)
    around = tuple(k // 2 for k in weight.shape[1:4]) if padding is None else padding
    return F.conv3d(dense, kernel, bias, stride=stride, padding=around)


def close(out: Tensor, expected: Tensor, allowed: float) -> None:
    """No number differs by more. (torch.testing.assert_close loads seconds of distributed code.)"""
    assert out.shape == expected.shape and out.dtype == expected.dtype
    if out.numel():
        assert (out - expected).abs().max() <= allowed
