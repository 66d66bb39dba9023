"""The ledger: every job's row, the only truth users see, changed by guarded single statements.

Knows neither the queue library nor processes. Each change of state names the states it may come
from (`states.sources`) and, while a job runs, the attempt it belongs to: a worker that was thought
dead cannot publish over its successor.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from service.errors import NotFound
from service.jobs.database import attempts, jobs
from service.jobs.records import Attempt, Job, JobError, NewJob, Progress, StoredFile
from service.jobs.rows import RANK, to_attempt, to_job
from service.jobs.states import FINAL, JobState, sources


class Ledger:
    """Reads and guarded writes of job rows. Thread-safe; every method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    # -- submitting ------------------------------------------------------------------------

    def insert(self, connection: sa.Connection, job_id: str, new: NewJob, fingerprint: str) -> None:
        """Add a queued job inside the caller's transaction, which also enqueues it."""
        connection.execute(
            jobs.insert().values(
                id=job_id,
                task=new.task,
                steps=[asdict(step) for step in new.steps],
                inputs=[asdict(file) for file in new.inputs],
                priority=RANK[new.priority],
                state=JobState.QUEUED,
                # Microseconds, as a datetime has them: a cursor made of one finds this row.
                created_at=round(time.time(), 6),
                idempotency_key=new.idempotency_key,
                fingerprint=fingerprint,
            )
        )

    def by_idempotency_key(self, key: str) -> tuple[Job, str] | None:
        """The job submitted under this key and its request's fingerprint."""
        with self._engine.connect() as connection:
            row = connection.execute(
                sa.select(jobs).where(jobs.c.idempotency_key == key)
            ).one_or_none()
        return (to_job(row._mapping), row.fingerprint) if row else None

    # -- reading ---------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """Raises NotFound."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(jobs).where(jobs.c.id == job_id)).one_or_none()
            if row is None:
                raise NotFound(
                    f"There is no job {job_id!r}.",
                    code="job_not_found",
                    next_step="GET /v1/jobs lists the jobs there are.",
                )
            position = None
            if row.state == JobState.QUEUED:
                before = sa.tuple_(jobs.c.priority, jobs.c.created_at, jobs.c.id) < sa.tuple_(
                    sa.literal(row.priority), sa.literal(row.created_at), sa.literal(row.id)
                )
                position = (
                    1
                    + connection.execute(
                        sa.select(sa.func.count()).where(jobs.c.state == JobState.QUEUED, before)
                    ).scalar_one()
                )
        return to_job(row._mapping, position)

    def versions(self, job_ids: Sequence[str]) -> dict[str, int]:
        """The change counter of each of these jobs: cheap to poll for many watchers."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(jobs.c.id, jobs.c.version).where(jobs.c.id.in_(list(job_ids)))
            )
            return {row.id: row.version for row in rows}

    def page(
        self,
        task: str | None,
        state: JobState | None,
        limit: int,
        after: tuple[float, str] | None,
    ) -> list[Job]:
        """Up to `limit` jobs, newest first, older than `after` (created_at, id)."""
        query = sa.select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        if task is not None:
            query = query.where(jobs.c.task == task)
        if state is not None:
            query = query.where(jobs.c.state == state)
        if after is not None:
            query = query.where(
                sa.tuple_(jobs.c.created_at, jobs.c.id)
                < sa.tuple_(sa.literal(after[0]), sa.literal(after[1]))
            )
        with self._engine.connect() as connection:
            return [to_job(row._mapping) for row in connection.execute(query)]

    def attempts(self, job_id: str) -> list[Attempt]:
        query = sa.select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
        with self._engine.connect() as connection:
            return [to_attempt(row._mapping) for row in connection.execute(query)]

    def counts(self) -> dict[JobState, int]:
        query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
        with self._engine.connect() as connection:
            found = {JobState(state): count for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in JobState}

    def unfinished(self) -> dict[str, JobState]:
        """Every job that has not ended: what must still be in the queue."""
        open_states = [state for state in JobState if state not in FINAL]
        query = sa.select(jobs.c.id, jobs.c.state).where(jobs.c.state.in_(open_states))
        with self._engine.connect() as connection:
            return {row.id: JobState(row.state) for row in connection.execute(query)}

    def has_open_jobs(self) -> bool:
        query = sa.select(jobs.c.id).where(
            jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING])
        )
        with self._engine.connect() as connection:
            return connection.execute(query.limit(1)).first() is not None

    # -- running ---------------------------------------------------------------------------

    def begin_attempt(self, job_id: str, worker: str) -> int | None:
        """Start the next attempt; its number, or None when the job is no longer to be run.

        An earlier attempt that never ended belongs to a worker that died: it is closed as crashed.
        """
        now = time.time()
        with self._engine.begin() as connection:
            row = connection.execute(
                jobs.update()
                .where(jobs.c.id == job_id, jobs.c.state.in_([JobState.QUEUED, JobState.RUNNING]))
                .values(
                    state=JobState.RUNNING,
                    attempt=jobs.c.attempt + 1,
                    started_at=sa.func.coalesce(jobs.c.started_at, now),
                    version=jobs.c.version + 1,
                )
                .returning(jobs.c.attempt)
            ).one_or_none()
            if row is None:
                return None
            _close_attempts(connection, job_id, "crashed", "its worker process died")
            connection.execute(
                attempts.insert().values(
                    job_id=job_id, number=row.attempt, worker=worker, started_at=now
                )
            )
        return int(row.attempt)

    def crash(self, job_id: str, number: int, reason: str) -> None:
        """Close an attempt whose runner died; the job stays with its worker."""
        with self._engine.begin() as connection:
            _close_attempts(connection, job_id, "crashed", reason, number)

    def keep(self, job_id: str, attempt: int, files: Sequence[StoredFile]) -> None:
        """Remember the artifacts of a finished step, so that they are not collected before the
        job ends: until then only the queue's own record of the step names them."""
        with self._engine.begin() as connection:
            row = connection.execute(
                sa.select(jobs.c.kept).where(jobs.c.id == job_id, jobs.c.attempt == attempt)
            ).one_or_none()
            if row is not None:
                kept = [*row.kept, *(file.sha256 for file in files)]
                connection.execute(jobs.update().where(jobs.c.id == job_id).values(kept=kept))

    def crashes(self, job_id: str) -> list[Attempt]:
        return [item for item in self.attempts(job_id) if item.outcome == "crashed"]

    def progress(self, job_id: str, attempt: int, progress: Progress) -> JobState | None:
        """Store progress of this attempt; the job's state now, None if the attempt is outdated."""
        with self._engine.begin() as connection:
            row = connection.execute(
                jobs.update()
                .where(jobs.c.id == job_id, jobs.c.attempt == attempt)
                .values(
                    stage=progress.stage[:200],
                    fraction=progress.fraction,
                    message=progress.message,
                    version=jobs.c.version + 1,
                )
                .returning(jobs.c.state)
            ).one_or_none()
        return JobState(row.state) if row else None

    def state(self, job_id: str, attempt: int) -> JobState | None:
        """The job's state, None if `attempt` is no longer its attempt."""
        query = sa.select(jobs.c.state).where(jobs.c.id == job_id, jobs.c.attempt == attempt)
        with self._engine.connect() as connection:
            state = connection.execute(query).scalar_one_or_none()
        return JobState(state) if state else None

    def requeue(self, job_id: str, attempt: int) -> bool:
        """Show a job as waiting again: its worker is shutting down, at no cost to the job."""
        return self._move(
            job_id,
            JobState.QUEUED,
            attempt=attempt,
            outcome=("interrupted", "its worker was shut down"),
            stage="",
            fraction=0.0,
        )

    # -- ending ----------------------------------------------------------------------------

    def publish(
        self,
        job_id: str,
        attempt: int,
        artifacts: Sequence[StoredFile],
        report: Mapping[str, Any],
        ttl_seconds: float,
    ) -> bool:
        """Make the result visible: running -> succeeded, once, by the current attempt only."""
        return self._move(
            job_id,
            JobState.SUCCEEDED,
            attempt=attempt,
            artifacts=[asdict(file) for file in artifacts],
            report=dict(report),
            fraction=1.0,
            **_ending(ttl_seconds),
        )

    def fail(
        self, job_id: str, error: JobError, ttl_seconds: float, attempt: int | None = None
    ) -> bool:
        return self._move(
            job_id,
            JobState.FAILED,
            attempt=attempt,
            outcome=("finished", error.code),
            error=asdict(error),
            **_ending(ttl_seconds),
        )

    def cancel_queued(self, job_id: str, ttl_seconds: float) -> bool:
        return self._move(
            job_id, JobState.CANCELLED, only_from=JobState.QUEUED, **_ending(ttl_seconds)
        )

    def cancel_running(self, job_id: str) -> bool:
        return self._move(job_id, JobState.CANCELLING)

    def cancelled(self, job_id: str, ttl_seconds: float, attempt: int | None = None) -> bool:
        return self._move(
            job_id,
            JobState.CANCELLED,
            attempt=attempt,
            only_from=JobState.CANCELLING,
            outcome=("finished", "cancelled"),
            **_ending(ttl_seconds),
        )

    def _move(
        self,
        job_id: str,
        target: JobState,
        *,
        attempt: int | None = None,
        only_from: JobState | None = None,
        outcome: tuple[str, str] = ("finished", ""),
        **values: Any,
    ) -> bool:
        """Change the state if the transition table and the attempt allow it; whether it did.

        Unless the job is only being asked to stop, its open attempt ends with it: `outcome` is
        (outcome, reason).
        """
        if target in FINAL:
            values["kept"] = []
        allowed = sources(target) if only_from is None else (only_from,)
        guard = [jobs.c.id == job_id, jobs.c.state.in_(allowed)]
        if attempt is not None:
            guard.append(jobs.c.attempt == attempt)
        with self._engine.begin() as connection:
            changed = connection.execute(
                jobs.update()
                .where(*guard)
                .values(state=target, version=jobs.c.version + 1, **values)
            ).rowcount
            if changed and target is not JobState.CANCELLING:
                _close_attempts(connection, job_id, *outcome)
        return bool(changed)


def _close_attempts(
    connection: sa.Connection, job_id: str, outcome: str, reason: str, number: int | None = None
) -> None:
    """End the job's open attempt, or only the one of this number."""
    guard = [attempts.c.job_id == job_id, attempts.c.ended_at.is_(None)]
    if number is not None:
        guard.append(attempts.c.number == number)
    connection.execute(
        attempts.update().where(*guard).values(ended_at=time.time(), outcome=outcome, reason=reason)
    )


def _ending(ttl_seconds: float) -> dict[str, Any]:
    now = time.time()
    return {"finished_at": now, "expires_at": now + ttl_seconds}
