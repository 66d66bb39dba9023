"""ReconViaGen on a GPU at full size: photos -> raw decoder mesh, stage by stage, against its floor.

`python benchmarks/reconviagen_gpu.py --state-dicts DIR --mesh FILE.npz [--views 8]`. DIR of state
dicts: the configurations of the official networks. Weights are random; since such networks know no
shape, the voxels of the mesh's surface take the place of those the structure decoder finds. Work is
counted from shapes: products of layers, attention and convolutions; keys and values of a condition
once. The floor is that work at the card's measured bf16 rate; DINOv2, which stays in fp32, at the
datasheet's fp32 rate.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from flow_work import block_work, convolution_work
from gpu_clock import StageClock
from random_release import FILES, randomised
from torch import Tensor, nn
from trellis_gpu import voxels_of

from models.image_to_mesh.reconviagen.checkpoint import TORSOS
from models.image_to_mesh.reconviagen.generator import Generator, Networks
from models.image_to_mesh.reconviagen.networks import build
from models.image_to_mesh.reconviagen.release import LATENT_SAMPLER, STRUCTURE_SAMPLER
from models.image_to_mesh.reconviagen.vggt.network import Vggt
from models.image_to_mesh.trellis import generator as trellis
from models.image_to_mesh.trellis.release import SamplerSettings
from models.nn.dinov2 import DinoV2
from models.nn.precision import chosen_dtype, to_half
from models.nn.resample import pooling, subdivide
from models.nn.residency import Residency
from models.nn.samplers import rescaled_times
from models.nn.sparse_conv.kernel_map import submanifold_map
from models.nn.sparse_tensor import SparseTensor

CONDITIONS = {
    "structure_condition": "reconviagen_sparse_structure_vggt_cond",
    "latent_condition": "reconviagen_slat_vggt_cond",
}
BF16, FP32 = 780e12, 67e12
"""FLOP/s: a large bf16 product as measured on the card, fp32 by its datasheet."""
TOKENS, PATCHES, WIDTH = 1374, 1369, 1024
Work = dict[str, tuple[int, float]]
"""FLOP of each stage, and the rate of the unit that does it."""


# -- networks of random weights --------------------------------------------------------------------


def random_generator(state_dicts: Path, residency: Residency, dtype: torch.dtype) -> Generator:
    def made(file: str) -> nn.Module:
        dump = json.loads((state_dicts / f"{file}.json").read_text())
        network = randomised(lambda: build(dump["class"], dump["config_args"]))
        return to_half(network, dtype, TORSOS).eval().requires_grad_(False)

    torch.manual_seed(0)
    base = {name: made(file) for name, file in FILES.items()}
    vggt = randomised(Vggt).halve(dtype).eval().requires_grad_(False)
    image = randomised(DinoV2).eval().requires_grad_(False)
    networks = trellis.Networks(image=image, **base)
    mean, std = [0.0] * 8, [1.0] * 8
    added = {name: made(file) for name, file in CONDITIONS.items()}
    return Generator(
        trellis.Generator(networks, mean, std, residency), Networks(vggt=vggt, **added)
    )


# -- work, counted -------------------------------------------------------------------------------


def transformer(rows: int, keys: int, blocks: int) -> int:
    """Of plain blocks: four products of C^2, two of 4 C^2, and attention."""
    return blocks * (2 * rows * 12 * WIDTH**2 + 4 * rows * keys * WIDTH)


def sampling(
    rows: int, context: int, projected: int, settings: SamplerSettings, extra: int = 0
) -> int:
    """context: tokens a query sees; projected: tokens whose keys and values are made, once.
    extra: of each pass, beside the blocks."""
    times = rescaled_times(settings.steps, settings.rescale_t)[:-1]
    guided = sum(settings.guidance.acts_at(t) for t in times)
    led, unled = block_work(rows, rows, rows, context), block_work(rows, rows, 0, context)
    blocks = 24 * (len(times) * led.done + guided * unled.done)
    return blocks + 24 * 2 * projected * WIDTH * 2 * WIDTH + (len(times) + guided) * extra


def pairs(sites: object) -> int:
    return int((submanifold_map(sites, (3, 3, 3), True).neighbours >= 0).sum())


def decoder_work(decoder: nn.Module, coords: Tensor) -> int:
    """Of the mesh decoder: its blocks' products, and convolutions over the pairs of voxels."""
    width, blocks = 768, 12
    total = blocks * 2 * len(coords) * 12 * width**2
    place = SparseTensor(torch.zeros(len(coords), 1, device="cuda"), coords)
    for block in decoder.upsample:
        finer = subdivide(place)
        for layer in (block.out_layers[0].conv, block.out_layers[3].conv):
            out, *_, into = layer.weight.shape
            total += 2 * pairs(finer.sites) * out * into
        total += 2 * len(place.coords) * block.skip_connection.conv.weight.numel()
        place = finer
    return total + 2 * len(place.coords) * decoder.out_layer.weight.numel()


def count(generator: Generator, views: int, coords: Tensor) -> Work:
    all_tokens, flow = views * TOKENS, generator.base.networks.latent_flow
    coarse = len(pooling(SparseTensor(coords.float(), coords).sites, 2).coarse)
    vision = transformer(all_tokens, TOKENS, 24)
    aggregator = vision + transformer(all_tokens, TOKENS, 24)
    aggregator += transformer(all_tokens, all_tokens, 24)
    queries, seen = 4096, views * PATCHES
    condition = 4 * (
        2 * seen * 3 * WIDTH * 2 * WIDTH  # keys and values
        + 2 * queries * WIDTH**2 * (4 + 2 + 8)
        + 4 * queries * (queries + seen) * WIDTH
    )
    condition += 4 * 2 * all_tokens * 3 * WIDTH * WIDTH
    return {
        "DINOv2": (vision, FP32),
        "VGGT": (aggregator, BF16),
        "conditions": (condition, BF16),
        "structure": (sampling(4096, 4096, 4096, STRUCTURE_SAMPLER), BF16),
        "latent": (
            sampling(
                coarse, all_tokens, all_tokens, LATENT_SAMPLER, convolution_work(flow, coords)
            ),
            BF16,
        ),
        "mesh": (decoder_work(generator.base.networks.mesh_decoder, coords), BF16),
    }


# -- timing --------------------------------------------------------------------------------------


class Stages(StageClock):
    """Seconds of each stage of one object, and of the whole."""

    def __init__(self, generator: Generator, views: int, coords: Tensor) -> None:
        super().__init__()
        self.generator, self.coords = generator, coords
        rng = np.random.default_rng(1)
        self.pictures = [rng.integers(0, 256, (518, 518, 3), dtype=np.uint8) for _ in range(views)]
        self.size = ""

    def run(self) -> None:
        generator, noise = self.generator, torch.Generator().manual_seed(1)
        start = time.perf_counter()
        seen = self.stage("look", lambda: generator.look(self.pictures))
        self.stage("structure", lambda: generator.structure(seen, noise, STRUCTURE_SAMPLER))
        latent = self.stage(
            "latent", lambda: generator.latent(seen, self.coords, noise, LATENT_SAMPLER)
        )
        if not latent.feats.isfinite().all():
            raise ValueError("the latent is not finite: the random weights are too large")
        mesh = self.stage("mesh", lambda: generator.mesh(latent))
        self.seconds.setdefault("whole", []).append(time.perf_counter() - start)
        self.size = f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces"

    def parts_of_looking(self) -> None:
        """The three networks of the first stage, each alone."""
        base, networks = self.generator.base, self.generator.networks
        tokens = self.stage("DINOv2", lambda: base.look(self.pictures))
        pixels = torch.from_numpy(np.stack(self.pictures)).cuda().permute(0, 3, 1, 2) / 255
        seen = self.stage("VGGT", lambda: networks.vggt(pixels))
        special = networks.vggt.aggregator.special

        def conditions() -> Tensor:
            patches = [layer[:, special:] for layer in seen.layers]
            networks.structure_condition(patches, tokens[:, special:])
            return networks.latent_condition(seen.layers, tokens)

        self.stage("conditions", conditions)


def row(name: str, took: float, work: int, rate: float) -> str:
    return (
        f"| {name} | {work / 1e12:.1f} | {work / rate:.3f} | {took:.3f} "
        f"| {work / took / 1e12:.0f} | {work / rate / took:.0%} |"
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state-dicts", type=Path, required=True)
    parser.add_argument("--mesh", type=Path, required=True, help="npz with vertices V and faces F")
    parser.add_argument("--views", type=int, nargs="+", default=[8])
    parser.add_argument("--offload", action="store_true", help="one network on the card at a time")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    place = torch.device("cuda")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    residency = Residency(place, offload=options.offload)
    generator = random_generator(options.state_dicts, residency, chosen_dtype(place))
    coords = voxels_of(options.mesh).cuda()
    for views in options.views:
        stages = Stages(generator, views, coords)
        stages.run()
        first = stages.seconds.pop("whole")[0]
        stages.seconds.clear()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(options.repeats):
            stages.run()
        peak, kept = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        for _ in range(0 if options.offload else options.repeats):
            stages.parts_of_looking()
        took = {name: median(times) for name, times in stages.seconds.items()}
        work = count(generator, views, coords)
        print(f"\n{views} views, {len(coords):,} voxels: {stages.size}; first run {first:.1f} s")
        print(f"peak {peak / 1e9:.2f} GB allocated, {kept / 1e9:.2f} GB reserved\n")
        print("| stage | TFLOP | floor, s | s | TFLOP/s | of the floor's rate |")
        print("|---|---|---|---|---|---|")
        for name, (flop, rate) in work.items():
            if name in took:
                print(row(name, took[name], flop, rate))
        floor = sum(flop / rate for flop, rate in work.values())
        total = sum(flop for flop, _ in work.values())
        print(row("whole", took["whole"], total, total / floor), flush=True)


if __name__ == "__main__":
    main()
