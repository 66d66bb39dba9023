"""The refiner of the 512^3 grid: signed distances and features of blocks to a closed field.

It works on 27 overlapping patches of the grid and blends them; patches without a block are outside
and are not computed. It knows no flow and no triangle. What is dense is one patch with eight
channels, and the result: one number a voxel, 268 MB in half precision. The reference holds 32
channels of the whole grid, 8.6 GB; the small network that makes eight of them is applied to voxels
before they become a grid, which is the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.image_to_mesh.direct3d_s2.adaptive import adaptive_block, adaptive_kernel
from models.image_to_mesh.direct3d_s2.blocks import EDGE, patch_starts
from models.image_to_mesh.direct3d_s2.conv3d import Conv3d
from models.image_to_mesh.direct3d_s2.sparse_decoder import Decoded
from models.image_to_mesh.direct3d_s2.unet3d import UNet3d

WIDTH = 8
UNET_WIDTHS = (8, 32, 128, 512)
OnPatch = Callable[[int, int], None]
"""Called when so many patches of so many are done; what it raises ends the work."""


class Refiner(nn.Module):
    """resolution: of the grid, patch_size: of a patch, both in voxels."""

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        layers_per_block: int = 2,
        layers_mid_block: int = 2,
        patch_size: int = 192,
        resolution: int = 512,
        feature_channels: int = 32,
        widths: tuple[int, ...] = UNET_WIDTHS,
    ) -> None:
        super().__init__()
        self.unet3d1 = UNet3d(2 * WIDTH, widths, layers_per_block, layers_mid_block)
        self.conv_in = Conv3d(in_channels, WIDTH, 3, padding=1)
        self.latent_mlp = _VoxelNetwork(feature_channels, WIDTH)
        self.adaptive_conv1 = adaptive_kernel(WIDTH)
        self.adaptive_conv2 = adaptive_kernel(WIDTH)
        self.adaptive_conv3 = adaptive_kernel(WIDTH)
        self.mid_conv = Conv3d(WIDTH, WIDTH, 3, padding=1)
        self.conv_out = Conv3d(WIDTH, out_channels, 3, padding=1)
        self.patch_size = patch_size
        self.resolution = resolution

    def head(self, features: Tensor) -> Tensor:
        """What the refiner takes of a voxel's features: [n, feature_channels] -> [n, 8]."""
        out: Tensor = self.latent_mlp(features)
        return out

    def patch(
        self,
        sdf: Tensor,  # [1, 1, S, S, S]
        features: Tensor,  # [1, 8, S, S, S], after `head`
    ) -> Tensor:  # [1, 1, S, S, S]
        h = self.unet3d1(torch.cat((self.conv_in(sdf), features), dim=1))
        h = self.mid_conv(adaptive_block(h, self.adaptive_conv1))
        h = adaptive_block(h, self.adaptive_conv2)
        out = adaptive_block(self.conv_out(h), self.adaptive_conv3, guide=h)
        return torch.tanh(out)

    def forward(
        self,
        decoded: Decoded,  # its features after `head`
        on_patch: OnPatch = lambda done, total: None,
    ) -> Tensor:  # [R, R, R], the distance of every voxel; 1 in patches without a block
        sdf, features = decoded.sdf, decoded.extra
        if features is None:
            raise ValueError("the refiner needs the features that its `head` made")
        dtype = self.conv_in.weight.dtype
        field = sdf.values.new_zeros((self.resolution,) * 3, dtype=dtype)
        far = field.new_ones(1)
        empty = self.head(field.new_zeros(1, self.latent_mlp.in_features))[0]
        size = self.patch_size // EDGE
        starts = patch_starts(sdf.side, size)
        ramps = _ramps(self.resolution, self.patch_size, field)
        for done, start in enumerate(starts, 1):
            x, y, z = (ramps[first] for first in start)
            refined = x[:, None, None] * y[:, None] * z
            distances, known = sdf.patch(start, size, far), features.patch(start, size, empty)
            if distances is not None and known is not None:
                refined *= self.patch(distances[None].to(dtype), known[None].to(dtype))[0, 0]
            place = tuple(slice(n * EDGE, n * EDGE + self.patch_size) for n in start)
            field[place] += refined
            on_patch(done, len(starts))
        return field


def _ramps(resolution: int, size: int, like: Tensor) -> dict[int, Tensor]:
    """Shares of a patch along an axis, [S], by its first block: patches fade over their overlap."""
    stride = (resolution - size) // 2
    rise = torch.linspace(0, 1, size - stride, dtype=like.dtype, device=like.device)
    shares = {}
    for index in range(3):
        share = like.new_ones(size)
        if index > 0:
            share[: size - stride] *= rise
        if index < 2:
            share[stride:] *= 1 - rise
        shares[index * stride // EDGE] = share
    return shares


class _VoxelNetwork(nn.Module):
    """Four linear layers with ReLU between, on each voxel by itself."""

    def __init__(self, channels: int, out_channels: int, hidden: int = 32) -> None:
        super().__init__()
        self.in_features = channels
        self.net = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out
