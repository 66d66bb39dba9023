"""What the guard costs at the start of a service, with everything of a GPU stack to look at.

    python benchmarks/guard_start.py                      this environment, this machine's GPUs
    python benchmarks/guard_start.py --env VENV --target sm_120
                                                          as if it ran there, on such a GPU

Prints seconds and CPU seconds of the first run, which fills the audit's cache, and of later ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from service.guard.findings import Severity  # noqa: E402
from service.guard.installed import environment_at, this_environment  # noqa: E402
from service.guard.machine import Gpu, Machine, this_machine  # noqa: E402
from service.guard.stack import check_start  # noqa: E402
from service.guard.targets import Target  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", type=Path)
    parser.add_argument("--target", default="")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "audit.json"
        told = [once(arguments.env, arguments.target, cache) for _ in range(arguments.runs)]
    print(f"first: {told[0][0]:.2f} s, {told[0][1]:.2f} CPU s, {told[0][2]} findings")
    seconds, cpu = (statistics.median(row[i] for row in told[1:]) for i in (0, 1))
    print(f"later, median of {len(told) - 1}: {seconds:.2f} s, {cpu:.2f} CPU s")


def once(env: Path | None, target: str, cache: Path) -> tuple[float, float, int]:
    """Seconds, CPU seconds (children too), findings that are not good ones."""
    before, busy = time.perf_counter(), cpu_seconds()
    environment = environment_at(env) if env else this_environment()
    machine = this_machine()
    if target:
        gpu = Gpu(0, "made up", Target.parse(target), 16 << 30)
        machine = Machine((13, 0), "580.65.06", "libcuda.so.1", (gpu,))
    findings, _ = check_start(environment, machine, cache=cache)
    bad = sum(item.severity in (Severity.WARNING, Severity.FATAL) for item in findings)
    return time.perf_counter() - before, cpu_seconds() - busy, bad


def cpu_seconds() -> float:
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
