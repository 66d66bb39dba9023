"""One round of smoothing by a kernel of each voxel's own, as a Triton kernel.

Every output reads 27 neighbours and 27 weights once; sums are fp32. It uses no matrix units and no
shared memory: it runs from sm_75 up. `adaptive.smoothed_by_taps` is the same in plain PyTorch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def smooth(
    x,  # [B, C, X, Y, Z]
    weights,  # [B, 27, X, Y, Z]
    out,  # [B, C, X, Y, Z]
    channels,
    size_x,
    size_y,
    size_z,
    BLOCK: tl.constexpr,  # voxels of a program
    CHANNELS: tl.constexpr,  # a power of two, channels at least
):
    item = tl.program_id(1).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    voxels = size_x * size_y * size_z
    z = voxel % size_z
    y = voxel // size_z % size_y
    at_x = voxel // (size_z * size_y)
    channel = tl.arange(0, CHANNELS)
    rows = (item * channels + channel).to(tl.int64)[:, None] * voxels
    known = (channel < channels)[:, None]
    total = tl.zeros((CHANNELS, BLOCK), tl.float32)
    for tap in tl.static_range(27):
        dx = tap // 9 - 1
        dy = tap // 3 % 3 - 1
        dz = tap % 3 - 1
        inside = (at_x + dx >= 0) & (at_x + dx < size_x) & (y + dy >= 0) & (y + dy < size_y)
        inside = inside & (z + dz >= 0) & (z + dz < size_z) & (voxel < voxels)
        weight = tl.load(weights + (item * 27 + tap) * voxels + voxel, voxel < voxels, other=0.0)
        step = (dx * size_y + dy) * size_z + dz
        value = tl.load(x + rows + (voxel + step)[None, :], inside[None, :] & known, other=0.0)
        total += value.to(tl.float32) * weight.to(tl.float32)[None, :]
    keep = (voxel < voxels)[None, :] & known
    tl.store(out + rows + voxel[None, :], total.to(out.dtype.element_ty), keep)
