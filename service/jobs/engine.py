"""The queue library (DBOS Transact) behind five verbs: enqueue, cancel, run, recover, forget.

The only file that imports it, pinned to 3.4 because recovery of another worker's jobs has no public
name there. Knows neither the ledger nor pipelines: a queue entry is a job's id, and what to do with
it is a `JobBody`. Traps this file steps around, each seen in tests or in the library's source:

- the default serializer is pickle: we use the portable JSON one;
- a queue entry carries the application's version and only workers of that version take it: ours
  is the version of the entry's shape, not of the code, so an upgrade strands nothing;
- `resume_workflows` would reset the attempts: orphans are recovered by the conductor's own path;
- rows of a dead worker stay pending until somebody who knows it is dead recovers them: `worker.py`
  proves that with a lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, EnqueueOptions

APPLICATION = "meshpress"
ENTRY_VERSION = "job-1"
QUEUE = "jobs"
WORKFLOW = "run_job"
ENTRIES_AT_ONCE = 500
BACKSTOP_ATTEMPTS = 1000  # ours is the ledger's ATTEMPT_LIMIT; this only ends an endless loop


Value = TypeVar("Value")


class Interrupted(Exception):
    """The worker is shutting down: leave the entry to whoever recovers it."""


class JobBody(Protocol):
    """What a worker does with one job. Called again from the start after a crash, except that a
    step whose result was recorded is not run again."""

    def begin(self, job_id: str) -> int:
        """Start an attempt; how many steps there are to run, 0 when there is nothing to do."""

    def run_step(self, job_id: str, index: int, previous: Any) -> Any:
        """Run one step; its outcome as JSON, None to stop here. May raise Interrupted."""

    def finish(self, job_id: str, outcomes: Sequence[Any]) -> None:
        """Every step has an outcome: publish."""


class QueueClient:
    """The submitting side: writes queue entries, never runs any."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._client = DBOSClient(
            system_database_engine=engine,
            serializer=DBOSPortableJSONSerializer(),
            application_name=APPLICATION,
            lazy=True,
            retry_connection_errors=False,  # an API answers 503 at once instead of hanging
        )

    def prepare(self, url: str) -> None:
        """Create or upgrade the library's tables."""
        _quiet_library()
        DBOS.migrate(_library_url(url))

    def enqueue(self, connection: sa.Connection, job_id: str, rank: int) -> None:
        """Add a queue entry inside the caller's transaction; lower ranks start first."""
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUE,
            "workflow_id": job_id,
            "app_version": ENTRY_VERSION,
            "priority": rank,
        }
        self._client.enqueue_in_transaction(connection, options, job_id)

    def cancel(self, job_id: str) -> None:
        self._client.cancel_workflows([job_id])

    def ended(self, job_ids: Sequence[str]) -> set[str]:
        """Which of these entries will never run again, or do not exist."""
        rows = self._client.list_workflows(
            workflow_ids=list(job_ids),
            status=["ENQUEUED", "DELAYED", "PENDING"],
            load_input=False,
            load_output=False,
        )
        return set(job_ids) - {row.workflow_id for row in rows}

    def forget_ended(self, seconds_ago: float) -> None:
        """Delete entries that ended at least this long ago."""
        before = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
        while True:
            rows = self._client.list_workflows(
                status=["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
                completed_before=before,
                limit=ENTRIES_AT_ONCE,
                load_input=False,
                load_output=False,
            )
            if not rows:
                return
            self._client.delete_workflows([row.workflow_id for row in rows])

    def executors(self) -> set[str]:
        """Workers, dead or alive, that hold started entries."""
        rows = self._client.list_workflows(
            status="PENDING", queue_name=QUEUE, load_input=False, load_output=False
        )
        return {row.executor_id for row in rows if row.executor_id}

    def close(self) -> None:
        self._client.destroy()


class QueueWorker:
    """The running side: takes one entry at a time and hands its job to the body.

    executor_id: unique among live workers, the same after a restart
    """

    def __init__(self, url: str, executor_id: str, body: JobBody, poll_seconds: float) -> None:
        self._url = url
        self._executor_id = executor_id
        self._poll_seconds = poll_seconds
        _register(body)

    def launch(self) -> None:
        """Start taking entries in background threads; entries this executor had are recovered."""
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": _library_url(self._url),
            "application_version": ENTRY_VERSION,
            "executor_id": self._executor_id,
            "serializer": DBOSPortableJSONSerializer(),
            "run_migrations": False,
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": 30.0,
            "log_level": "WARNING",
        }
        _quiet_library()
        DBOS(config=config)
        DBOS.listen_queues([QUEUE])
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=1,
            polling_interval_sec=self._poll_seconds,
            on_conflict="always_update",
        )

    def set_pace(self, poll_seconds: float) -> None:
        """Change the pause between two looks, for every worker of this queue."""
        if poll_seconds == self._poll_seconds:
            return
        queue = DBOS.retrieve_queue(QUEUE)
        if queue is not None:
            queue.set_polling_interval_sec(poll_seconds)
            self._poll_seconds = poll_seconds

    def recover(self, executor_ids: Sequence[str]) -> int:
        """Put the started entries of these dead executors back into the queue; how many."""
        return len(DBOS._recover_pending_workflows(list(executor_ids)))


def _register(body: JobBody) -> None:
    """Declare the workflow: begin, each step once, finish."""

    @DBOS.step(name="run_step")
    def run_step(job_id: str, index: int, previous: Any) -> Any:
        return _or_park(lambda: body.run_step(job_id, index, previous))

    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=BACKSTOP_ATTEMPTS)
    def run_job(job_id: str) -> None:
        outcomes: list[Any] = []
        for index in range(_or_park(lambda: body.begin(job_id))):
            outcome = run_step(job_id, index, outcomes[-1] if outcomes else None)
            if outcome is None:
                return
            outcomes.append(outcome)
        if outcomes:
            _or_park(lambda: body.finish(job_id, outcomes))


def _or_park(call: Callable[[], Value]) -> Value:
    """The call's value; when the worker is shutting down instead, stop this thread for good.

    Returning or raising would record an outcome of the step or the workflow. The process is about
    to exit; until then the entry stays pending, so that recovery finds it.
    """
    try:
        return call()
    except Interrupted:
        threading.Event().wait()
        raise


def _library_url(url: str) -> str:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)


def _quiet_library() -> None:
    logging.getLogger("dbos").setLevel(logging.WARNING)
