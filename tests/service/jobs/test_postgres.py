"""The same queue on a real PostgreSQL: one setting moves it, nothing else changes."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import NotReady
from service.jobs.queue import JobQueue
from service.jobs.states import JobState


def find_server() -> Path | None:
    """The folder of initdb and pg_ctl; Debian keeps them off PATH."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    path = shutil.which("initdb") or (found[-1] if found else None)
    return Path(path).resolve().parent if path else None


class Postgres:
    """A throw-away server; as root it runs as the user `postgres`, which it insists on."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self._folder, self._tools = folder, tools
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "-D", str(folder / "db"), "-A", "trust", "-U", "meshpress")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://meshpress@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1"
        self._run("pg_ctl", "-D", f"{self._folder}/db", "-w", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", f"{self._folder}/db", "-m", "immediate", "stop")

    def _run(self, tool: str, *arguments: str) -> None:
        command = [str(self._tools / tool), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    tools = find_server()
    if tools is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    folder = Path(f"/tmp/meshpress-pg-{os.getpid()}")
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    server = Postgres(folder, tools)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def bench(make_bench, postgres: Postgres):
    return make_bench(queue_url=postgres.url)


def test_jobs_run_cancel_and_page(bench):
    bench.start_worker()
    done = bench.wait(bench.submit("copy", "copy", content=b"pg"))
    assert bench.content(done) == b"pg++"
    slow = bench.wait_running(bench.submit("slow", seconds=30.0))
    bench.queue.cancel(slow.id)
    assert bench.wait(slow).state is JobState.CANCELLED
    page, _ = bench.queue.page(limit=2)
    assert [job.id for job in page] == [slow.id, done.id]


def test_a_living_worker_takes_over_from_a_dead_one(bench):
    first = bench.start_worker()
    job = bench.wait_running(bench.submit("slow_once", seconds=600.0))
    bench.start_worker()
    bench.wait(bench.submit("copy"))
    os.killpg(first.pid, signal.SIGKILL)
    assert bench.wait(job).state is JobState.SUCCEEDED
    assert len({item.worker for item in bench.queue.attempts(job.id)}) == 2


def test_a_database_outage_loses_nothing(bench, postgres):
    """The database dies under a running job for longer than the worker drains: clients hear 503,
    the worker leaves, and its successor ends the job."""
    worker = bench.start_worker()
    job = bench.wait_running(bench.submit("slow", seconds=30.0))
    postgres.stop()
    with pytest.raises(NotReady, match="out of reach"):
        bench.queue.get(job.id)
    started = time.monotonic()
    with pytest.raises(NotReady):
        bench.submit("copy")
    assert time.monotonic() - started < 30  # an answer, not the library's endless retry
    assert worker.wait(30) == 0  # it does not wait for what may take hours
    postgres.start()
    recovered = JobQueue(bench.settings, bench.store)
    assert recovered.get(job.id).state is not JobState.FAILED
    recovered.close()
    bench.start_worker()  # the supervisor's part
    bench.wait(job, lambda job: job.attempt == 2)
    bench.queue.cancel(job.id)
    assert bench.wait(job).state is JobState.CANCELLED
