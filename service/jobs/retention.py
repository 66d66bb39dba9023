"""What may be forgotten: results whose time is up, payloads nobody names, rows of long ago.

Knows the tables, not when to look; `housekeeping.py` does.
"""

from __future__ import annotations

import time

import sqlalchemy as sa

from service.jobs.database import attempts, jobs
from service.jobs.states import JobState, sources

ROWS_AT_ONCE = 500  # few enough that a submission never waits long behind a deletion


class Retention:
    """Thread-safe."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def expire(self) -> int:
        """Forget the artifacts of results whose time is up; how many."""
        due = sa.and_(jobs.c.expires_at.is_not(None), jobs.c.expires_at < time.time())
        with self._engine.begin() as connection:
            expired = connection.execute(
                jobs.update()
                .where(due, jobs.c.state.in_(sources(JobState.EXPIRED)))
                .values(state=JobState.EXPIRED, artifacts=[], version=jobs.c.version + 1)
            ).rowcount
        return int(expired)

    def referenced_payloads(self) -> set[str]:
        """Hashes the store must keep: of every job that has not ended or whose time is not up."""
        kept = sa.or_(jobs.c.expires_at.is_(None), jobs.c.expires_at >= time.time())
        query = sa.select(jobs.c.inputs, jobs.c.artifacts, jobs.c.kept).where(kept)
        found: set[str] = set()
        with self._engine.connect() as connection:
            for row in connection.execute(query):
                found.update(file["sha256"] for file in (*row.inputs, *row.artifacts))
                found.update(row.kept)
        return found

    def forget_jobs(self, history_seconds: float) -> int:
        """Delete the rows of jobs whose result's time was up this long ago; how many."""
        old = (
            sa.select(jobs.c.id)
            .where(jobs.c.expires_at < time.time() - history_seconds)
            .order_by(jobs.c.expires_at)
            .limit(ROWS_AT_ONCE)
        )
        removed = 0
        while True:
            with self._engine.begin() as connection:
                ids = list(connection.execute(old).scalars())
                if not ids:
                    return removed
                connection.execute(attempts.delete().where(attempts.c.job_id.in_(ids)))
                connection.execute(jobs.delete().where(jobs.c.id.in_(ids)))
            removed += len(ids)
