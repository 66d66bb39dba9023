"""The API process as the supervisor runs it: it starts on a given socket and ends when told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.jobs.queue import JobQueue
from service.settings import read_settings, to_environment
from service.storage.artifacts import ArtifactStore

ROOT = Path(__file__).resolve().parents[3]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@dataclass
class Process:
    url: str
    popen: subprocess.Popen[bytes]


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """`python -m service.http.server FD` with a queue and no worker."""
    settings = read_settings({}, data_dir=tmp_path, min_free_bytes=0, drain_seconds=4.0)
    store = ArtifactStore(settings.effective_storage_url, settings.data_dir)
    queue = JobQueue(settings, store)
    queue.open()
    queue.close()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        popen = subprocess.Popen(
            [sys.executable, "-m", "service.http.server", str(listener.fileno()), ""],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            env={**os.environ, **to_environment(settings), "PYTHONPATH": str(ROOT)},
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200  # waits in the backlog
    yield Process(url, popen)
    popen.kill()
    popen.wait()
    for pipe in (popen.stdin, popen.stderr):
        if pipe is not None:
            pipe.close()


def in_thread(action: Any) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(action()))
    thread.start()
    return thread, results


def test_sigterm_ends_long_waits_and_the_process(process: Process) -> None:
    url = process.url
    job = httpx.post(f"{url}/v1/jobs/mesh", content=PNG).json()
    events, told = in_thread(lambda: httpx.get(url + job["links"]["events"], timeout=60))
    sync, failed = in_thread(lambda: httpx.post(f"{url}/v1/mesh", content=PNG, timeout=60))
    prefer = {"Prefer": "wait=60"}
    wait, accepted = in_thread(
        lambda: httpx.post(f"{url}/v1/jobs/mesh", content=PNG, headers=prefer, timeout=60)
    )
    deadline = time.monotonic() + 20
    while len(httpx.get(f"{url}/v1/jobs").json()["jobs"]) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.popen.send_signal(signal.SIGTERM)
    for thread in (events, sync, wait):
        thread.join(20)
    assert "event: state" in told[0].text, "the stream ended as a stream should"
    assert (failed[0].status_code, failed[0].json()["code"]) == (503, "restarting")
    assert failed[0].headers["location"].startswith("/v1/jobs/")
    assert accepted[0].status_code == 202, "the job is accepted all the same"
    assert process.popen.wait(20) == 0
    assert process.popen.stderr is not None
    assert b"Traceback" not in process.popen.stderr.read()


def test_an_orphaned_api_ends_and_has_had_nothing_to_say(process: Process) -> None:
    for _ in range(3):
        httpx.get(f"{process.url}/v1/jobs")
        httpx.get(f"{process.url}/v1/jobs/nope")
    assert process.popen.stdin is not None
    process.popen.stdin.close()  # as when the supervisor is killed
    process.popen.stdin = None
    assert process.popen.wait(20) == 0
    assert process.popen.stderr is not None
    assert process.popen.stderr.read() == b"", "requests that went well are not logged"
