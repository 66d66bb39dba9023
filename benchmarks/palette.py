"""Times the palette of spherical harmonics: rows of a scene (or made ones) on the CPU and a GPU.

Does not encode a scene: `benchmarks/sog.py` does.

    python benchmarks/palette.py [--ply SCENE.ply | --rows 1000000] [--device cuda:0]
        [--size K] [--price P] [--passes] [--triton]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

COLUMNS = 45


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ply", type=Path, help="binary float PLY of SH degree 3")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to make without --ply")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, help="entries; chosen by rate and distortion if absent")
    parser.add_argument("--price", type=float, help="squared error a bit is worth")
    parser.add_argument("--passes", action="store_true", help="time single searches (GPU)")
    parser.add_argument("--triton", action="store_true", help="and those of palette_triton.py")
    arguments = parser.parse_args()
    rows = read(arguments.ply) if arguments.ply else made(arguments.rows)
    if arguments.passes:
        for result in passes(rows, arguments.size or 65_536, arguments.device, arguments.triton):
            print(json.dumps(result))
    else:
        print(json.dumps(whole(rows, arguments)))


def read(path: Path) -> np.ndarray:  # [N, 45]
    from models.splat_to_sog.readers.ply import read_ply

    shn = read_ply(path).shN
    return shn.reshape(len(shn), -1)


def made(n: int, d: int = COLUMNS) -> np.ndarray:
    """Clustered rows with the spectrum of real harmonics: a tenth of the deviation in band 3."""
    rng = np.random.default_rng(0)
    spread = np.exp(-np.arange(d) % 15 / 8) * 0.3
    centres = rng.laplace(size=(4000, d)) * spread
    noise = rng.laplace(size=(n, d)).astype(np.float32) * spread.astype(np.float32) * 0.35
    return centres.astype(np.float32)[rng.integers(0, 4000, n)] + noise


def whole(rows: np.ndarray, arguments: argparse.Namespace) -> dict[str, Any]:
    from models.splat_to_sog.palette import build_palette

    times = []
    for _ in range(1 if arguments.device == "cpu" else 3):  # the first compiles
        cpu, wall = time.process_time(), time.perf_counter()
        found = build_palette(rows, arguments.size, price=arguments.price, device=arguments.device)
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    error = sum(
        float(((rows[at : at + 65536] - found.entries[found.labels[at : at + 65536]]) ** 2).sum())
        for at in range(0, len(rows), 65536)
    )
    return {
        "rows": len(rows),
        "device": arguments.device,
        "entries": len(found.entries),
        "error": round(error / len(rows), 5),
        "wall_s": [round(wall, 3) for wall, _ in times],
        "cpu_s": [round(cpu, 2) for _, cpu in times],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def passes(rows: np.ndarray, size: int, device: str, with_triton: bool) -> list[dict[str, Any]]:
    """Milliseconds of one search over all rows, by kernel."""
    from models.splat_to_sog.palette.device import Rows

    on_device = Rows(rows, device)
    xp = on_device.xp
    rng = np.random.default_rng(1)
    near = rows[np.sort(rng.choice(len(rows), size, replace=len(rows) < size))]
    entries = xp.asarray(near + 0.05 * rng.normal(size=near.shape).astype(np.float32))
    out = []
    held = packed(on_device, entries)
    for kernel in dict.fromkeys([on_device.kernel, "assign"]):
        on_device.kernel = kernel
        search = milliseconds(xp, lambda: on_device._search(*held))
        whole = milliseconds(xp, lambda: on_device.nearest(entries))
        out += [{"kernel": kernel, "what": "search", **search}]
        out += [{"kernel": kernel, "what": "whole pass", **whole}]
    if with_triton:
        out.append({"kernel": "triton", "what": "search", **triton(on_device, held)})
    return out


def packed(on_device: Any, entries: Any) -> tuple[Any, int, Any]:
    """What a search is given: (halves of the entries, tiles, room for the groups)."""
    held: list[Any] = []
    search = on_device._search

    def keep(*arguments: Any) -> None:
        held.append(arguments)
        search(*arguments)

    on_device._search = keep
    on_device.nearest(entries)
    on_device._search = search
    return held[0]


def milliseconds(xp: Any, run: Callable[[], Any], repeats: int = 7) -> dict[str, float]:
    times = []
    for _ in range(repeats + 2):
        start, end = xp.cuda.Event(), xp.cuda.Event()
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(xp.cuda.get_elapsed_time(start, end))
    return {"median_ms": round(statistics.median(times[2:]), 3), "least_ms": round(min(times), 3)}


def triton(on_device: Any, packed: tuple[Any, int, Any]) -> dict[str, float]:
    """The same operands, entries in plain rows."""
    import palette_triton
    import torch

    xp = on_device.xp
    columns, tile = on_device.halves.shape[1], 128
    entry = np.arange(tile)
    half, t, i = entry // 64, entry // 16 % 4, entry % 16
    place = half * 64 + i // 2 * 8 + 2 * t + i % 2  # as in kernels.cu
    tiles = packed[0].reshape(-1, columns // 8, tile, 8).transpose(0, 2, 1, 3)
    plain = xp.ascontiguousarray(tiles.reshape(-1, tile, columns)[:, place]).reshape(-1, columns)

    def half_tensor(array: Any) -> Any:
        return torch.as_tensor(array.view(xp.int16), device="cuda").view(torch.float16)

    rows, entries = half_tensor(on_device.halves), half_tensor(plain)
    label = torch.empty(on_device.n, dtype=torch.int32, device="cuda")
    low = 32 if columns == 48 else columns
    options = {"low": low, "high": columns - low, "num_warps": 4, "num_stages": 3}
    return milliseconds(xp, lambda: palette_triton.launch(rows, entries, label, **options))


if __name__ == "__main__":
    main()
