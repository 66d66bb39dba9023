"""Spatial sparse attention on a GPU, against PyTorch's full attention on the same voxels.

`python benchmarks/spatial_sparse_attention.py [--grid 128] [--mesh MESH.npz ...]`. Voxels are those
that the surface of a mesh passes (arrays `V` [n, 3] and `F` [m, 3], scaled to 0.95 of the grid), or
of a sphere's shell; with `--near`, those around them too, as the latent of Direct3D-S2 has them.
Numbers are random: 32 heads of 32 channels, 2 heads of keys, blocks of 8^3, 8 of them chosen (its
release 1.1), fp16. Times are medians by CUDA events, each after 256 MB were written to clear the L2
cache. Errors are against fp64 on the same numbers, for queries taken at random.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from gpu_clock import milliseconds
from torch import Tensor

from models.image_to_mesh.direct3d_s2.sparse_dit import TORSO, SparseDiT
from models.nn.attention import Window, partition
from models.nn.precision import to_half
from models.nn.sparse_tensor import SparseTensor
from models.nn.spatial_sparse_attention import (
    SpatialSparseAttention,
    blocks_of,
    in_block_order,
    reference,
)
from models.nn.spatial_sparse_attention import triton_attention as fast

CHANNELS, HEADS, GROUPS, WIDTH, SIZE, TOPK = 1024, 32, 2, 32, 8, 8
SAMPLED = 256  # queries compared

REPEATS = 11


def surface(vertices: Tensor, faces: Tensor, grid: int, scale: float, near: bool) -> Tensor:
    """int32 [N, 4]: voxels hit by points spread over the triangles, 60 to a voxel of surface."""
    middle = (vertices.amax(0) + vertices.amin(0)) / 2
    reach = (vertices.amax(0) - vertices.amin(0)).amax() / 2
    corners = (((vertices - middle) / reach * scale + 1) / 2 * grid)[faces]
    edges = corners[:, 1:] - corners[:, :1]
    area = torch.linalg.cross(edges[:, 0], edges[:, 1]).norm(dim=1) / 2
    count = (area * 60).ceil().long()
    of = torch.arange(len(faces), device=faces.device).repeat_interleave(count)
    u = torch.rand(len(of), 2, device=faces.device)
    u = torch.where(u.sum(1, keepdim=True) > 1, 1 - u, u)
    points = corners[of, 0] + (edges[of] * u[..., None]).sum(1)
    if near:
        off = F.normalize(torch.randn_like(points), dim=1) * 0.5
        points = torch.cat((points, points + off))
    voxels = points.floor().long().clamp(0, grid - 1)
    keys = (voxels[:, 0] * grid + voxels[:, 1]) * grid + voxels[:, 2]
    keys = keys.unique()
    columns = (torch.zeros_like(keys), keys // grid**2, keys // grid % grid, keys % grid)
    return torch.stack(columns, dim=1).int()


def sphere(grid: int) -> Tensor:
    axis = torch.arange(grid, device="cuda") - (grid - 1) / 2
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    return F.pad(((radius - 0.45 * grid).abs() < 1).nonzero().int(), (1, 0))


@dataclass
class Layer:
    """A layer with random weights on these voxels, and everything its branches are given."""

    coords: Tensor

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        x = SparseTensor(torch.randn(len(self.coords), CHANNELS, device="cuda"), self.coords)
        self.x, _ = in_block_order(x.to(torch.float16), SIZE)
        self.window = Window(SIZE, SIZE // 2)
        self.module = SpatialSparseAttention(
            CHANNELS, HEADS, GROUPS, WIDTH, SIZE, SIZE, TOPK, self.window, "v1"
        )
        self.module = self.module.half().cuda().eval()
        self.module.intra_block_pe.normal_()
        self.blocks = blocks_of(self.x.sites, SIZE, SIZE)
        self.windows = partition(self.x.sites, self.window)
        n, m = self.blocks.rows.total, self.blocks.compressed.total

        def normal(rows: int, heads: int) -> Tensor:
            return torch.randn(rows, heads, WIDTH, device="cuda").half()

        self.q, self.k, self.v = normal(n, HEADS), normal(n, GROUPS), normal(n, GROUPS)
        self.few_k, self.few_v = normal(m, GROUPS), normal(m, GROUPS)
        self.gates = torch.rand(n, 3, device="cuda").half()
        self.tiles = fast.tiles_for(self.q.device)

    def compression(self) -> tuple[Tensor, Tensor]:
        return fast.compressed_attention(self.q, self.few_k, self.few_v, self.blocks, self.tiles)

    def choice(self, sums: Tensor) -> Tensor:
        return fast.chosen_blocks(self.q, self.few_k, sums, self.blocks, TOPK, self.tiles)

    def selection(self, chosen: Tensor) -> Tensor:
        return fast.selected_attention(self.q, self.k, self.v, chosen, self.blocks, self.tiles)

    def nearby(self) -> Tensor:
        return fast.window_attention(self.q, self.k, self.v, self.windows, self.tiles)

    def whole(self) -> Tensor:
        return fast.spatial_sparse_attention(
            self.q, self.k, self.v, self.few_k, self.few_v, self.gates,
            self.blocks, self.windows, TOPK,
        )  # fmt: skip

    def full(self) -> Tensor:
        """Every voxel attends to all: what spatial sparse attention replaces."""
        share = HEADS // GROUPS
        k, v = (t.repeat_interleave(share, dim=1).transpose(0, 1)[None] for t in (self.k, self.v))
        return F.scaled_dot_product_attention(self.q.transpose(0, 1)[None], k, v)

    def errors(self) -> dict[str, float]:
        """At most, over sampled queries; and how many of those chose other blocks."""
        rows = torch.randperm(len(self.q), device="cuda")[:SAMPLED].sort().values
        q, k, v = (t.double() for t in (self.q[rows], self.k, self.v))
        few = self.few_k.double(), self.few_v.double()
        out, sums = self.compression()
        expected, scores = reference.attend_to_blocks(q, *few)
        chosen = self.choice(sums)
        among = reference.choose(scores, None, TOPK)
        far = reference.attend_to_chosen(q, k, v, among, self.blocks)
        place = self.windows.back[rows]
        lengths = torch.tensor(self.windows.windows.lengths, device="cuda")
        number = torch.arange(len(lengths), device="cuda").repeat_interleave(lengths)
        of_row = number[self.windows.back]
        near = torch.cat([
            reference.attend_to_blocks(q[i : i + 1], k[same], v[same])[0]
            for i in range(len(rows))
            for same in [of_row == number[place[i]]]
        ])  # fmt: skip
        gates = self.gates[rows].double()[:, :, None, None]
        total = gates[:, 0] * expected + gates[:, 1] * far + gates[:, 2] * near
        agree = (chosen[rows] == among).all(2).all(1)

        def most(fast_out: Tensor, exact: Tensor) -> float:
            return (fast_out[rows].double() - exact)[agree].abs().amax().item()

        return {
            "compression": most(out, expected),
            "selection": most(self.selection(chosen), far),
            "window": most(self.nearby(), near),
            "sum": most(self.whole(), total),
            "queries that chose otherwise": float((~agree).sum()),
        }


def report(name: str, coords: Tensor) -> None:
    layer = Layer(coords)
    n, m = len(coords), layer.blocks.compressed.total
    _, sums = layer.compression()
    chosen = layer.choice(sums)
    looked_at = (layer.blocks.starts[chosen.long() + 1] - layer.blocks.starts[chosen.long()]).sum()
    lengths = torch.tensor(layer.windows.windows.lengths, dtype=torch.float64)
    scores = {  # computed, a head of queries each
        "compression": n * m * HEADS,
        "choice": n * m * HEADS,
        "selection": int(looked_at) * (HEADS // GROUPS),
        "window": int((lengths**2).sum()) * HEADS,
    }
    times = {
        "compression": milliseconds(layer.compression, REPEATS),
        "choice": milliseconds(lambda: layer.choice(sums), REPEATS),
        "selection": milliseconds(lambda: layer.selection(chosen), REPEATS),
        "window": milliseconds(layer.nearby, REPEATS),
    }
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    whole = milliseconds(layer.whole, REPEATS)
    extra = (torch.cuda.max_memory_allocated() - held) / 2**20 - 256  # what clears the cache
    module = milliseconds(lambda: layer.module(layer.x), REPEATS)
    full = milliseconds(layer.full, 3)
    print(f"\n{name}: {n:,} voxels, {m:,} blocks, {n / m:.0f} voxels a block")
    print("| | ms | scores, 1e9 | 1e9 scores/ms |\n|---|---|---|---|")
    for branch, ms in times.items():
        made = scores[branch] / 1e9
        print(f"| {branch} | {ms:.2f} | {made:.2f} | {made / ms:.2f} |")
    print(
        f"| all, gated sum included | {whole:.2f} | {sum(scores.values()) / 1e9:.2f} | "
        f"{sum(scores.values()) / whole / 1e9:.2f} |"
    )
    print(f"| the module: projections too | {module:.2f} | | |")
    full_scores = n * n * HEADS / 1e9
    print(f"| SDPA, full attention | {full:.2f} | {full_scores:.1f} | {full_scores / full:.2f} |")
    print(
        f"speed-up {full / whole:.1f}, with projections {full / module:.1f}; "
        f"memory beside inputs {extra:.0f} MiB"
    )
    print({k: float(f"{v:.2g}") for k, v in layer.errors().items()}, flush=True)


def network(coords: Tensor) -> None:
    """A step of release 1.1's flow: 24 blocks, an image of 1,374 tokens, random weights."""
    blocks, tokens = 24, 1374
    flow = SparseDiT(
        128, 16, CHANNELS, CHANNELS, 16, blocks, HEADS, GROUPS, SIZE, SIZE, TOPK, "v1", factor=0.5
    )
    flow = to_half(flow, torch.float16, TORSO).cuda().eval()
    x = SparseTensor(torch.randn(len(coords), 16, device="cuda").half(), coords)
    x, _ = in_block_order(x, SIZE)
    times = torch.full((1,), 500.0, device="cuda")
    contexts = flow.contexts(torch.randn(1, tokens, CHANNELS, device="cuda"))
    flow(x, times, contexts)
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    ms = milliseconds(lambda: flow(x, times, contexts), 3)
    extra = (torch.cuda.max_memory_allocated() - held) / 2**30 - 0.25  # what clears the cache
    weights = 2 + 2 + 8 + (2 * GROUPS * WIDTH + 3) / CHANNELS  # matrices of C x C that rows meet
    products = 2 * blocks * len(coords) * CHANNELS * (weights * CHANNELS + 2 * tokens) / 1e12
    print(
        f"a step of the flow: {ms:.0f} ms, {extra:.2f} GiB beside {held / 2**30:.2f}; "
        f"{products:.0f} TFLOP besides sparse attention"
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", type=int, default=128)
    parser.add_argument("--scale", type=float, default=0.95, help="of the grid's edge")
    parser.add_argument("--near", action="store_true", help="voxels beside the surface too")
    parser.add_argument("--mesh", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    print(torch.cuda.get_device_name())
    for path in options.mesh:
        with np.load(path) as mesh:
            vertices = torch.from_numpy(mesh["V"]).float().cuda()
            faces = torch.from_numpy(mesh["F"]).long().cuda()
        torch.manual_seed(0)
        coords = surface(vertices, faces, options.grid, options.scale, options.near)
        report(path.stem, coords)
        network(coords)
    if not options.mesh:
        report("shell of a sphere", sphere(options.grid))


if __name__ == "__main__":
    main()
