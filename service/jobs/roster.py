"""The roster: which workers there are and what they do, by their heartbeats.

Knows nothing of jobs. A heartbeat is for people and probes; that a worker is dead is proved by its
lock (`liveness.py`), never by a late heartbeat.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import sqlalchemy as sa

from service.jobs.database import devices, workers
from service.jobs.records import WorkerStatus

SHOWN_SECONDS = 60.0


class Roster:
    """Thread-safe; every method is one transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def heartbeat(self, worker: str, device: str, pid: int, state: str) -> None:
        values = {"device": device, "pid": pid, "state": state, "seen_at": time.time()}
        with self._engine.begin() as connection:
            changed = connection.execute(
                workers.update().where(workers.c.id == worker).values(**values)
            ).rowcount
            if not changed:
                connection.execute(workers.insert().values(id=worker, **values))

    def register(self, worker: str, memory_bytes: int) -> None:
        """Say what its device has; once, before the first heartbeat."""
        with self._engine.begin() as connection:
            connection.execute(devices.delete().where(devices.c.worker == worker))
            connection.execute(devices.insert().values(worker=worker, memory_bytes=memory_bytes))

    def workers(self, seen_within_seconds: float = SHOWN_SECONDS) -> list[WorkerStatus]:
        query = (
            sa.select(workers, sa.func.coalesce(devices.c.memory_bytes, 0).label("memory_bytes"))
            .outerjoin(devices, devices.c.worker == workers.c.id)
            .where(workers.c.seen_at > time.time() - seen_within_seconds)
            .order_by(workers.c.id)
        )
        with self._engine.connect() as connection:
            return [
                WorkerStatus(
                    row.id,
                    row.device,
                    row.pid,
                    row.state,
                    datetime.fromtimestamp(row.seen_at, UTC),
                    row.memory_bytes,
                )
                for row in connection.execute(query)
            ]

    def forget(self, worker: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(workers.delete().where(workers.c.id == worker))
            connection.execute(devices.delete().where(devices.c.worker == worker))
