"""Decimation against its alternatives: what 50 %, 25 % and 10 % of the splats still look like.

    python benchmarks/decimate.py SCENE.ply [...] --metric render_metric.py [--peer "node cli.mjs"]

`--metric` is any Python script that renders two .ply files from the same cameras and prints a JSON
object with `psnr` and `psnr_min`. The peer is splat-transform, if given: both
of its ways, `--decimate` and `--decimate-adaptive`. Also compared: a random subset, and the splats
of most alpha x area; both with scales enlarged so that the covered area is kept.
CPU seconds are user + system, of the decimation alone (the peer's include reading and writing).
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.splat_to_sog.readers import read
from models.splat_to_sog.scene.decimate import decimate
from models.splat_to_sog.scene.moments import alphas
from models.splat_to_sog.splats import Splats

FRACTIONS = (0.5, 0.25, 0.1)


def light(splats: Splats) -> np.ndarray:
    """Alpha x area of the two larger axes: [N]."""
    largest = np.sort(np.minimum(splats.scales, 20), axis=1)[:, 1:].sum(axis=1)
    return alphas(splats.opacities) * np.exp(largest)


def subset(splats: Splats, rows: np.ndarray) -> Splats:
    """These splats, enlarged until they cover what all did."""
    weights = light(splats)
    growth = np.log(weights.sum() / weights[rows].sum()) / 2
    chosen = splats.take(np.sort(rows))
    return replace(chosen, scales=(chosen.scales + growth).astype(np.float32))


def random_subset(splats: Splats, keep: int) -> Splats:
    return subset(splats, np.random.default_rng(0).permutation(len(splats))[:keep])


def most_important(splats: Splats, keep: int) -> Splats:
    return subset(splats, np.argsort(-light(splats), kind="stable")[:keep])


OURS = {"merging (ours)": decimate, "top alpha x area": most_important, "random": random_subset}
PEERS = {"splat-transform": "--decimate", "splat-transform adaptive": "--decimate-adaptive"}


def write_ply(path: Path, splats: Splats) -> None:
    n = len(splats)
    rest = splats.shN.reshape(n, splats.shN.shape[1] * splats.shN.shape[2])
    columns = {"xyz"[i]: splats.means[:, i] for i in range(3)}
    columns |= {f"f_dc_{i}": splats.sh0[:, i] for i in range(3)}
    columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns |= {"opacity": splats.opacities}
    columns |= {f"scale_{i}": splats.scales[:, i] for i in range(3)}
    columns |= {f"rot_{i}": splats.quats[:, i] for i in range(4)}
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {n}\n"
    header += "".join(f"property float {name}\n" for name in columns) + "end_header\n"
    path.write_bytes(header.encode() + np.stack(list(columns.values()), axis=1).tobytes())


def measure(metric: str, original: Path, decimated: Path) -> dict[str, float]:
    command = [sys.executable, metric, str(original), str(decimated)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def peer_seconds(command: str, original: Path, option: str, fraction: float, out: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call = [*shlex.split(command), "-q", "-w", "-g", "cpu", str(original)]
    subprocess.run([*call, option, f"{100 * fraction:g}%", str(out)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="+", type=Path)
    parser.add_argument("--metric", required=True)
    parser.add_argument("--peer", help="command that runs splat-transform")
    parser.add_argument("--keep", type=float, nargs="+", default=FRACTIONS)
    arguments = parser.parse_args()
    print("| scene | keep | method | PSNR | worst view | CPU s |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "decimated.ply"
        for path in arguments.scenes:
            splats = read(path, path.name)
            for fraction in arguments.keep:
                rows = []
                for name, method in OURS.items():
                    started = time.process_time()
                    found = method(splats, round(fraction * len(splats)))
                    seconds = time.process_time() - started
                    write_ply(out, found)
                    rows.append((name, measure(arguments.metric, path, out), seconds))
                for name, option in PEERS.items() if arguments.peer else ():
                    seconds = peer_seconds(arguments.peer, path, option, fraction, out)
                    rows.append((name, measure(arguments.metric, path, out), seconds))
                for name, quality, seconds in rows:
                    figures = f"{quality['psnr']:.2f} | {quality['psnr_min']:.2f} | {seconds:.1f}"
                    print(f"| {path.stem} | {fraction:.0%} | {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
