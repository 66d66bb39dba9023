"""The queue as the HTTP layer and the CLI see it: submit, look, cancel.

Joins the ledger (what users see) and the engine (what gets jobs to workers); knows neither
HTTP nor processes. Thread-safe; calls block on the database, so async code calls it in a thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from service.errors import Conflict, IdempotencyConflict, InvalidRequest, NotReady, QueueFull
from service.jobs import database
from service.jobs.engine import QueueClient
from service.jobs.ledger import Ledger
from service.jobs.records import Attempt, Job, NewJob, WorkerStatus
from service.jobs.roster import Roster
from service.jobs.rows import RANK
from service.jobs.states import JobState
from service.settings import Settings
from service.storage.artifacts import ArtifactStore

LOCK_SECONDS = 3.0  # a request does not wait longer for the database than this


class JobQueue:
    """open() before use, close() after; both once."""

    def __init__(self, settings: Settings, store: ArtifactStore) -> None:
        self._settings = settings
        self._store = store
        self._engine = database.create_engine(settings.effective_queue_url, LOCK_SECONDS)
        self._ledger = Ledger(self._engine)
        self._roster = Roster(self._engine)
        self._client = QueueClient(self._engine)
        # SQLite lets one writer in at a time; queueing here is fairer than its busy handler.
        self._submitting = threading.Lock()

    def open(self) -> None:
        """Raises NotReady when the database is out of reach or of another version."""
        with _reachable():
            database.prepare(self._settings.effective_queue_url)
            self._client.prepare(self._settings.effective_queue_url)

    def close(self) -> None:
        self._client.close()
        self._engine.dispose()

    def check(self) -> None:
        """Raises NotReady when the database is out of reach."""
        with _reachable(), self._engine.connect() as connection:
            connection.execute(sa.select(1))

    # -- submitting ------------------------------------------------------------------------

    def submit(self, new: NewJob) -> tuple[Job, bool]:
        """Store and enqueue a job in one transaction; (job, True), or (earlier job, False) for a
        repeated Idempotency-Key.

        Raises QueueFull, IdempotencyConflict (the key came with another request), NotReady.
        """
        fingerprint = _fingerprint(new)
        job_id = new_job_id()
        with _reachable(), self._turn():
            if (earlier := self._replay(new, fingerprint)) is not None:
                return earlier, False
            self._check_room()
            try:
                with self._engine.begin() as connection:
                    self._ledger.insert(connection, job_id, new, fingerprint)
                    self._client.enqueue(connection, job_id, RANK[new.priority])
            except sa.exc.IntegrityError:  # another process used the same key a moment ago
                if (earlier := self._replay(new, fingerprint)) is None:
                    raise
                return earlier, False
            return self._ledger.get(job_id), True

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One submission at a time, and none waits long: behind a locked database all would."""
        if not self._submitting.acquire(timeout=LOCK_SECONDS):
            raise _unreachable()
        try:
            yield
        finally:
            self._submitting.release()

    def _replay(self, new: NewJob, fingerprint: str) -> Job | None:
        if new.idempotency_key is None:
            return None
        found = self._ledger.by_idempotency_key(new.idempotency_key)
        if found is None:
            return None
        job, earlier_fingerprint = found
        if earlier_fingerprint != fingerprint:
            raise IdempotencyConflict(
                f"The Idempotency-Key {new.idempotency_key!r} was used for another request: "
                f"job {job.id}.",
                next_step="Send the same request again, or choose a new key.",
            )
        return job

    def _check_room(self) -> None:
        waiting = self._ledger.counts()[JobState.QUEUED]
        if waiting >= self._settings.max_queued:
            raise QueueFull(
                f"{waiting} jobs are waiting; the limit is {self._settings.max_queued}.",
                next_step="Retry later, or raise MESHPRESS_MAX_QUEUED.",
            )

    # -- looking ---------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Raises NotFound."""
        with _reachable():
            return self._ledger.get(job_id)

    def versions(self, job_ids: list[str]) -> dict[str, int]:
        with _reachable():
            return self._ledger.versions(job_ids)

    def page(
        self,
        *,
        task: str | None = None,
        state: JobState | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> tuple[list[Job], str | None]:
        """Jobs, newest first, and the cursor of the next page (None on the last).

        Raises InvalidRequest for a cursor that is not ours.
        """
        with _reachable():
            found = self._ledger.page(task, state, limit + 1, _read_cursor(after))
        page = found[:limit]
        return page, _cursor(page[-1]) if len(found) > limit else None

    def attempts(self, job_id: str) -> list[Attempt]:
        with _reachable():
            return self._ledger.attempts(job_id)

    def counts(self) -> dict[JobState, int]:
        with _reachable():
            return self._ledger.counts()

    def workers(self) -> list[WorkerStatus]:
        with _reachable():
            return self._roster.workers()

    # -- cancelling ------------------------------------------------------------------------

    def cancel(self, job_id: str) -> Job:
        """Cancel a waiting job at once, ask a running one to stop.

        Raises NotFound, and Conflict when the job has ended.
        """
        with _reachable():
            job = self._ledger.get(job_id)
            if self._ledger.cancel_queued(job_id, self._settings.result_ttl_seconds):
                self._client.cancel(job_id)
            elif not self._ledger.cancel_running(job_id):
                job = self._ledger.get(job_id)
                if job.state is not JobState.CANCELLING:
                    raise Conflict(
                        f"Job {job_id} has ended: {job.state}.",
                        code="job_finished",
                        next_step="Nothing is left to cancel; its result is at the job's links.",
                    )
            return self._ledger.get(job_id)


def new_job_id() -> str:
    """A UUID of version 7: unguessable, and sortable by time (RFC 9562)."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (2**48 - 1)) << 80 | random
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@contextmanager
def _reachable() -> Iterator[None]:
    """Database outages become NotReady, which clients may retry."""
    try:
        yield
    except (sa.exc.OperationalError, sa.exc.TimeoutError, sa.exc.InterfaceError) as error:
        raise _unreachable() from error


def _unreachable() -> NotReady:
    return NotReady(
        "The job database is out of reach.",
        code="queue_unreachable",
        next_step="Retry in a few seconds; nothing was accepted.",
    )


def _fingerprint(new: NewJob) -> str:
    """What makes two requests the same: task, steps, priority and the bytes of the inputs."""
    steps = [
        {"pipeline": step.pipeline, "task": step.task, "options": step.options}
        for step in new.steps
    ]
    parts = {
        "task": new.task,
        "steps": steps if new.request is None else new.request,
        "priority": new.priority,
        "inputs": [file.sha256 for file in new.inputs],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _cursor(job: Job) -> str:
    text = json.dumps([job.created_at.timestamp(), job.id])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_cursor(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    try:
        created_at, job_id = json.loads(base64.urlsafe_b64decode(cursor))
        return float(created_at), str(job_id)
    except (binascii.Error, ValueError, TypeError):
        raise InvalidRequest(
            f"cursor has the value {cursor!r}, which no page of this service has returned.",
            code="invalid_cursor",
            next_step="Use next_cursor of an earlier answer, or leave it out to start anew.",
        ) from None
