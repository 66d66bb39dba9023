"""TRELLIS on a GPU: image tensor -> raw decoder mesh at full size, its flows' rate, its memory.

`python benchmarks/trellis_gpu.py --state-dicts DIR --mesh FILE.npz [--release DIR]`. DIR of state
dicts: the configurations of the official networks. Weights are random, saved under the official
names and loaded as a release is; since such networks know no shape, the voxels of the mesh's
surface take the place of those the structure decoder finds. Work is counted from shapes
(`flow_work`): what is done, and what a plain network would do. Beside ours run PyTorch's blocks
(`plain_blocks`): eager, compiled, and compiled with the attention of each library that has one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from flow_work import Work, convolution_work, flow_work, guided_pair
from gpu_clock import StageClock
from plain_blocks import plain_blocks
from random_release import SAMPLER, write_release
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

from models.image_to_mesh.trellis.checkpoint import load_generator
from models.image_to_mesh.trellis.conditioning import no_image
from models.image_to_mesh.trellis.generator import Generator
from models.image_to_mesh.trellis.release import SamplerSettings, read_release
from models.image_to_mesh.trellis.slat_flow import SlatFlow
from models.image_to_mesh.trellis.ss_flow import SparseStructureFlow
from models.nn.attention import KeysValues, Segments
from models.nn.guidance import Guidance
from models.nn.precision import chosen_dtype
from models.nn.replay import Replayed
from models.nn.resample import pooling
from models.nn.residency import Residency
from models.nn.samplers import rescaled_times, sample
from models.nn.sparse_tensor import SparseTensor
from models.nn.transformer import Stream
from models.nn.velocity import DenseVelocity, KnownTimes, SparseVelocity, join

VOXELS, GRID = 20_000, 64
PEERS = "eager", "compiled", "by_flash", "by_cudnn"


# -- voxels of a real mesh -------------------------------------------------------------------------


def voxels_of(path: Path, count: int = VOXELS, grid: int = GRID) -> Tensor:
    """int32 [N, 4]: cells of grid^3 that the mesh's surface passes, and their neighbours, until
    about `count` are there; ascending."""
    data = np.load(path)
    vertices, faces = (data[key] for key in ("V", "F"))
    corners = vertices[faces].astype(np.float64)  # [F, 3, 3]
    low, high = vertices.min(0), vertices.max(0)
    rng = np.random.default_rng(0)
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    chosen = rng.choice(len(corners), 4_000_000, p=area / area.sum())
    a, b = np.sqrt(rng.random(len(chosen))), rng.random(len(chosen))
    shares = np.stack((1 - a, a * (1 - b), a * b), axis=1)
    points = np.einsum("pk,pkd->pd", shares, corners[chosen])
    cells = ((points - (low + high) / 2) / (high - low).max() * (grid - 2) + grid / 2).astype(int)
    filled = np.zeros((grid,) * 3, bool)
    filled[tuple(cells.T)] = True
    surface = torch.from_numpy(filled)
    while int(surface.sum()) < count:  # one cell at a time, outermost first
        grown = torch.nn.functional.max_pool3d(surface[None].float(), 3, 1, 1)[0] > 0
        fresh = (grown & ~surface).nonzero()
        fresh = fresh[torch.from_numpy(rng.permutation(len(fresh)))][: count - int(surface.sum())]
        surface[tuple(fresh.T)] = True
    return torch.nn.functional.pad(surface.nonzero().int(), (1, 0))


# -- timing --------------------------------------------------------------------------------------


def seconds(run: Callable[[], object], repeats: int = 5) -> float:
    taken = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return median(taken)


@dataclass(frozen=True)
class StackSeconds:
    """Of the 24 blocks on an image and its negative: ours, and PyTorch's on the same numbers."""

    ours: float
    eager: float
    compiled: float
    by_flash: float  # compiled, attention by FlashAttention-2
    by_cudnn: float  # compiled, attention by cuDNN
    apart: float  # of ours from eager's, relative to the norm


def stack_seconds(flow: nn.Module, tokens: int, context: int, repeats: int) -> StackSeconds:
    """Each in turns of five passes one after the other, as in a sampling."""
    cond = torch.randn(1, context, 1024, device="cuda", dtype=torch.bfloat16)
    both = torch.cat([cond, torch.zeros_like(cond)])
    contexts = join([flow.contexts(cond), flow.contexts(cond.new_zeros(1, 1, 1024))])
    mods = flow.modulations(torch.tensor([500.0], device="cuda"))
    mods = tuple(mod for mod in mods if mod.shape[1] == 6 * 1024)
    x = torch.randn(2 * tokens, 1024, device="cuda", dtype=torch.bfloat16)
    rows = Segments([tokens] * 2)

    def blocks(x: Tensor, mods: tuple[Tensor, ...], contexts: tuple[KeysValues, ...]) -> Tensor:
        stream = Stream(x, rows)
        for block, mod, kv in zip(flow.blocks, mods, contexts, strict=True):
            block.mix(stream, mod, kv)
        return stream.value()

    recorded = Replayed(blocks)
    dense = x.view(2, tokens, 1024)
    peers = {
        "eager": plain_blocks(flow.blocks, compiled=False),
        "compiled": plain_blocks(flow.blocks, compiled=True),
        "by_flash": plain_blocks(flow.blocks, compiled=True, attention=SDPBackend.FLASH_ATTENTION),
        "by_cudnn": plain_blocks(flow.blocks, compiled=True, attention=SDPBackend.CUDNN_ATTENTION),
    }
    runs: dict[str, Callable[[], Tensor]] = {
        name: lambda run=run: run(dense, mods, both) for name, run in peers.items()
    }
    runs["ours"] = lambda: recorded(x, mods, contexts)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(), run()  # kernels are compiled, passes recorded
    for _ in range(repeats):
        for name, run in runs.items():
            taken[name].append(seconds(lambda run=run: [run() for _ in range(5)], 1) / 5)
    ours, plain = runs["ours"]().float(), runs["eager"]().flatten(0, 1).float()
    apart = float((ours - plain).norm() / plain.norm())
    return StackSeconds(**{name: median(times) for name, times in taken.items()}, apart=apart)


def loop(
    flow: SparseStructureFlow | SlatFlow,
    tokens: Tensor,
    coords: Tensor | None,
    kept: Replayed,  # the structure flow's recorded passes
) -> None:
    """A whole sampling as the generator does it: contexts, embeddings, guidance, Euler steps, and
    for the latent flow the recording of its passes, which is of one job."""
    times = rescaled_times(SAMPLER["steps"], SAMPLER["rescale_t"])
    clock = KnownTimes(flow.modulations, times[:-1], tokens.device)
    if isinstance(flow, SparseStructureFlow):
        noise = torch.randn(1, 8, *(flow.resolution,) * 3, device="cuda")
        velocity = DenseVelocity(kept, batched=True, clock=clock)
    else:
        noise = torch.randn(len(coords), 8, device="cuda")
        velocity = SparseVelocity(
            flow, SparseTensor(noise, coords), batched=True, clock=clock, recorded=True
        )
    guidance = Guidance.added(SAMPLER["cfg_strength"], tuple(SAMPLER["cfg_interval"]))
    out = sample(
        velocity,
        noise,
        [flow.contexts(tokens)],
        times=times,
        negative=flow.contexts(no_image(tokens)),
        guidance=guidance,
        on_step=lambda step: None,
    )
    if not out.isfinite().all():
        raise ValueError("the sample is not finite: the random weights are too large")


class Stages(StageClock):
    """Seconds of each stage of one image, and of the whole."""

    def __init__(self, generator: Generator, settings: SamplerSettings, coords: Tensor) -> None:
        super().__init__()
        self.generator, self.settings, self.coords = generator, settings, coords
        self.picture = np.random.default_rng(1).integers(0, 256, (518, 518, 3), dtype=np.uint8)

    def run(self) -> None:
        generator, noise = self.generator, torch.Generator().manual_seed(1)
        start = time.perf_counter()
        tokens = self.stage("look", lambda: generator.look([self.picture]))
        self.stage("structure", lambda: generator.structure(tokens, noise, self.settings))
        latent = self.stage(
            "latent", lambda: generator.latent(tokens, self.coords, noise, self.settings)
        )
        mesh = self.stage("mesh", lambda: generator.mesh(latent))
        self.seconds.setdefault("whole", []).append(time.perf_counter() - start)
        self.size = f"{len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces"


def whole_row(release: Path, coords: Tensor, offload: bool, repeats: int) -> str:
    """One row of the table: seconds of each stage, and peak memory."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    released = read_release(release)
    place = torch.device("cuda")
    start = time.perf_counter()
    residency = Residency(place, offload=offload)
    generator = load_generator(released, release / "dinov2", residency, chosen_dtype(place))
    load = time.perf_counter() - start
    stages = Stages(generator, released.structure_sampler, coords)
    stages.run()
    first = {name: took.pop() for name, took in stages.seconds.items()}
    torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats):
        stages.run()
    peak, kept = torch.cuda.max_memory_allocated() - before, torch.cuda.max_memory_reserved()
    cells = " | ".join(f"{median(took):.3f}" for took in stages.seconds.values())
    name = "off-loaded" if offload else "resident"
    print(f"{name}: loaded in {load:.1f} s, first run {first['whole']:.1f} s; {stages.size}")
    return f"| {name} | {cells} | {peak / 1e9:.2f} | {kept / 1e9:.2f} |"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state-dicts", type=Path, required=True)
    parser.add_argument("--mesh", type=Path, required=True, help="npz with vertices V and faces F")
    parser.add_argument("--release", type=Path, help="where the random release is, or goes")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    release = options.release or Path(tempfile.mkdtemp()) / "release"
    if not release.exists():
        write_release(release, options.state_dicts)
    coords = voxels_of(options.mesh).cuda()
    place = torch.device("cuda")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    rows = [whole_row(release, coords, off, options.repeats) for off in (False, True)]
    print("\n| networks | look | structure | latent | mesh | whole, s | peak, GB | reserved, GB |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))

    torch.cuda.empty_cache()
    residency = Residency(place)
    released = read_release(release)
    generator = load_generator(released, release / "dinov2", residency, torch.bfloat16)
    networks, settings = generator.networks, released.structure_sampler
    tokens = torch.randn(1, 1374, 1024, device="cuda")
    coarse = len(pooling(SparseTensor(coords.float(), coords).sites, 2).coarse)
    heads = "done, TFLOP | /s | plain, TFLOP | /s"
    print(f"\n| flow | tokens | whole loop, s | {heads} | blocks, ms | done/s | plain/s |", end="")
    print("".join(f" {peer}, ms | plain/s |" for peer in PEERS), "apart |")
    print(f"|{'---|' * (11 + 2 * len(PEERS))}")
    for name, flow, count in (
        ("structure", networks.structure_flow, 4096),
        ("latent", networks.latent_flow, coarse),
    ):
        context = tokens.shape[1]
        work, passes = flow_work(count, context, settings)
        if isinstance(flow, SlatFlow):
            convolutions = passes * convolution_work(flow, coords)
            work += Work(convolutions, convolutions)
        voxels = coords if isinstance(flow, SlatFlow) else None
        kept = Replayed(flow)
        loop(flow, tokens, voxels, kept)
        took = seconds(lambda f=flow, v=voxels, k=kept: loop(f, tokens, v, k), options.repeats)
        stack = stack_seconds(flow, count, context, options.repeats)
        pair = guided_pair(count, context) * len(flow.blocks)
        cells = [f"{took:.3f}", *rates(work, took, total=True)]
        cells += [f"{1e3 * stack.ours:.2f}", *rates(pair, stack.ours)]
        for peer in PEERS:
            of_peer = getattr(stack, peer)
            cells += [f"{1e3 * of_peer:.2f}", rates(pair, of_peer)[-1]]
        print(f"| {name} | {count} | {' | '.join(cells)} | {stack.apart:.1e} |", flush=True)


def rates(work: Work, took: float, total: bool = False) -> list[str]:
    """TFLOP/s of what is done, and of what a plain network does; before each the TFLOP."""
    cells = []
    for flop in (work.done, work.plain):
        cells += [f"{flop / 1e12:.0f}"] * total + [f"{flop / took / 1e12:.0f}"]
    return cells


if __name__ == "__main__":
    main()
