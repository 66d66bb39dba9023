"""Sparse convolution on a GPU: kernel map, and 3^3 layers by Triton against gather-GEMM-scatter.

`python benchmarks/sparse_conv_gpu.py [--tune PLANS.json]`. TFLOP/s counts 2 * pairs * Cin * Cout,
pairs being the neighbours that exist, the voxel itself included: what a tile computes in vain
earns nothing. Times are medians of 21 by CUDA events, each after 256 MB were written to clear the
L2 cache; the gather is part of them, the kernel map is not. Features and weights are random.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from gpu_clock import milliseconds
from torch import Tensor

from models.nn.sites import Sites
from models.nn.sparse_conv import triton_tuning
from models.nn.sparse_conv.kernel_map import KernelMap, submanifold_map
from models.nn.sparse_conv.triton_conv import arrangement_of, convolve, tune

# Shells of a sphere, as a voxelised surface is: grid, radius and thickness in voxels.
SHELLS = {
    "220k": (256, 100.0, 1.75),
    "5k": (32, 14.0, 2.03),
    "20k": (64, 28.0, 2.03),
    "160k": (128, 50.0, 5.1),
    "1.28M": (256, 100.0, 10.2),
}
HALF, SINGLE = torch.float16, torch.float32
LAYERS = [
    *[("220k", c, c, HALF) for c in (96, 192, 256, 512)],
    ("220k", 256, 256, torch.bfloat16),
    ("220k", 128, 128, SINGLE),
    *[("5k", c, c, HALF) for c in (128, 1024)],
    *[("20k", c, c, HALF) for c in (128, 1024)],
    *[("160k", 768, 192, HALF), ("1.28M", 192, 96, HALF), ("1.28M", 96, 96, HALF)],
]

REPEATS = 21


def shell(size: int, radius: float, thickness: float) -> Tensor:
    """int32 [N, 4] of (b, x, y, z), ascending."""
    axis = torch.arange(size, device="cuda") - (size - 1) / 2
    squares = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    voxels = ((squares.sqrt() - radius).abs() < thickness / 2).nonzero().int()
    return torch.nn.functional.pad(voxels, (1, 0))


class GatherGemmScatter:
    """One matrix product an offset, what it reads and where it adds found beforehand."""

    def __init__(self, kernel_map: KernelMap, weight: Tensor, bias: Tensor) -> None:
        self.to = [(rows >= 0).nonzero().squeeze(1) for rows in kernel_map.neighbours]
        pairs = zip(kernel_map.neighbours, self.to, strict=True)
        self.source = [rows[to].long() for rows, to in pairs]
        self.matrices = weight.flatten(1, 3).permute(1, 2, 0).contiguous()
        self.bias, self.n = bias, kernel_map.n_out

    def __call__(self, feats: Tensor) -> Tensor:
        out = self.bias.repeat(self.n, 1)
        for to, source, matrix in zip(self.to, self.source, self.matrices, strict=True):
            out.index_add_(0, to, feats[source] @ matrix)
        return out


def layer_row(name: str, kernel_map: KernelMap, into: int, out: int, dtype: torch.dtype) -> str:
    feats = torch.randn(kernel_map.n_in, into, device="cuda").to(dtype)
    weight = (torch.randn(out, 3, 3, 3, into, device="cuda") / (16 * into) ** 0.5).to(dtype)
    bias = torch.randn(out, device="cuda").to(dtype)
    peer = GatherGemmScatter(kernel_map, weight, bias)
    ours = milliseconds(lambda: convolve(feats, weight, bias, kernel_map), REPEATS)
    theirs = milliseconds(lambda: peer(feats), 7)
    work = 2 * sum(len(to) for to in peer.to) * into * out / 1e9
    kind = str(dtype).removeprefix("torch.")
    return (
        f"| {name}, {into} → {out}, {kind} | {ours:.3f} | {work / ours:.0f} "
        f"| {theirs:.3f} | {work / theirs:.0f} |"
    )


def map_row(name: str, coords: Tensor) -> str:
    def build(by_triton: bool) -> KernelMap:
        return submanifold_map(Sites(coords, 1), (3, 3, 3), by_triton)

    found = milliseconds(lambda: build(True), REPEATS)
    whole = milliseconds(lambda: arrangement_of(build(True)), REPEATS)
    neighbours = (build(True).neighbours >= 0).sum() / len(coords)
    return (
        f"| {name} ({len(coords):,} voxels, {neighbours:.1f} neighbours) | {found:.2f} "
        f"| {whole:.2f} | {milliseconds(lambda: build(False), REPEATS):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", type=Path, help="measure plans first, and write them here")
    options = parser.parse_args()
    clouds = {name: shell(*numbers) for name, numbers in SHELLS.items()}
    square = torch.randn(8192, 8192, device="cuda", dtype=HALF)
    dense = 2 * 8192**3 / milliseconds(lambda: square @ square, REPEATS) / 1e9
    print(f"{torch.cuda.get_device_name()}; dense fp16 product of 8192^3: {dense:.0f} TFLOP/s\n")

    print("| kernel map, ms | Triton | with the order of rows | PyTorch |\n|---|---|---|---|")
    for name, coords in clouds.items():
        print(map_row(name, coords))
    maps = {name: submanifold_map(Sites(c, 1), (3, 3, 3), True) for name, c in clouds.items()}
    if options.tune:
        for name, into, out, dtype in LAYERS:
            feats = torch.randn(maps[name].n_in, into, device="cuda").to(dtype)
            tune(feats, torch.randn(out, 3, 3, 3, into, device="cuda").to(dtype), maps[name])
        triton_tuning.save_plans(options.tune)

    print("\n| layer | ms | TFLOP/s | gather-GEMM-scatter, ms | TFLOP/s |\n|---|---|---|---|---|")
    for name, into, out, dtype in LAYERS:
        print(layer_row(name, maps[name], into, out, dtype), flush=True)


if __name__ == "__main__":
    main()
