"""Smoothing by a kernel of each voxel's own, as Triton kernels.

Every output reads 27 neighbours and 27 weights once; sums are fp32. No matrix units: they run from
sm_75 up. `adaptive.smoothed` is the same in plain PyTorch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def normed_planes(
    raw,  # [B * V, STRIDE], the first 27 of each count
    planes,  # [B, 27, V]
    voxels,  # V
    STRIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    item = tl.program_id(1).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tap = tl.arange(0, 32)
    there = (voxel < voxels)[:, None] & (tap < 27)[None, :]
    place = (item * voxels + voxel)[:, None] * STRIDE + tap[None, :]
    weights = tl.load(raw + place, there, other=0.0).to(tl.float32)
    total = tl.sum(tl.abs(weights), axis=1)
    weights = weights / tl.maximum(total, 1e-12)[:, None]
    place = (item * 27 + tap)[None, :] * voxels + voxel[:, None]
    tl.store(planes + place, weights.to(planes.dtype.element_ty), there)


@triton.jit
def smooth(
    x,  # [B, X, Y, Z, C]
    planes,  # [B, 27, X, Y, Z]
    out,  # [B, X, Y, Z, C]
    size_x,
    size_y,
    size_z,
    C: tl.constexpr,
    BLOCK: tl.constexpr,  # voxels of a program
    CHANNELS: tl.constexpr,  # a power of two, C at least
):
    item = tl.program_id(1).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    voxels = size_x * size_y * size_z
    z = voxel % size_z
    y = voxel // size_z % size_y
    at_x = voxel // (size_z * size_y)
    channel = tl.arange(0, CHANNELS)
    known = (channel < C)[None, :]
    total = tl.zeros((BLOCK, CHANNELS), tl.float32)
    for tap in tl.static_range(27):
        dx = tap // 9 - 1
        dy = tap // 3 % 3 - 1
        dz = tap % 3 - 1
        inside = (at_x + dx >= 0) & (at_x + dx < size_x) & (y + dy >= 0) & (y + dy < size_y)
        inside = inside & (z + dz >= 0) & (z + dz < size_z) & (voxel < voxels)
        weight = tl.load(planes + (item * 27 + tap) * voxels + voxel, voxel < voxels, other=0.0)
        near = item * voxels + voxel + (dx * size_y + dy) * size_z + dz
        place = near[:, None] * C + channel[None, :]
        value = tl.load(x + place, inside[:, None] & known, other=0.0)
        total += value.to(tl.float32) * weight.to(tl.float32)[:, None]
    place = (item * voxels + voxel)[:, None] * C + channel[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), (voxel < voxels)[:, None] & known)
