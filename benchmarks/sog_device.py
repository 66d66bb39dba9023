"""Times .ply on disk -> .sog in one warm process, as a worker does it, on a CPU and on a GPU.

Both results are judged by rendering them on the last device; that is not part of the time. The
first run of a process compiles kernels and is reported apart. On a GPU the palette is made beside
the rest, so its stage is only what is left to wait for; `gpu_s` is the time in which a kernel or a
copy was running, from one more run under PyTorch's profiler where that is installed.

    python benchmarks/sog_device.py scene.ply ... [--devices cpu cuda:0] [--repeat 3]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.context import InputFile, LocalContext
from models.splat_to_sog.pipeline import load
from models.splat_to_sog.pipeline_options import SplatOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda:0"])
    parser.add_argument("--preset", default="quality")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--no-report", action="store_true", help="do not render")
    arguments = parser.parse_args()
    for file in arguments.files:
        for device in arguments.devices:
            print(json.dumps(measure(file, device, arguments)), flush=True)


def measure(file: Path, device: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """First and median warm wall seconds, stages of the last run, size and PSNR of the result."""
    row: dict[str, Any] = {"scene": file.name, "device": device, "preset": arguments.preset}
    pipeline = load(device)
    inputs = [InputFile(file, file.name)]
    seconds = []
    for turn in range(arguments.repeat + 1 if device != "cpu" else 1):
        with tempfile.TemporaryDirectory() as folder:
            options = SplatOptions(preset=arguments.preset, report=False)
            begin, cpu = time.perf_counter(), time.process_time()
            result = pipeline(LocalContext(Path(folder), device=device), inputs, options)
            seconds.append(time.perf_counter() - begin)
            row["cpu_s"] = round(time.process_time() - cpu, 2)
            row["stages"] = dict(result.report["seconds"])
            row["bytes"] = result.report["bytes_out"]
            row["entries"] = result.report["palette_entries"]
            row["times_smaller"] = round(result.report["bytes_in"] / row["bytes"], 2)
            if turn == 0:
                row["first_s"] = round(seconds[0], 2)
    if len(seconds) > 1:
        row["warm_s"] = round(statistics.median(seconds[1:]), 2)
    row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if device != "cpu" and importlib.util.find_spec("torch"):
        with tempfile.TemporaryDirectory() as folder:
            options = SplatOptions(preset=arguments.preset, report=False)
            context = LocalContext(Path(folder), device=device)
            row["gpu_s"] = gpu_seconds(lambda: pipeline(context, inputs, options))
    if not arguments.no_report:
        with tempfile.TemporaryDirectory() as folder:
            options = SplatOptions(preset=arguments.preset)
            context = LocalContext(Path(folder), device=arguments.devices[-1])
            if device == "cpu":  # coded here, drawn there
                context = Drawn(Path(folder), coded_on="cpu", drawn_on=arguments.devices[-1])
            row["psnr_db"] = pipeline(context, inputs, options).report["quality"]["psnr_db"]
    return row


def gpu_seconds(run: Callable[[], object]) -> float:
    """Seconds in which the GPU was busy, with kernels or with copies."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as found:
        run()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in found.events()
        if event.device_type == DeviceType.CUDA
    )
    busy, until = 0.0, 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return round(busy / 1e6, 3)


class Drawn(LocalContext):
    """Codes on one device and renders the report on another."""

    def __init__(self, workdir: Path, coded_on: str, drawn_on: str) -> None:
        super().__init__(workdir, device=coded_on)
        self._drawn_on = drawn_on

    def progress(self, stage: str, fraction: float, message: str = "") -> None:
        if stage == "compare":
            self.device = self._drawn_on


if __name__ == "__main__":
    main()
