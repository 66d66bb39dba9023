"""Measures submanifold 3^3 convolutions on a shell of voxels: map and products, backend by backend.

Does not check results: tests/models/nn does. On CPU the figures are CPU seconds of one thread, so
that a busy machine changes them little; spconv is also run as it comes, with its own maps.

    python benchmarks/sparse_conv.py [--voxels 23000] [--channels 32 64 128] [--runs 5]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from models.nn.backends import SparseName
from models.nn.sites import Sites
from models.nn.sparse_conv import submanifold_conv
from models.nn.sparse_conv.kernel_map import submanifold_map
from models.nn.sparse_tensor import SparseTensor

SIZE = (3, 3, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=23_000)
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    coords = shell(arguments.voxels)
    neighbours = submanifold_map(Sites(coords, 1), SIZE).neighbours
    pairs = int((neighbours >= 0).sum())
    print(f"{len(coords):,} voxels, {pairs / len(coords):.1f} neighbours each, fp32, one thread")
    for channels in arguments.channels:
        works = cpu_works(coords, channels)
        print(f"\nC = {channels}, {2e-9 * pairs * channels**2:.1f} GFLOP")
        for name, seconds in measure(works, arguments.runs).items():
            rate = "" if name == "map" else f"{2e-9 * pairs * channels**2 / seconds:8.1f} GFLOP/s"
            print(f"  {name:28} {1e3 * seconds:8.1f} ms {rate}")


def shell(voxels: int) -> Tensor:
    """int32 [N, 4], N near `voxels`: those a sphere's surface passes, two or three thick."""
    radius = math.sqrt(voxels / (4 * math.pi * 1.6))
    edge = math.ceil(2 * radius) + 4
    axis = torch.arange(edge) - edge / 2 + 0.5
    distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    xyz = ((distance - radius).abs() < 0.8).nonzero().int()
    return torch.cat((torch.zeros(len(xyz), 1, dtype=torch.int32), xyz), dim=1)


def cpu_works(coords: Tensor, channels: int) -> dict[str, Callable[[], object]]:
    """Each thing to be timed; what carries no map is given its own on every call."""
    x = SparseTensor(torch.randn(len(coords), channels), coords)
    weight = torch.randn(channels, *SIZE, channels)

    def convolve(backend: SparseName) -> Callable[[], object]:
        submanifold_conv(x, weight, backend=backend)  # the map, and what the backend makes of it
        return lambda: submanifold_conv(x, weight, backend=backend)

    works: dict[str, Callable[[], object]] = {
        "map": lambda: submanifold_map(Sites(coords, 1), SIZE),
        "torch": convolve("torch"),
        "torch, with map": lambda: submanifold_conv(
            SparseTensor(x.feats, coords), weight, backend="torch"
        ),
    }
    if find_spec("spconv"):
        works["spconv on our map"] = convolve("spconv")
        works["spconv's module, with map"] = spconv_module(x.feats, coords, channels)
    return works


def spconv_module(feats: Tensor, coords: Tensor, channels: int) -> Callable[[], object]:
    import spconv.pytorch as spconv

    module = spconv.SubMConv3d(channels, channels, 3, bias=False)
    extent = (coords[:, 1:].amax(dim=0) + 1).tolist()

    def run() -> object:
        # It is as racy as its functions: one thread, see models/nn/sparse_conv/spconv_conv.py.
        with threadpool_limits(1, user_api="openmp"), torch.no_grad():
            return module(spconv.SparseConvTensor(feats, coords, extent, 1))

    return run


def measure(works: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """CPU seconds of the best run of each; they take turns, so that a slow minute hits all."""
    best = dict.fromkeys(works, math.inf)
    for _ in range(runs):
        for name, work in works.items():
            started = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - started)
    return best


if __name__ == "__main__":
    main()
