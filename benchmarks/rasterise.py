"""Time the rasterisers on one invented scene: the CUDA kernels and the compiled CPU code.

    python benchmarks/rasterise.py --splats 1000000

Prints a JSON line a row: seconds for one view, projection included, picture on the host.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

from models.splat_to_sog.metrics.cameras import orbit
from models.splat_to_sog.metrics.rasterise import Camera
from models.splat_to_sog.metrics.rasterise_cuda import DeviceScene
from models.splat_to_sog.metrics.renderer import HostScene
from models.splat_to_sog.splats import COEFFICIENTS, Splats

SIZES = ((512, 512), (1920, 1080))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splats", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=20, help="on the card; a tenth on the CPU")
    parser.add_argument("--device", default="cuda:0")
    options = parser.parse_args()
    splats = shell(options.splats)
    scene = DeviceScene(splats, options.device)
    host = HostScene(splats, compiled=True)
    for width, height in SIZES:
        base = orbit(splats, 4, height)
        views = [Camera(c.position, c.rotation, c.focal_px, width, height, c.near) for c in base]

        differences = [np.abs(scene.render(view) - host.render(view)) for view in views]
        row = {
            "splats": len(splats),
            "size": f"{width}x{height}",
            "cuda_ms": round(1e3 * seconds(scene.render, views, options.repeats), 2),
            "cpu_ms": round(1e3 * seconds(host.render, views, max(options.repeats // 10, 1)), 1),
            "cpu_threads": os.cpu_count(),
            "mean_difference": float(np.mean(differences)),
            "largest_difference": float(np.max(differences)),
        }
        print(json.dumps(row), flush=True)


def seconds(render: Callable[[Camera], object], views: list[Camera], repeats: int) -> float:
    """Median of one view's time; the picture comes back to the host, so nothing is in flight."""
    times = []
    for _ in range(repeats):
        for view in views:
            started = time.perf_counter()
            render(view)
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def shell(count: int) -> Splats:
    """Flat Gaussians on a lumpy ball: surfaces with gaps, as captures have."""
    rng = np.random.default_rng(0)
    outward = rng.normal(0, 1, (count, 3))
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    lumps = 1 + 0.2 * np.sin(outward @ rng.normal(0, 4, (3, 3))).sum(axis=1, keepdims=True)
    return Splats(
        means=(outward * lumps).astype(np.float32),
        scales=rng.normal(-5.2, 0.8, (count, 3)).astype(np.float32),
        quats=rng.normal(0, 1, (count, 4)).astype(np.float32),
        opacities=rng.normal(0, 2.5, count).astype(np.float32),
        sh0=rng.normal(0, 0.7, (count, 3)).astype(np.float32),
        shN=rng.normal(0, 0.06, (count, 3, COEFFICIENTS[3])).astype(np.float32),
    )


if __name__ == "__main__":
    main()
