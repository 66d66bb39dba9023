"""The real app on a real uvicorn and a real socket, in a thread of the test's process.

`serve` starts one; by default over a `FakeQueue`, whose jobs the test moves through their states
by hand. Tests that need pipelines use `live_service`.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.errors import Conflict, IdempotencyConflict, NotFound, NotReady
from service.http.protocol import LimitedProtocol
from service.http.server import Server
from service.jobs.queue import JobQueue, new_job_id
from service.jobs.records import Attempt, Job, NewJob, Progress, StoredFile, WorkerStatus
from service.jobs.states import JobState
from service.pipelines import PIPELINES, PipelineEntry
from service.settings import Settings, read_settings
from service.storage.artifacts import ArtifactStore


class FakeQueue:
    """Jobs in memory, with JobQueue's face. `become` does a worker's part.

    settle: when set, called with each new job; its result is what the job becomes
    broken: every call answers that the database is away
    """

    def __init__(self, settings: Settings, store: ArtifactStore) -> None:
        self.store = store
        self.jobs: dict[str, Job] = {}
        self.alive = [WorkerStatus("w:cpu", "cpu", 1, "idle", datetime.now(UTC))]
        self.settle: Callable[[Job], dict[str, Any]] | None = None
        self.broken = False

    def open(self) -> None: ...

    def close(self) -> None: ...

    def check(self) -> None:
        if self.broken:
            raise NotReady("The job database is out of reach.")

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        self.check()
        if new.idempotency_key is not None:
            for job in self.jobs.values():
                if job.idempotency_key == new.idempotency_key:
                    if (job.steps, job.inputs) != (new.steps, new.inputs):
                        raise IdempotencyConflict(f"The key {new.idempotency_key} was used.")
                    return job, False
        job = Job(
            new_job_id(),
            new.task,
            new.steps,
            new.inputs,
            new.priority,
            JobState.QUEUED,
            datetime.now(UTC),
            idempotency_key=new.idempotency_key,
            queue_position=1 + sum(not job.finished for job in self.jobs.values()),
        )
        self.jobs[job.id] = job
        if self.settle is not None:
            self.become(job.id, **self.settle(job))
        return self.jobs[job.id], True

    def become(self, job_id: str, **changes: Any) -> Job:
        job = self.jobs[job_id]
        self.jobs[job_id] = replace(job, **changes, version=job.version + 1)
        return self.jobs[job_id]

    def succeed(self, job_id: str, *files: tuple[str, str, bytes]) -> Job:
        """Finish a job with (name, media type, bytes) as its artifacts."""
        return self.become(job_id, **self.success(*files))

    def success(self, *files: tuple[str, str, bytes]) -> dict[str, Any]:
        now = datetime.now(UTC)
        return {
            "state": JobState.SUCCEEDED,
            "artifacts": tuple(self._stored(*file) for file in files),
            "progress": Progress("done", 1.0),
            "started_at": now,
            "finished_at": now,
            "expires_at": now + timedelta(hours=1),
            "queue_position": None,
        }

    def _stored(self, name: str, media_type: str, content: bytes) -> StoredFile:
        with self.store.incoming() as payload:
            payload.write(content)
            return StoredFile(name, media_type, len(content), self.store.add(payload))

    def get(self, job_id: str) -> Job:
        self.check()
        if job_id not in self.jobs:
            raise NotFound(f"There is no job {job_id!r}.", code="job_not_found")
        return self.jobs[job_id]

    def versions(self, job_ids: list[str]) -> dict[str, int]:
        return {job_id: self.jobs[job_id].version for job_id in job_ids if job_id in self.jobs}

    def attempts(self, job_id: str) -> list[Attempt]:
        return []

    def cancel(self, job_id: str) -> Job:
        job = self.get(job_id)
        if job.finished:
            raise Conflict(f"Job {job_id} has ended: {job.state}.", code="job_finished")
        queued = job.state is JobState.QUEUED
        return self.become(job_id, state=JobState.CANCELLED if queued else JobState.CANCELLING)

    def page(self, **_filters: Any) -> tuple[list[Job], None]:
        self.check()
        return list(self.jobs.values()), None

    def counts(self) -> dict[JobState, int]:
        self.check()
        return {state: sum(j.state is state for j in self.jobs.values()) for state in JobState}

    def workers(self) -> list[WorkerStatus]:
        self.check()
        return self.alive


@dataclass
class Api:
    """A running API: its address, its parts, a client for it."""

    url: str
    app: FastAPI
    server: uvicorn.Server
    thread: threading.Thread
    client: httpx.Client
    settings: Settings

    @property
    def queue(self) -> Any:
        return self.app.state.parts.queue

    @property
    def store(self) -> ArtifactStore:
        store: ArtifactStore = self.app.state.parts.store
        return store

    @property
    def arriving(self) -> list[Path]:
        """Payloads that are half way into the store."""
        return list((self.settings.data_dir / "incoming").iterdir())

    def connect(self) -> socket.socket:
        """A raw connection, for what HTTP clients refuse to do."""
        connection = socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1])))
        connection.settimeout(30)
        return connection

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive(), "the server did not stop"


Serve = Callable[..., Api]


@pytest.fixture(scope="session", autouse=True)
def quiet_log() -> Iterator[None]:
    """The app runs in this process: its debug lines would drown the report."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def start_api() -> Callable[..., Api]:
    """Start an Api with settings of one's own; the caller stops it."""

    def start(
        data_dir: Path,
        *,
        real_queue: bool = False,
        protocol: type[LimitedProtocol] = LimitedProtocol,
        table: tuple[PipelineEntry, ...] = PIPELINES,
        **settings: Any,
    ) -> Api:
        chosen = read_settings({}, data_dir=data_dir, **{"min_free_bytes": 0} | settings)
        queue_type: Any = JobQueue if real_queue else FakeQueue
        app = create_app(chosen, make_queue=queue_type, table=table)
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, http=protocol, ws="none", log_config=None, timeout_graceful_shutdown=5
        )
        server = Server(config, app)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started and thread.is_alive():
            thread.join(0.01)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        return Api(url, app, server, thread, httpx.Client(base_url=url, timeout=30), chosen)

    return start


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Api], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One API over a FakeQueue for the tests of a module."""
    running = start_api(tmp_path_factory.mktemp("api"))
    yield running
    running.stop()


@pytest.fixture
def serve(start_api: Callable[..., Api], tmp_path: Path) -> Iterator[Serve]:
    """`serve(max_upload_bytes=1000)`: an API of one's own; stopped after the test."""
    with ExitStack() as stack:

        def begin(**options: Any) -> Api:
            running = start_api(tmp_path / "data", **options)
            stack.callback(running.stop)
            return running

        yield begin
