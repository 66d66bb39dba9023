"""Measures the metrics themselves: CPU seconds of the compiled loops and of plain numpy.

Does not measure a codec. Each path runs in a process of its own, so start-up, imports and peak
memory are its own; the compiled one runs twice, with an empty cache and with a filled one.

    python benchmarks/metrics.py scene.ply ... [--views 8] [--size 512] [--no-numpy] [--markdown]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATHS = {"numba, cold": "numba", "numba, cached": "numba", "numpy": "numpy"}


def main() -> None:
    arguments = parse()
    if arguments.path:
        print(json.dumps(measure(Path(arguments.files[0]), arguments)))
        return
    rows = []
    for file in arguments.files:
        with tempfile.TemporaryDirectory() as cache:
            for name, path in PATHS.items():
                if path != "numpy" or not arguments.no_numpy:
                    found = child(file, path, cache, arguments)
                    rows.append({"scene": Path(file).stem, "by": name} | found)
    if arguments.markdown:
        print("\n".join(markdown(rows)))
    else:
        print(json.dumps(rows, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="splat files of any accepted type")
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--size", type=int, default=512, help="side of the pictures in pixels")
    parser.add_argument("--no-numpy", action="store_true", help="only the compiled path")
    parser.add_argument("--markdown", action="store_true", help="a table in place of JSON")
    parser.add_argument("--path", choices=("numba", "numpy"), help=argparse.SUPPRESS)
    return parser.parse_args()


def child(file: str, path: str, cache: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One path in a fresh process."""
    options = ["--views", str(arguments.views), "--size", str(arguments.size), "--path", path]
    command = [sys.executable, "-P", str(Path(__file__)), file, *options]
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout))


def measure(file: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT))
    from models.splat_to_sog.metrics.attributes import attribute_errors
    from models.splat_to_sog.metrics.cameras import orbit
    from models.splat_to_sog.metrics.renderer import HostScene
    from models.splat_to_sog.readers import read

    splats = read(file, file.name)
    before_mb = peak_mb()
    begin = time.process_time()
    if arguments.path == "numba":
        from models.splat_to_sog.metrics import project_numba, rasterise_numba  # noqa: F401
    loaded = time.process_time()
    scene = HostScene(splats, compiled=arguments.path == "numba")
    for camera in orbit(splats, arguments.views, arguments.size):
        scene.render(camera)
    drawn = time.process_time()
    rendering_mb = peak_mb() - before_mb
    attribute_errors(splats, splats)
    return {
        "splats": len(splats),
        "compile_cpu_s": round(loaded - begin, 2),
        "render_cpu_s": round(drawn - loaded, 2),
        "attributes_cpu_s": round(time.process_time() - drawn, 2),
        "extra_mb": round(rendering_mb),
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    columns = {
        "scene": "scene",
        "splats": "splats",
        "by": "by",
        "compile_cpu_s": "load or compile, CPU s",
        "render_cpu_s": "render, CPU s",
        "attributes_cpu_s": "attributes, CPU s",
        "extra_mb": "extra MB",
    }
    lines = ["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(str(row[column]) for column in columns) + " |")
    return lines


if __name__ == "__main__":
    main()
