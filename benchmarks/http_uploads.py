"""Measure the API process of a real service: upload latency and memory. Prints Markdown rows.

Knows the service from outside only: `meshpress serve` on a free port, HTTP, and /proc. No worker
runs, so that the figures are the control plane's.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20
GB = 10**9
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PLY_MAGIC = b"ply\nformat binary_little_endian 1.0\n"
BOUNDARY = "benchmark-boundary"

LATENCY_BAR_MS = 25.0
MEMORY_BAR_MB = 32.0


@dataclass(frozen=True)
class Service:
    port: int
    api_pid: int

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@contextmanager
def running_service(data_dir: Path) -> Iterator[Service]:
    """`meshpress serve --role api` on a free port until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "service.cli", "serve", "--role", "api"]
    command += ["--port", str(port), "--data-dir", str(data_dir)]
    with (data_dir / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        wait_until_alive(port)
        yield Service(port, child_of(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait_until_alive(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise TimeoutError("the service did not start")


def child_of(parent: int) -> int:
    """The API process: the supervisor's only child."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(children[0])


def upload_milliseconds(service: Service, repeats: int) -> list[float]:
    """Time from the request's first byte to the 202, for different bodies of 1 MiB."""
    connection = service.connect()
    times = []
    for _ in range(repeats + 5):
        body = PNG_MAGIC + os.urandom(MIB - len(PNG_MAGIC))
        began = time.perf_counter()
        connection.request("POST", "/v1/jobs/mesh", body, {"Content-Type": "image/png"})
        answer = connection.getresponse()
        answer.read()
        times.append((time.perf_counter() - began) * 1000)
        if answer.status != 202:
            raise RuntimeError(f"the service answered {answer.status}")
    return times[5:]


def upload_memory(service: Service, total_bytes: int, form: bool) -> tuple[float, float]:
    """(growth of the API's peak resident memory in MB, seconds) for one big upload."""
    Path(f"/proc/{service.api_pid}/clear_refs").write_text("5")  # reset the peak to the present
    before = memory_kb(service.api_pid, "VmRSS")
    headers = {"Content-Length": str(total_bytes), "Content-Type": "application/octet-stream"}
    prefix, suffix = PLY_MAGIC, b""
    if form:
        headers["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="a.ply"\r\n\r\n'
        prefix, suffix = head.encode() + PLY_MAGIC, f"\r\n--{BOUNDARY}--\r\n".encode()
    connection = service.connect()
    began = time.perf_counter()
    connection.request("POST", "/v1/jobs/splat", parts(prefix, suffix, total_bytes), headers)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 202:
        raise RuntimeError(f"the service answered {answer.status}")
    seconds = time.perf_counter() - began
    return (memory_kb(service.api_pid, "VmHWM") - before) * 1024 / 1e6, seconds


def parts(prefix: bytes, suffix: bytes, total_bytes: int) -> Iterator[bytes]:
    """A body of `total_bytes` that this process never holds whole."""
    yield prefix
    left = total_bytes - len(prefix) - len(suffix)
    block = os.urandom(MIB)
    while left > 0:
        yield block[: min(left, MIB)]
        left -= MIB
    yield suffix


def memory_kb(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise KeyError(field)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--big-bytes", type=int, default=GB)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="meshpress-bench-") as folder:
        with running_service(Path(folder)) as service:
            # Memory first: a fresh process has no free arenas to hide growth in.
            for form, name in ((False, "raw"), (True, "multipart")):
                growth, seconds = upload_memory(service, arguments.big_bytes, form)
                speed = arguments.big_bytes / seconds / 1e6
                rows.append(
                    f"| {arguments.big_bytes / 1e9:g} GB {name} upload: peak RSS growth of the API "
                    f"(speed) | {growth:.1f} MB ({speed:.0f} MB/s) | ≤ {MEMORY_BAR_MB:g} MB |"
                )
            times = sorted(upload_milliseconds(service, arguments.repeats))
            p95 = times[int(len(times) * 0.95)]
            rows.append(
                f"| 1 MiB upload to 202, median of {len(times)} (p95) | "
                f"{statistics.median(times):.1f} ms ({p95:.1f} ms) | ≤ {LATENCY_BAR_MS:g} ms |"
            )
            resident = memory_kb(service.api_pid, "VmRSS") * 1024 / 1e6
            rows.append(f"| API process at rest after these uploads, RSS | {resident:.0f} MB | |")
    print("| HTTP | measured | bar |\n|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
