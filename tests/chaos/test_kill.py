"""Jobs through a whole service whose processes are killed at random: nothing lost, nothing twice.

Every job is one of the product's own pipelines on a small real input. Chaos kills API, worker and
runner with SIGKILL; the supervisor brings them back; at last even the supervisor is killed and
started again by hand. CHAOS_JOBS sets the number of jobs (CI: 40; the full run: 200).
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
JOBS = int(os.environ.get("CHAOS_JOBS", "40"))
MEAN_SECONDS_BETWEEN_KILLS = 5.0  # a fresh worker needs some seconds to load its pipelines
DEADLINE_SECONDS = 120 + 8 * JOBS
FINAL = {"succeeded", "failed", "cancelled", "expired"}


def processes_of(supervisor: int) -> dict[str, list[int]]:
    """The living API, worker and runner processes below this supervisor."""
    found: dict[str, list[int]] = {"api": [], "worker": [], "runner": []}
    for child in _children(supervisor):
        command = _command(child)
        if "service.http.server" in command:
            found["api"].append(child)
        elif "service.jobs.worker" in command:
            found["worker"].append(child)
            found["runner"] += [
                pid for pid in _children(child) if "service.jobs.runner" in _command(pid)
            ]
    return found


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended while we looked
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


class Service:
    """`meshpress serve` on a fixed port and data folder; may be started again."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MESHPRESS_")}
        # Chaos here is not the job's fault: the poison limit must not end a job by bad luck.
        environment |= {"PYTHONPATH": str(ROOT), "MESHPRESS_ATTEMPT_LIMIT": "100"}
        with (self.folder / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service.cli", "serve", "--port", str(self.port)]
                + ["--data-dir", str(self.folder / "data")],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL to the supervisor alone: its children must notice and end by themselves."""
        assert self.process is not None
        children = [pid for pids in processes_of(self.process.pid).values() for pid in pids]
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + 30
        while any(_command(pid) for pid in children):
            assert time.monotonic() < deadline, "children outlive their supervisor"
            time.sleep(0.05)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(40)


class Chaos(threading.Thread):
    """Kills one process at a time, at random moments, until told to stop."""

    def __init__(self, service: Service, seed: int) -> None:
        super().__init__(daemon=True)
        self.service, self.random = service, random.Random(seed)
        self.kills: dict[str, int] = {"api": 0, "worker": 0, "runner": 0}
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(self.random.expovariate(1 / MEAN_SECONDS_BETWEEN_KILLS)):
            assert self.service.process is not None
            targets = processes_of(self.service.process.pid)
            kind = self.random.choice(sorted(targets))
            for pid in targets[kind][:1]:
                os.kill(pid, signal.SIGKILL)
                self.kills[kind] += 1


def patiently(call, deadline: float) -> httpx.Response:
    """Repeat a request while the API is down: what any client does on a refused connection."""
    while True:
        try:
            answer = call()
            if answer.status_code < 500:
                return answer
        except httpx.TransportError:
            pass  # killed under our request; the next try tells
        assert time.monotonic() < deadline, "the service did not come back"
        time.sleep(0.1)


@pytest.fixture
def service(tmp_path, free_port):
    service = Service(tmp_path, free_port)
    service.start()
    yield service
    if service.process.poll() is None:
        service.stop()


@pytest.fixture
def client(service):
    with httpx.Client(base_url=service.url, timeout=20) as client:
        yield client


@pytest.mark.chaos
@pytest.mark.timeout(DEADLINE_SECONDS + 120)
def test_jobs_survive_kills_of_every_process(tmp_path, samples, service, client):
    deadline = time.monotonic() + DEADLINE_SECONDS
    patiently(lambda: client.get("/readyz"), deadline)
    chaos = Chaos(service, seed=JOBS)
    chaos.start()
    splat = (samples / "playbot.compressed.ply").read_bytes()

    ids = []
    for number in range(JOBS):
        headers = {"Idempotency-Key": f"chaos-{number}"}
        answer = patiently(
            lambda headers=headers, number=number: client.post(
                "/v1/jobs/splat", params={"seed": number}, content=splat, headers=headers
            ),
            deadline,
        )
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["id"])
    assert len(set(ids)) == JOBS  # a repeated key is one job, an accepted job is not forgotten

    _wait_for_half(client, ids, deadline)
    chaos.ended.set()
    chaos.join()
    service.kill()
    service.start()
    chaos = _second_wave(service, chaos)

    states = {}
    while len(states) < JOBS:
        for job_id in ids:
            if job_id not in states:
                job = patiently(lambda job_id=job_id: client.get(f"/v1/jobs/{job_id}"), deadline)
                assert job.status_code == 200, job.text
                if job.json()["state"] in FINAL:
                    states[job_id] = job.json()
        assert time.monotonic() < deadline, f"{JOBS - len(states)} jobs have not ended"
        time.sleep(0.2)
    chaos.ended.set()
    chaos.join()
    print("kills:", chaos.kills, "plus the supervisor once")

    failed = [job["error"] for job in states.values() if job["state"] != "succeeded"]
    assert not failed
    for job_id in ids[:: max(1, JOBS // 10)]:
        artifact = states[job_id]["artifacts"][0]
        href = f"/v1/jobs/{job_id}/artifacts/{artifact['name']}"
        body = patiently(lambda href=href: client.get(href), deadline)
        assert len(body.content) == artifact["size_bytes"]
    service.stop()
    _check_database(tmp_path / "data" / "queue.db")
    _check_log(tmp_path / "service.log")


def _wait_for_half(client: httpx.Client, ids: list[str], deadline: float) -> None:
    while True:
        page = patiently(
            lambda: client.get("/v1/jobs", params={"state": "succeeded", "limit": 100}), deadline
        )
        if len(page.json()["jobs"]) >= min(100, len(ids) // 2):
            return
        time.sleep(0.2)


def _second_wave(service: Service, first: Chaos) -> Chaos:
    second = Chaos(service, seed=JOBS + 1)
    second.kills = first.kills
    second.start()
    return second


def _check_database(path: Path) -> None:
    """Each job was published by exactly one attempt, its last, and none is left over."""
    database = sqlite3.connect(path)
    try:
        finished = database.execute(
            "SELECT job_id, count(*) FROM meshpress_attempts WHERE outcome = 'finished' "
            "GROUP BY job_id"
        ).fetchall()
        states = dict(
            database.execute("SELECT state, count(*) FROM meshpress_jobs GROUP BY state").fetchall()
        )
    finally:
        database.close()
    assert states == {"succeeded": JOBS}
    # A worker killed between publishing and closing its attempt leaves that attempt open, so a
    # job may have no finished attempt; it must never have two.
    assert all(count == 1 for _, count in finished)


def _check_log(path: Path) -> None:
    """A worker logs each publication it made: no job may have two."""
    published: dict[str, int] = {}
    for line in path.read_text().splitlines():
        if '"event": "job_succeeded"' in line:
            job_id = json.loads(line)["job_id"]
            published[job_id] = published.get(job_id, 0) + 1
    assert len(published) >= JOBS - 20  # a worker may be killed before it could write the line
    assert max(published.values()) == 1
