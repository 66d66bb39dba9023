"""A real queue on real SQLite, with real worker processes over rehearsal pipelines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from service.jobs.queue import JobQueue
from service.jobs.records import Job, NewJob, Priority, Step, StoredFile
from service.jobs.states import JobState
from service.settings import Settings, to_environment
from service.storage.artifacts import ArtifactStore

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DEADLINE_SECONDS = 60.0


class Bench:
    """A queue, its store, and workers that can be started and killed at will."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = ArtifactStore(settings.effective_storage_url, settings.data_dir)
        self.queue = JobQueue(settings, self.store)
        self.queue.open()
        self._workers: list[subprocess.Popen[bytes]] = []

    def start_worker(
        self, runner: str = "rehearsal_runner", **settings: object
    ) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            **to_environment(replace(self.settings, **settings)),  # type: ignore[arg-type]
            "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}",
        }
        worker = subprocess.Popen(
            [sys.executable, "-m", "service.jobs.worker", "cpu", runner],
            stdin=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._workers.append(worker)
        return worker

    def submit(
        self,
        *pipelines: str,
        content: bytes = b"x",
        priority: Priority = Priority.NORMAL,
        key: str | None = None,
        seconds: float = 0.0,
    ) -> Job:
        with self.store.incoming() as payload:
            payload.write(content)
            sha256 = self.store.add(payload)
        steps = tuple(Step(name, "rehearsal", {"seconds": seconds}) for name in pipelines)
        inputs = (StoredFile("in.bin", "application/octet-stream", len(content), sha256),)
        job, _ = self.queue.submit(NewJob("rehearsal", steps, inputs, priority, key))
        return job

    def wait(self, job: Job, until: Callable[[Job], bool] = lambda job: job.finished) -> Job:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            job = self.queue.get(job.id)
            if until(job):
                return job
            time.sleep(0.02)
        raise AssertionError(f"still {job.state} after {DEADLINE_SECONDS} s")

    def wait_for(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not true():
            assert time.monotonic() < deadline, "it did not come true"
            time.sleep(0.05)

    def wait_running(self, job: Job) -> Job:
        return self.wait(
            job, lambda job: job.state is JobState.RUNNING and bool(job.progress.stage)
        )

    def content(self, job: Job) -> bytes:
        file = job.artifacts[0]
        return b"".join(self.store.read(file.sha256, 0, file.size_bytes))

    def runner_pid(self, worker: subprocess.Popen[bytes]) -> int:
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        assert len(children) == 1
        return int(children[0])

    def close(self) -> None:
        for worker in self._workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            assert worker.stdin is not None
            worker.stdin.close()
        self.queue.close()


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    """`make_bench(queue_url=…)`: benches closed at the test's end."""
    made: list[Bench] = []

    def make(**settings: object) -> Bench:
        defaults = {"data_dir": tmp_path / "data", "drain_seconds": 0.5}
        chosen = {**defaults, "cancel_grace_seconds": 0.5, **settings}
        made.append(Bench(Settings(**chosen)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
