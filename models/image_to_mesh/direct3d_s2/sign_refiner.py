"""The refiner of the 1024^3 grid: which side of the surface the voxels lie on that have no value.

Signed distances are known on blocks alone. Pooled to half the resolution and seen patch by patch,
they tell a network where inside is; the distances themselves stay as they are. It knows no flow and
no triangle.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.image_to_mesh.direct3d_s2.blocks import EDGE, Blocks, patch_starts
from models.image_to_mesh.direct3d_s2.conv3d import Conv3d
from models.image_to_mesh.direct3d_s2.near_surface import OUTSIDE
from models.image_to_mesh.direct3d_s2.refiner import UNET_WIDTHS, WIDTH, OnPatch
from models.image_to_mesh.direct3d_s2.unet3d import UNet3d

POOLED = EDGE // 2


class SignRefiner(nn.Module):
    """resolution: of the pooled grid, patch_size: of a patch of it, both in voxels."""

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        layers_per_block: int = 2,
        layers_mid_block: int = 2,
        patch_size: int = 256,
        resolution: int = 512,
        widths: tuple[int, ...] = UNET_WIDTHS,
    ) -> None:
        super().__init__()
        self.unet3d1 = UNet3d(WIDTH, widths, layers_per_block, layers_mid_block)
        self.conv_in = Conv3d(in_channels, WIDTH, 3, padding=1)
        self.conv_out = Conv3d(WIDTH, out_channels, 3, padding=1)
        self.patch_size = patch_size
        self.resolution = resolution

    def patch(self, sdf: Tensor) -> Tensor:
        """[1, 1, S, S, S] -> the same: above 0 outside, below 0 inside."""
        out: Tensor = self.conv_out(self.unet3d1(self.conv_in(sdf)))
        return out

    def forward(
        self,
        sdf: Blocks,  # one channel, of twice the resolution
        on_patch: OnPatch = lambda done, total: None,
    ) -> Tensor:  # int8 [R, R, R]: 1 outside, -1 inside; 1 in patches without a block
        dtype = self.conv_in.weight.dtype
        grid = _pooled(sdf, self.resolution).to(dtype)
        signs = torch.ones_like(grid, dtype=torch.int8)
        starts = patch_starts(self.resolution, self.patch_size)
        for done, start in enumerate(starts, 1):
            place = tuple(slice(low, low + self.patch_size) for low in start)
            seen = grid[place]
            if bool((seen != OUTSIDE).any()):  # later patches win, as the reference has it
                signs[place] = torch.where(self.patch(seen[None, None])[0, 0] >= 0, 1, -1).to(
                    torch.int8
                )
            on_patch(done, len(starts))
        return signs


def _pooled(sdf: Blocks, resolution: int) -> Tensor:
    """[R, R, R]: eight voxels as one, their sum divided by nine as in training; else OUTSIDE."""
    parts = sdf.values.float().view(len(sdf), POOLED, 2, POOLED, 2, POOLED, 2)
    means = parts.sum(dim=(2, 4, 6)) / 9
    grid = sdf.values.new_full((sdf.side, sdf.side, sdf.side, *[POOLED] * 3), OUTSIDE)
    x, y, z = sdf.cells.long().unbind(1)
    grid[x, y, z] = means.to(grid.dtype)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape((resolution,) * 3)
