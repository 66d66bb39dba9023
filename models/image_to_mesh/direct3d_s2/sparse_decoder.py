"""The decoder of the sparse autoencoder: each latent voxel becomes 8^3 voxels of signed distance.

A few windowed transformer blocks, then three subdivisions with convolutions. It knows no flow and
no mesh. A grid too large for one go is decoded chunk by chunk; every latent voxel is decoded in the
one chunk that owns it, so no voxel comes twice. The reference lets chunks overlap by seven voxels
and keeps what is written last, which is the same value in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.image_to_mesh.direct3d_s2.blocks import EDGE, VOXELS, Blocks, from_children
from models.image_to_mesh.direct3d_s2.sparse_torso import SparseTorso
from models.image_to_mesh.direct3d_s2.subdivided_conv import subdivided_conv
from models.nn.sites import Sites
from models.nn.sparse_conv import SparseConv3d
from models.nn.sparse_tensor import SparseTensor

PADDING = 3
"""Latent voxels around a chunk: convolutions reach 1 + 1/2 + 1/2 + 1/4 + 1/4 + 1/8 of one."""
ROWS_AT_ONCE = 1 << 22
"""Voxels that go through `head` together."""

Head = Callable[[Tensor], Tensor]
"""What else is wanted of the features of a voxel: [n, C / 16] -> [n, K]."""


@dataclass(frozen=True)
class Decoded:
    """sdf: one channel, -1 to 1; extra: what `head` made of the features, K channels."""

    sdf: Blocks
    extra: Blocks | None = None


class SdfDecoder(SparseTorso):
    def __init__(
        self,
        resolution: int,  # of the latent grid
        model_channels: int,
        latent_channels: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: float = 4,
        out_channels: int = 1,
        chunk_size: int = 1,  # chunks along each axis
    ) -> None:
        super().__init__(latent_channels, model_channels, num_blocks, num_heads, mlp_ratio)
        self.resolution = resolution
        self.chunk_size = chunk_size
        widths = [model_channels // n for n in (1, 4, 8, 16)]
        self.upsample = nn.ModuleList(
            _Subdivide(wide, narrow) for wide, narrow in zip(widths, widths[1:], strict=False)
        )
        self.out_layer = nn.Linear(widths[-1], out_channels)

    def forward(
        self,
        latent: SparseTensor,  # [N, latent_channels], one batch item
        head: Head | None = None,
        factor: float = 1.0,
    ) -> Decoded:
        """Blocks in the order of the latent's rows, in the torso's dtype."""
        h = self.features(latent, factor)
        cells = latent.coords[:, 1:].contiguous()
        sdf, extra = _Rows(len(cells)), _Rows(len(cells))
        for chunk, rows, owned in self._chunks(h):
            voxels = self._voxels(chunk).view(-1, VOXELS, self.out_layer.in_features)
            voxels = (voxels if bool(owned.all()) else voxels[owned]).flatten(0, 1)
            rows = rows[owned]
            sdf.put(rows, torch.tanh(self.out_layer(voxels)))
            if head is not None:
                extra.put(rows, torch.cat([head(part) for part in voxels.split(ROWS_AT_ONCE)]))
        size = self.out_resolution
        decoded = from_children(cells, sdf.filled(), size)
        if head is None:
            return Decoded(decoded)
        return Decoded(decoded, from_children(cells, extra.filled(), size))

    @property
    def out_resolution(self) -> int:
        """Voxels along the grid that is decoded."""
        return self.resolution * EDGE

    def _voxels(self, h: SparseTensor) -> Tensor:
        """[N, C] -> [N * 512, C / 16]."""
        for block in self.upsample:
            h = block(h)
        return h.feats

    def _chunks(self, h: SparseTensor) -> Iterator[tuple[SparseTensor, Tensor, Tensor]]:
        """Each with what surrounds it: features, their rows int64 [n], which it owns bool [n]."""
        every = torch.arange(len(h.sites), device=h.device)
        if self.chunk_size == 1:
            yield h, every, torch.ones_like(every, dtype=torch.bool)
            return
        size = -(-self.resolution // self.chunk_size)
        place = h.coords[:, 1:]
        for chunk in product(range(self.chunk_size), repeat=3):
            low = place.new_tensor(chunk) * size
            near = (place >= low - PADDING) & (place < low + size + PADDING)
            rows = near.all(dim=1).nonzero().flatten()
            owned = ((place[rows] >= low) & (place[rows] < low + size)).all(dim=1)
            if bool(owned.any()):
                yield SparseTensor.on(h.feats[rows], Sites(h.coords[rows], 1)), rows, owned


class _Rows:
    """[T, 512, C], filled some rows at a time; made when the first come."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.values: Tensor | None = None

    def put(self, rows: Tensor, voxels: Tensor) -> None:  # int64 [t], [t * 512, C]
        values = voxels.view(len(rows), VOXELS, -1)
        if len(rows) == self.count:
            self.values = values
            return
        if self.values is None:
            self.values = values.new_empty(self.count, *values.shape[1:])
        self.values[rows] = values

    def filled(self) -> Tensor:  # [T * 512, C]
        if self.values is None:
            raise ValueError("There is no latent voxel to decode.")
        return self.values.flatten(0, 1)


class _Subdivide(nn.Module):
    """Convolution and SiLU on the parents, then on their eight children."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()

        def layer(width: int) -> nn.ModuleList:
            return nn.ModuleList([SparseConv3d(width, out_channels, 3, layout="torchsparse")])

        self.act_layers = layer(channels)
        self.out_layers = layer(out_channels)

    def forward(self, x: SparseTensor) -> SparseTensor:  # [N, C] -> [N * 8, C']
        h = self.act_layers[0](x)
        h = h.replace(F.silu(h.feats, inplace=True))
        stored = cast(SparseConv3d, self.out_layers[0]).conv
        out = subdivided_conv(h, stored.engine_weight, stored.bias)
        return out.replace(F.silu(out.feats, inplace=True))
