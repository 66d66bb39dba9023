"""Measures splat -> SOG: ours and splat-transform's in turn, on the same files in the same run.

Does not judge with our own code: every result is decoded by splat-transform, and the errors are
those of the neutral scripts in --tools (`render_metric.py`, `decode_err.py`); with --engine both
are drawn by the PlayCanvas engine as well.

    npm ci --ignore-scripts --prefix tests/browser
    python benchmarks/sog.py scene.ply ... --tools DIR [--presets quality small tiny] [--repeat 3]
    python benchmarks/sog.py --results results.json --write docs/benchmarks.md

Figures gather in --results, a file of one entry a scene; --write puts its tables between the
marks in the page.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ROOT / "tests/browser/node_modules"
ARCHITECTURE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "x64")
NODE = str(PACKAGES / f"node-linux-{ARCHITECTURE}/bin/node")
PEER = [NODE, str(PACKAGES / "@playcanvas/splat-transform/bin/cli.mjs"), *("-q", "-w", "-g", "cpu")]
OURS = [sys.executable, "-m", "service.cli", "sog", "-q", "-w"]
MARKS = ("<!-- sog: begin, written by benchmarks/sog.py -->", "<!-- sog: end -->")
FOREGROUND = 8  # of 255: below this a pixel of both pictures is background

Run = dict[str, Any]


def main() -> None:
    arguments = parse()
    results = arguments.results
    known: dict[str, Any] = json.loads(results.read_text()) if results and results.exists() else {}
    for file in arguments.files:
        known[Path(file).name] = measure(Path(file), arguments, known.get(Path(file).name, {}))
        if results:
            results.write_text(json.dumps(known, indent=1))
    text = "\n".join(tables(known))
    if arguments.write:
        page = arguments.write.read_text()
        before, rest = page.split(MARKS[0])
        arguments.write.write_text(
            f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}"
        )
    else:
        print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="splat files of any accepted type")
    parser.add_argument("--presets", nargs="+", default=["quality"], help="ours, one run each")
    parser.add_argument("--tools", type=Path, help="folder of render_metric.py and decode_err.py")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; medians are reported")
    parser.add_argument("--timeout", type=float, default=600, help="seconds the peer may take")
    parser.add_argument("--device", default="cpu", help="where ours runs")
    parser.add_argument("--no-peer", action="store_true", help="only ours")
    parser.add_argument(
        "--engine", action="store_true", help="screenshots in the PlayCanvas engine"
    )
    parser.add_argument("--results", type=Path, help="JSON file in which figures gather")
    parser.add_argument("--write", type=Path, help="page whose marked part becomes the tables")
    return parser.parse_args()


def measure(source: Path, arguments: argparse.Namespace, row: Run) -> Run:
    """One scene: {bytes_in, sides: {peer: {...}, quality: {...}, ...}}."""
    commands = {preset: [*OURS, "--preset", preset] for preset in arguments.presets}
    if arguments.device != "cpu":
        commands = {side: [*line, "--device", arguments.device] for side, line in commands.items()}
    if not arguments.no_peer:
        commands = {"splat-transform": PEER} | commands
    row = {"bytes_in": source.stat().st_size, "sides": row.get("sides", {})}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original = source
        if source.suffix != ".ply" or ".compressed" in source.name:
            original = folder / "original.ply"
            subprocess.run([*PEER, str(source), str(original)], check=True)
        runs: dict[str, list[Run]] = {side: [] for side in commands}
        for _ in range(arguments.repeat):
            for side, command in commands.items():
                target = folder / f"{side}.sog"
                if not any("gave_up_after_s" in run for run in runs[side]):
                    line = [*command, str(source), str(target)]
                    runs[side].append(timed(line, arguments.timeout))
        for side in commands:
            row["sides"][side] = judge(original, folder, side, runs[side], arguments)
        if arguments.engine:
            screenshots(original, folder, {side: row["sides"][side] for side in commands})
    return row


def judge(
    original: Path, folder: Path, side: str, runs: Sequence[Run], arguments: argparse.Namespace
) -> Run:
    """Medians of the runs, and what the result is worth."""
    figures: Run = {
        key: round(statistics.median(run[key] for run in runs), 2)
        for key in ("wall_s", "cpu_s", "rss_mb")
    }
    target, decoded = folder / f"{side}.sog", folder / f"{side}.ply"
    if any("gave_up_after_s" in run for run in runs) or not target.exists():
        return figures | {"gave_up_after_s": arguments.timeout}
    figures["runs"] = len(runs)
    figures["bytes"] = target.stat().st_size
    with zipfile.ZipFile(target) as archive:
        figures["textures"] = {i.filename: i.compress_size for i in archive.infolist()}
    subprocess.run([*PEER, str(target), str(decoded)], check=True)
    if arguments.tools:
        figures["errors"] = ask(arguments.tools / "decode_err.py", original, decoded)
        figures["render"] = ask(arguments.tools / "render_metric.py", original, decoded)
    return figures


def timed(command: Sequence[str], timeout: float) -> Run:
    """Wall and CPU seconds and peak resident memory of one process and its threads."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT, env=as_installed())
    gave_up: Run = {}
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            if status:
                raise SystemExit(f"exit status {os.waitstatus_to_exitcode(status)}: {command}")
            break
        if time.perf_counter() - begin > timeout:
            process.kill()
            _, _, usage = os.wait4(process.pid, 0)
            gave_up = {"gave_up_after_s": timeout}
            break
        time.sleep(0.005)
    return gave_up | {
        "wall_s": time.perf_counter() - begin,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_mb": usage.ru_maxrss / 1024,
    }


def as_installed() -> dict[str, str]:
    """The environment, with Python keeping the modules it compiled: an installed package brings
    them, a checkout has them after the first run."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    folder = Path(tempfile.gettempdir()) / "meshpress-compiled"
    return {"PYTHONPYCACHEPREFIX": str(folder), **kept}


def ask(script: Path, original: Path, decoded: Path) -> Run:
    command = [sys.executable, str(script), str(original), str(decoded)]
    environment = {"NUMBA_CACHE_DIR": str(Path(tempfile.gettempdir()) / "numba"), **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def screenshots(original: Path, folder: Path, sides: dict[str, Run]) -> None:
    """PSNR of the engine's 512 x 512 pictures against that of the source, on foreground pixels."""
    import numpy as np
    from PIL import Image

    sys.path.insert(0, str(ROOT))
    from models.splat_to_sog.readers import read

    means = read(original, original.name).means
    centre = np.median(means, axis=0)
    radius = float(np.percentile(np.linalg.norm(means - centre, axis=1), 90))
    view = json.dumps({"centre": centre.tolist(), "radius": radius})
    chromium = shutil.which("chromium") or "chromium"
    scenes = [original, *(folder / f"{side}.sog" for side in sides if "bytes" in sides[side])]
    command = [NODE, str(ROOT / "tests/browser/shoot.mjs"), chromium, str(folder), view]
    subprocess.run([*command, *map(str, scenes)], check=True, stdout=subprocess.DEVNULL)

    def pixels(scene: Path) -> Any:
        with Image.open(folder / f"{scene.name}.png") as image:
            return np.asarray(image.convert("RGB")).astype(np.float64)

    source = pixels(original)
    for scene in scenes[1:]:
        drawn = pixels(scene)
        seen = (source.max(axis=2) > FOREGROUND) | (drawn.max(axis=2) > FOREGROUND)
        error = float(np.mean((source - drawn)[seen] ** 2))
        psnr = 10 * np.log10(255**2 / max(error, 1e-9))
        sides[scene.stem]["engine"] = {"psnr": round(psnr, 2), "seen": round(float(seen.mean()), 3)}


def tables(known: dict[str, Any]) -> list[str]:
    """Figures of every scene and side, then the bytes of every texture."""
    columns = (
        ("bytes", lambda side, row: f"{side['bytes']:,}"),
        ("of the peer's", lambda side, row: ratio(side, row, "bytes")),
        ("smaller than the input", lambda side, row: f"{row['bytes_in'] / side['bytes']:.1f}x"),
        ("PSNR dB", lambda side, row: f"{side['render']['psnr']:.2f}"),
        ("SSIM", lambda side, row: f"{side['render']['ssim']:.4f}"),
        ("engine dB", lambda side, row: f"{side['engine']['psnr']:.1f}"),
        ("CPU s", lambda side, row: beside(f"{side['cpu_s']:.2f}", side, row, "cpu_s")),
        ("wall s", lambda side, row: f"{side['wall_s']:.2f}"),
        ("peak MB", lambda side, row: beside(f"{side['rss_mb']:.0f}", side, row, "rss_mb")),
    )
    lines = ["| scene | by | " + " | ".join(name for name, _ in columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for scene, row in known.items():
        for by, side in row["sides"].items():
            if "gave_up_after_s" in side:
                spent = (
                    f"no result after {side['gave_up_after_s']:.0f} s, {side['cpu_s']:.0f} CPU s"
                )
                lines.append(f"| {scene} | {by} | {spent} |" + " |" * (len(columns) - 1))
                continue
            lines.append(
                f"| {scene} | {by} | " + " | ".join(cell(s, side, row) for _, s in columns) + " |"
            )
    lines += ["", "Bytes of each texture:", ""]
    names = sorted(
        {n for row in known.values() for s in row["sides"].values() for n in s.get("textures", ())}
    )
    lines.append(
        "| scene | by | " + " | ".join(name.removesuffix(".webp") for name in names) + " |"
    )
    lines.append("|---" * (len(names) + 2) + "|")
    for scene, row in known.items():
        for by, side in row["sides"].items():
            if "textures" in side:
                sizes = [f"{side['textures'][n]:,}" if n in side["textures"] else "" for n in names]
                lines.append(f"| {scene} | {by} | " + " | ".join(sizes) + " |")
    return lines


def beside(figure: str, side: Run, row: Run, key: str) -> str:
    """The figure, and its share of the peer's where the peer was run."""
    return f"{figure} ({ratio(side, row, key)})" if "splat-transform" in row["sides"] else figure


def ratio(side: Run, row: Run, key: str) -> str:
    peer = row["sides"]["splat-transform"]
    return "1" if side is peer else f"{side[key] / peer[key]:.2f}x"


def cell(show: Any, side: Run, row: Run) -> str:
    try:
        return str(show(side, row))
    except KeyError:
        return "-"  # not measured: no --tools, no --engine, or the peer gave up


if __name__ == "__main__":
    main()
