"""Queue figures: gap between queued jobs on one device, pick-up from idle, CPU while idle.

    python benchmarks/jobs.py [--jobs 60]

Starts a real `meshpress serve` on a free port with a temporary data folder, feeds it the shipped
sample and reads the times from the job records and the CPU seconds from /proc. Prints a Markdown
table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
IDLE_SECONDS = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=60)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as folder:
        service, client = start(Path(folder))
        try:
            gaps, wait = measure_gaps(client, jobs), measure_pick_up(client)
            time.sleep(8)  # the pace drops once nothing has been open for a while
            idle = measure_idle(service.pid)
        finally:
            os.killpg(service.pid, signal.SIGTERM)
            service.wait(30)
    print("| figure | median | p95 |\n|---|---|---|")
    print(f"| gap between queued jobs, one device, {jobs} jobs | {row(gaps)} |")
    print(f"| pick-up of a job by an idle worker | {row(wait)} |")
    print(f"| idle CPU of all processes, % of a core over {IDLE_SECONDS:.0f} s | {idle:.1f} | |")


def start(folder: Path) -> tuple[subprocess.Popen[bytes], httpx.Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = subprocess.Popen(
        [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
        + ["--data-dir", str(folder / "data")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if client.get("/readyz").status_code == 200:
                return service, client
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    raise SystemExit("the service did not become ready")


def submit(client: httpx.Client, seed: int) -> str:
    splat = (ROOT / "tests/samples/playbot.compressed.ply").read_bytes()
    answer = client.post("/v1/jobs/splat", params={"seed": seed}, content=splat)
    answer.raise_for_status()
    return str(answer.json()["id"])


def finished(client: httpx.Client, job_id: str) -> tuple[float, float, float]:
    """Seconds since the epoch at which the job was created, started, finished."""
    while True:
        job = client.get(f"/v1/jobs/{job_id}").json()
        if job["finished_at"]:
            assert job["state"] == "succeeded", job
            times = (job[name] for name in ("created_at", "started_at", "finished_at"))
            created, started, ended = (datetime.fromisoformat(text).timestamp() for text in times)
            return created, started, ended
        time.sleep(0.2)


def measure_gaps(client: httpx.Client, jobs: int) -> list[float]:
    """Milliseconds from one job's end to the next one's start, while jobs are waiting."""
    finished(client, submit(client, 10**6))  # warm
    times = [finished(client, job_id) for job_id in [submit(client, n) for n in range(jobs)]]
    return [1e3 * (later[1] - earlier[2]) for earlier, later in zip(times, times[1:], strict=False)]


def measure_pick_up(client: httpx.Client) -> list[float]:
    """Milliseconds from acceptance to start, one job at a time."""
    waits = []
    for number in range(15):
        created, started, _ = finished(client, submit(client, 2 * 10**6 + number))
        waits.append(1e3 * (started - created))
        time.sleep(0.3)
    return waits


def measure_idle(supervisor: int) -> float:
    """CPU of the whole process tree in % of one core."""
    before = cpu_seconds(supervisor)
    time.sleep(IDLE_SECONDS)
    return 100 * (cpu_seconds(supervisor) - before) / IDLE_SECONDS


def cpu_seconds(root: int) -> float:
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # ended meanwhile
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        seconds[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    tree = {root}
    while new := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= new
    return sum(seconds[pid] for pid in tree)


def row(values: list[float]) -> str:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"{statistics.median(values):.0f} ms | {p95:.0f} ms"


if __name__ == "__main__":
    main()
