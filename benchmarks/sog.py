"""Measures splat -> SOG: ours and splat-transform's in turn, on the same files in the same run.

Does not judge with our own code: both results are decoded by splat-transform, and the errors are
those of the neutral scripts in --tools (`render_metric.py`, `decode_err.py`).

    npm ci --ignore-scripts --prefix tests/browser
    python benchmarks/sog.py scene.compressed.ply ... --tools DIR [--repeat 3] [--markdown]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
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
PEER = [
    str(PACKAGES / f"node-linux-{ARCHITECTURE}/bin/node"),
    str(PACKAGES / "@playcanvas/splat-transform/bin/cli.mjs"),
    *("-q", "-w", "-g", "cpu"),
]


def main() -> None:
    arguments = parse()
    if arguments.encode:
        encode_in_this_process(Path(arguments.files[0]), Path(arguments.files[1]))
        return
    rows = [measure(Path(file), arguments) for file in arguments.files]
    if arguments.markdown:
        print("\n".join(markdown(rows)))
    else:
        print(json.dumps(rows, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="splat files of any accepted type")
    parser.add_argument("--tools", type=Path, help="folder of render_metric.py and decode_err.py")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; medians are reported")
    parser.add_argument("--timeout", type=float, default=600, help="seconds the peer may take")
    parser.add_argument("--no-peer", action="store_true", help="only ours")
    parser.add_argument("--markdown", action="store_true", help="a table in place of JSON")
    parser.add_argument("--encode", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def encode_in_this_process(source: Path, target: Path) -> None:
    """Our side, as a process of its own: start-up and imports count."""
    sys.path.insert(0, str(ROOT))
    from models.context import InputFile, LocalContext
    from models.splat_to_sog.options import SogOptions
    from models.splat_to_sog.pipeline import load

    inputs = [InputFile(source, source.name)]
    with tempfile.TemporaryDirectory() as folder:
        result = load("cpu")(LocalContext(Path(folder)), inputs, SogOptions())
        target.write_bytes(result.artifacts[0].path.read_bytes())


def measure(source: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One source: {source, ours: {...}, peer: {...}}."""
    readable = source / "meta.json" if source.is_dir() else source
    # -P: files beside this one must not stand in for modules of the standard library.
    ours = [sys.executable, "-P", str(Path(__file__)), "--encode", str(source)]
    commands = {"ours": ours} | ({} if arguments.no_peer else {"peer": [*PEER, str(readable)]})
    row: dict[str, Any] = {"source": source.name, "bytes_in": size(source)}
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / "original.ply"
        subprocess.run([*PEER, str(readable), str(original)], check=True)
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in commands}
        for _ in range(arguments.repeat):
            for side, command in commands.items():
                target = Path(folder) / f"{side}.sog"
                runs[side].append(timed([*command, str(target)], arguments.timeout))
        for side in commands:
            target = Path(folder) / f"{side}.sog"
            row[side] = {
                key: round(statistics.median(run[key] for run in runs[side]), 2)
                for key in runs[side][0]
            }
            if not target.exists():
                row[side]["gave_up_after_s"] = arguments.timeout
                continue
            row[side]["bytes"] = target.stat().st_size
            with zipfile.ZipFile(target) as archive:
                row[side]["textures"] = {i.filename: i.compress_size for i in archive.infolist()}
            decoded = Path(folder) / f"{side}.ply"
            subprocess.run([*PEER, str(target), str(decoded)], check=True)
            if arguments.tools:
                row[side]["errors"] = judge(arguments.tools, "decode_err.py", original, decoded)
                row[side]["render"] = judge(arguments.tools, "render_metric.py", original, decoded)
    return row


def timed(command: Sequence[str], timeout: float) -> dict[str, float]:
    """Wall and CPU seconds and peak resident memory of one process and its threads."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            if status:
                raise SystemExit(f"exit status {os.waitstatus_to_exitcode(status)}: {command}")
            break
        if time.perf_counter() - begin > timeout:
            process.kill()
            _, _, usage = os.wait4(process.pid, 0)
            break
        time.sleep(0.005)
    return {
        "wall_s": time.perf_counter() - begin,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_mb": usage.ru_maxrss / 1024,
    }


def judge(tools: Path, script: str, original: Path, decoded: Path) -> dict[str, Any]:
    command = [sys.executable, str(tools / script), str(original), str(decoded)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(Path(tempfile.gettempdir()) / "numba")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def size(path: Path) -> int:
    return sum(f.stat().st_size for f in path.iterdir()) if path.is_dir() else path.stat().st_size


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    columns = (
        ("bytes", lambda side: f"{side['bytes']:,}"),
        ("PSNR dB", lambda side: f"{side['render']['psnr']:.2f}"),
        ("rotation mean deg", lambda side: f"{side['errors']['rot_mean_deg']:.3f}"),
        ("opacity RMS /255", lambda side: f"{side['errors']['opacity_rmse_255']:.3f}"),
        ("wall s", lambda side: f"{side['wall_s']:.2f}"),
        ("CPU s", lambda side: f"{side['cpu_s']:.2f}"),
        ("peak MB", lambda side: f"{side['rss_mb']:.0f}"),
    )
    lines = ["| scene | by | " + " | ".join(name for name, _ in columns) + " |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for row in rows:
        for side, by in (("ours", "meshpress"), ("peer", "splat-transform")):
            if side not in row:
                continue
            cells = [cell(show, row[side]) for _, show in columns]
            lines.append(f"| {row['source']} | {by} | " + " | ".join(cells) + " |")
    return lines


def cell(show: Any, side: dict[str, Any]) -> str:
    try:
        return str(show(side))
    except KeyError:
        return "-"  # not measured: no --tools, or the peer gave up


if __name__ == "__main__":
    main()
