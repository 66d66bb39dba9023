"""Measures how backgrounds are found: BiRefNet at full size with random weights, and classically.

Says nothing of how good a mask is: random weights see no object. Times and peak memory on one
device; with a checkout of the authors' code (github.com/ZhengPeng7/BiRefNet; it needs torchvision)
theirs too, in a process of its own, on the same input.

    python benchmarks/background_removal.py [--device cpu] [--runs 1] [--threads 2] [--theirs DIR]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

SAMPLE = Path(__file__).resolve().parents[1] / "tests" / "samples" / "robot.png"
SIDE_PX = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--theirs", type=Path, help="a checkout of BiRefNet")
    parser.add_argument("--only-theirs", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if arguments.only_theirs:
        report("BiRefNet, the authors' code", device, arguments.runs, theirs(arguments.theirs))
        return
    classic(arguments.runs)
    report("BiRefNet, ours", device, arguments.runs, ours())
    if arguments.theirs:
        command = [sys.executable, *sys.argv, "--only-theirs"]
        subprocess.run(command, check=True)


def ours() -> torch.nn.Module:
    from models.image_to_mesh.preprocess.birefnet.network import BiRefNet

    return BiRefNet()


def theirs(checkout: Path) -> torch.nn.Module:
    """Their package is called `models` too: ours must not have been imported."""
    finders = [each for each in sys.meta_path if "editable" not in repr(each).lower()]
    sys.meta_path[:] = finders
    sys.path[:] = [str(checkout), *(p for p in sys.path if not (Path(p) / "service").is_dir())]
    from models.birefnet import BiRefNet  # type: ignore[import-not-found, unused-ignore]

    network: torch.nn.Module = BiRefNet(bb_pretrained=False)
    return network


def classic(runs: int) -> None:
    from PIL import Image

    from models.image_to_mesh.preprocess.background import separate

    picture = Image.open(SAMPLE).convert("RGBA").resize((SIDE_PX, SIDE_PX))
    rgb = np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture))
    seconds, cpu = best(runs, lambda: separate(np.ascontiguousarray(rgb[..., :3])))
    print(f"classical, {SIDE_PX} px: {seconds:.2f} s, {cpu:.2f} CPU seconds")


@torch.no_grad()
def report(name: str, device: torch.device, runs: int, network: torch.nn.Module) -> None:
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    network = network.eval().requires_grad_(False).to(device, dtype)
    image = torch.randn(1, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))
    image = image.to(device, dtype)

    def work() -> None:
        network(image)
        if device.type == "cuda":
            torch.cuda.synchronize()

    if device.type == "cuda":
        work()  # kernels are loaded, cuDNN chosen
        torch.cuda.reset_peak_memory_stats()
    seconds, cpu = best(runs, work)
    gib = (
        torch.cuda.max_memory_allocated() / 2**30
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    print(
        f"{name}, {SIDE_PX} px, {device}, {dtype}: {seconds:.3f} s, {cpu:.1f} CPU seconds, "
        f"peak {gib:.1f} GiB; load average {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def best(runs: int, work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of the fastest of `runs`."""
    times = []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(times)


if __name__ == "__main__":
    main()
