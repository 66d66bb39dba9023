"""Direct3D-S2 on a GPU, stage by stage: full-size networks, random weights, real shapes between.

    python benchmarks/direct3d_s2_gpu.py --mesh MESH.npz [--tokens-512 30000] [--tokens-1024 100000]
        [--runs 512-offloaded 1024-resident ...] [--version 1.0]

What a stage computes is thrown away, and the next one is given what it would get of a real object:
cells near the surface of a mesh (arrays `V` [n, 3] and `F` [m, 3]), as many as asked for, and the
distances of its voxels to it. They have no sign, so marching cubes finds the surface twice, once on
either side. Times are of the second run, each stage between two synchronisations. A floor is the
operations of a stage at 780 TFLOP/s, what dense fp16 reaches on an H200; memory is what PyTorch
took from the card at most, weights included.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.image_to_mesh.direct3d_s2.blocks import EDGE, Blocks
from models.image_to_mesh.direct3d_s2.generator import Generator, Networks
from models.image_to_mesh.direct3d_s2.near_surface import (
    near_surface_of_blocks,
    near_surface_of_grid,
)
from models.image_to_mesh.direct3d_s2.networks import build, halve
from models.image_to_mesh.direct3d_s2.preprocess import SIDE_PX, Picture
from models.image_to_mesh.direct3d_s2.release import RELEASES, Sampler
from models.image_to_mesh.direct3d_s2.sparse_decoder import Decoded, SdfDecoder
from models.image_to_mesh.direct3d_s2.sparse_dit import SparseDiT
from models.image_to_mesh.direct3d_s2.surface import cells_of, mesh_of
from models.image_to_mesh.volumes.voxelise import voxelise
from models.nn.attention import Window, partition
from models.nn.dinov2 import DinoV2, DinoV2Config
from models.nn.residency import Residency
from models.nn.sparse_conv.kernel_map import submanifold_map
from models.nn.sparse_tensor import SparseTensor
from models.nn.spatial_sparse_attention import blocks_of

T = TypeVar("T")
PEAK = 780e12
DECODED = ("dense_vae", "sparse_vae_512", "sparse_vae_1024")
PER_VOXEL = 1 / 8  # distance of a voxel, as the networks scale it


def generator_of(device: str, offload: bool, version: str) -> Generator:
    """A release at full size, every weight drawn anew."""
    torch.manual_seed(0)
    release = RELEASES[version]
    home = torch.device("cpu" if offload else device)
    loaded: dict[str, Any] = {}
    for name, source in release.networks.items():
        with torch.device(device):
            network: Any = halve(build(source.class_name, source.arguments), torch.float16)
        network = network.decoder if name in DECODED else network
        loaded[name] = network.eval().requires_grad_(False).to(home)
    with torch.device(device):
        image = DinoV2(DinoV2Config(SIDE_PX, 14, 1024, 24, 16, 4, 4)).eval().requires_grad_(False)
    residency = Residency(device, offload=offload)
    return Generator(Networks(image=image.to(home), **loaded), release, residency)


# -- a real shape --------------------------------------------------------------------------------


@dataclass
class Shape:
    """A mesh that fills 0.95 of the grid."""

    vertices: Tensor  # [V, 3] in 0..1
    faces: Tensor

    @classmethod
    def read(cls, path: Path, device: str) -> Shape:
        arrays = np.load(path)
        vertices = torch.from_numpy(arrays["V"].astype(np.float32)).to(device)
        low, high = vertices.amin(0), vertices.amax(0)
        unit = (vertices - (low + high) / 2) * (0.95 / (high - low).amax()) + 0.5
        return cls(unit, torch.from_numpy(arrays["F"].astype(np.int64)).to(device))

    def cells(self, grid: int, wanted: int) -> Tensor:
        """int32 [N, 4]: the cells nearest to the surface, `wanted` of them."""
        near = voxelise(self.vertices * grid - 0.5, self.faces, grid, 4.0)
        if len(near.coords) < wanted:
            raise SystemExit(f"this mesh has {len(near.coords)} cells of {grid}^3 near it")
        rows = near.distances.argsort()[:wanted].sort().values
        return F.pad(near.coords[rows], (1, 0))

    def distances(self, cells: Tensor, resolution: int) -> Blocks:
        """On the voxels of these cells, fp16: no sign, 1 beyond four voxels."""
        band = voxelise(self.vertices * resolution - 0.5, self.faces, resolution, 4.0)
        side = resolution // EDGE
        index = torch.full((side,) * 3, -1, dtype=torch.long, device=cells.device)
        x, y, z = cells[:, 1:].long().unbind(1)
        index[x, y, z] = torch.arange(len(cells), device=cells.device)
        coords = band.coords.long()
        rows = index[tuple((coords // EDGE).unbind(1))]
        x, y, z = (coords % EDGE).unbind(1)
        kept = rows >= 0
        values = torch.ones(len(cells), 1, *[EDGE] * 3, dtype=torch.float16, device=cells.device)
        values[rows[kept], 0, x[kept], y[kept], z[kept]] = (band.distances[kept] * PER_VOXEL).half()
        return Blocks(cells[:, 1:].contiguous(), values, resolution)


# -- the operations of a stage -------------------------------------------------------------------


def dense_operations(network: nn.Module, *shapes: tuple[int, ...]) -> float:
    """Of one pass, counted on the meta device."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.to("meta")(*(torch.empty(s, dtype=torch.float16, device="meta") for s in shapes))
    return float(counter.get_total_flops())


def image_operations(tokens: int = 1374, width: int = 1024, layers: int = 24) -> float:
    return layers * (2 * tokens * 12 * width**2 + 4 * tokens**2 * width)


def dense_flow_operations(steps: int, tokens: int = 4096, width: int = 1024) -> float:
    """Twice a step; without a condition there is nothing to attend to across."""
    linear, own = 2 * tokens * 14 * width**2, 4 * tokens**2 * width
    saved = 2 * tokens * 2 * width**2  # its query and what is made of the answer
    return steps * 24 * (2 * (linear + own) + 4 * tokens * 1374 * width - saved)


def sparse_flow_operations(
    flow: SparseDiT, x: SparseTensor, steps: int, width: int = 1024
) -> float:
    """Linear layers, the three branches of attention, and the image; twice a step."""
    attention = flow.blocks[0].self_attn
    n, coarse = len(x.sites), attention.compression_block_size
    summaries = len(torch.div(x.coords[:, 1:], coarse, rounding_mode="floor").unique(dim=0))
    starts = blocks_of(x.sites, 8, 8).starts
    sizes = (starts[1:] - starts[:-1]).double()
    mean = float((sizes**2).sum() / sizes.sum())  # voxels of a block, as a voxel meets it
    chosen = min(attention.topk, len(sizes))
    windows = []
    for shift in (0, 4):
        rows = torch.tensor(partition(x.sites, Window(8, shift)).windows.lengths).double()
        windows.append(float((rows**2).sum()))
    scores = 4 * width * (n * (summaries + chosen * mean) + sum(windows) / 2)
    layer = 2 * n * (12 * width**2 + 2 * 64 * width + 3 * width) + scores
    across = 4 * n * 1374 * width - 2 * n * 2 * width**2
    return steps * 24 * (2 * layer + across)


def decoder_operations(decoder: SdfDecoder, x: SparseTensor) -> float:
    """As computed: convolutions on children are eight times as wide on their parents."""
    width, n = decoder.input_layer.out_features, len(x.sites)
    total = 4 * 2 * n * 12 * width**2
    for level, block in enumerate(decoder.upsample):
        pairs = int((submanifold_map(x.sites, (3, 3, 3)).neighbours >= 0).sum()) * 8**level
        (_, cin, cout), _ = (
            c.conv.kernel.shape for c in (block.act_layers[0], block.out_layers[0])
        )
        total += 2 * pairs * (cin * cout + 8 * cout * cout)
    return float(total)


# -- the run -------------------------------------------------------------------------------------


@dataclass
class Clock:
    seconds: dict[str, float] = field(default_factory=dict)
    operations: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str, run: Callable[[], T], operations: float = 0.0) -> T:
        torch.cuda.synchronize()
        begun = time.perf_counter()
        result = run()
        torch.cuda.synchronize()
        self.seconds[name] = time.perf_counter() - begun
        self.operations[name] = operations
        return result

    def rows(self) -> dict[str, Any]:
        return {
            name: {
                "ms": round(1e3 * seconds, 1),
                "tflop": round(self.operations[name] / 1e12, 1),
                "floor_ms": round(1e3 * self.operations[name] / PEAK, 1),
                "share": round(self.operations[name] / PEAK / seconds, 3),
            }
            for name, seconds in self.seconds.items()
        } | {"total": {"ms": round(1e3 * sum(self.seconds.values()), 1)}}


@dataclass
class Inputs:
    cells_512: Tensor
    sdf_512: Blocks
    grid_512: Tensor
    cells_1024: Tensor
    sdf_1024: Blocks
    signs: Tensor


def inputs_of(shape: Shape, count_512: int, count_1024: int) -> Inputs:
    cells_512, cells_1024 = shape.cells(64, count_512), shape.cells(128, count_1024)
    sdf_512 = shape.distances(cells_512, 512)
    grid = sdf_512.patch((0, 0, 0), 64, torch.ones(1, dtype=torch.float16, device="cuda"))
    signs = torch.ones([512] * 3, dtype=torch.int8, device="cuda")
    sdf_1024 = shape.distances(cells_1024, 1024)
    return Inputs(cells_512, sdf_512, cast(Tensor, grid)[0], cells_1024, sdf_1024, signs)


def silent(done: int, total: int) -> None:
    """Nobody watches."""


def run_512(generator: Generator, given: Inputs, samplers: dict[str, Sampler], clock: Clock) -> Any:
    networks, turn = generator.networks, generator.turn
    noise = torch.Generator().manual_seed(0)
    white = Picture(*(np.full((SIDE_PX, SIDE_PX, *c), 255, np.uint8) for c in ((3,), ())))
    seen = clock.stage("look", lambda: generator.look(white), image_operations())
    dense = samplers["dense"]
    try:
        clock.stage("coarse", lambda: generator.coarse(seen, noise, dense))
    except Exception as error:  # noqa: BLE001  # random weights may leave every cell empty
        clock.operations.setdefault("coarse", 0.0)
        print("coarse:", type(error).__name__)
    clock.operations["coarse"] = dense_flow_operations(dense.steps)
    sampler = samplers["sparse_512"]
    flow = networks.sparse_flow_512
    x = clock.stage(
        "latent_512", lambda: generator.latent(flow, seen, given.cells_512, noise, sampler)
    )
    clock.operations["latent_512"] = sparse_flow_operations(flow, x, sampler.steps)

    def decode() -> Decoded:
        with turn(networks.sparse_vae_512, networks.refiner):
            return networks.sparse_vae_512(x, head=networks.refiner.head)

    decoded = clock.stage("decode_512", decode, decoder_operations(networks.sparse_vae_512, x))
    real = Decoded(_reordered(given.sdf_512, x), decoded.extra)
    del decoded

    def refine() -> Tensor:
        with turn(networks.refiner):
            return networks.refiner(real, silent)

    clock.stage("refine", refine)
    beside = clock.stage("near_surface_512", lambda: near_surface_of_grid(given.grid_512, 0.4))
    return seen, clock.stage("marching_cubes_512", lambda: mesh_of(beside, 0.4, 512))


def run_1024(
    generator: Generator, seen: Any, mesh: Any, given: Inputs, sampler: Sampler, clock: Clock
) -> Any:
    networks, turn = generator.networks, generator.turn
    noise = torch.Generator().manual_seed(0)
    clock.stage("cells_1024", lambda: cells_of(mesh, 1024))
    flow = networks.sparse_flow_1024
    x = clock.stage(
        "latent_1024", lambda: generator.latent(flow, seen, given.cells_1024, noise, sampler)
    )
    clock.operations["latent_1024"] = sparse_flow_operations(flow, x, sampler.steps)

    def decode() -> Decoded:
        with turn(networks.sparse_vae_1024):
            return networks.sparse_vae_1024(x)

    clock.stage("decode_1024", decode, decoder_operations(networks.sparse_vae_1024, x))
    refiner = networks.sign_refiner

    def signs() -> Tensor:
        with turn(refiner):
            return refiner(given.sdf_1024, silent)

    clock.stage("signs", signs)
    beside = clock.stage(
        "near_surface_1024", lambda: near_surface_of_blocks(given.sdf_1024, 0.2, given.signs)
    )
    return clock.stage("marching_cubes_1024", lambda: mesh_of(beside, 0.2, 1024))


def _reordered(sdf: Blocks, x: SparseTensor) -> Blocks:
    """The blocks in the order of the latent's rows."""
    index = torch.full((sdf.side,) * 3, -1, dtype=torch.long, device=sdf.cells.device)
    index[tuple(sdf.cells.long().unbind(1))] = torch.arange(len(sdf), device=sdf.cells.device)
    rows = index[tuple(x.coords[:, 1:].long().unbind(1))]
    return Blocks(x.coords[:, 1:].contiguous(), sdf.values[rows], sdf.resolution)


def patch_operations() -> tuple[float, float]:
    """Of one patch of each refiner, in its convolutions."""
    made = []
    for name, shapes in (
        ("refiner", [(1, 1, 192, 192, 192), (1, 8, 192, 192, 192)]),
        ("sign_refiner", [(1, 1, 256, 256, 256)]),
    ):
        source = RELEASES["1.1"].networks[name]
        network = halve(build(source.class_name, source.arguments), torch.float16)
        network.forward = network.patch  # type: ignore[method-assign]
        made.append(dense_operations(network, *shapes))
    return made[0], made[1]


def measure(generator: Generator, given: Inputs, fine: bool) -> dict[str, Any]:
    few = {name: Sampler(2, s.guidance, s.shift) for name, s in generator.release.samplers.items()}
    report: dict[str, Any] = {}
    for samplers in (few, dict(generator.release.samplers)):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        clock = Clock()
        with torch.no_grad():
            seen, mesh = run_512(generator, given, samplers, clock)
            if fine:
                mesh = run_1024(generator, seen, mesh, given, samplers["sparse_1024"], clock)
        report = {
            "peak_reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2),
            "peak_allocated_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
            "vertices": len(mesh.vertices),
            "faces": len(mesh.faces),
        }
        del seen, mesh
    refine, signs = patch_operations()
    clock.operations["refine"] = 27 * refine
    if fine:
        clock.operations["signs"] = 27 * signs
    return report | {"stages": clock.rows()}


RUNS = {
    "512-offloaded": (False, True),
    "512-resident": (False, False),
    "1024-offloaded": (True, True),
    "1024-resident": (True, False),
}
"""Whether the fine stage runs too, and whether networks wait for their turn off the card."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mesh", type=Path, required=True)
    parser.add_argument("--tokens-512", type=int, default=30_000)
    parser.add_argument("--tokens-1024", type=int, default=100_000)
    parser.add_argument("--version", choices=list(RELEASES), default="1.1")
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    shape = Shape.read(asked.mesh, "cuda")
    report: dict[str, Any] = {"card": torch.cuda.get_device_name(), "mesh": asked.mesh.stem}
    report["version"] = asked.version
    for name in asked.runs:
        fine, offload = RUNS[name]
        generator = generator_of("cuda", offload, asked.version)
        given = inputs_of(shape, asked.tokens_512, asked.tokens_1024)
        if not fine:
            given.sdf_1024 = given.signs = given.cells_1024 = given.cells_512  # type: ignore[assignment]
        torch.cuda.empty_cache()
        base = torch.cuda.memory_allocated()
        report[name] = {"before_gb": round(base / 1e9, 2), **measure(generator, given, fine)}
        print(name, json.dumps(report[name], indent=1), flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(report, indent=1))
        del generator, given
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
