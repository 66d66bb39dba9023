"""The job database: its tables and how to open it on SQLite (WAL) or PostgreSQL.

Knows the shape of the rows, not what they mean; `ledger.py` does. The queue library keeps its own
tables in the same database, so that a job and its queue entry are written in one transaction.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from service.errors import NotReady

SCHEMA_VERSION = 1

metadata = sa.MetaData()

schema = sa.Table("meshpress_schema", metadata, sa.Column("version", sa.Integer, primary_key=True))

jobs = sa.Table(
    "meshpress_jobs",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("task", sa.String(32), nullable=False),
    sa.Column("steps", sa.JSON, nullable=False),
    sa.Column("inputs", sa.JSON, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),  # the queue's rank: lower starts first
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),  # seconds since the epoch, UTC
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("expires_at", sa.Double),
    sa.Column("attempt", sa.Integer, nullable=False, default=0),
    sa.Column("version", sa.Integer, nullable=False, default=0),
    sa.Column("stage", sa.String(200), nullable=False, default=""),
    sa.Column("fraction", sa.Double, nullable=False, default=0.0),
    sa.Column("message", sa.Text, nullable=False, default=""),
    sa.Column("artifacts", sa.JSON, nullable=False, default=list),
    sa.Column("report", sa.JSON, nullable=False, default=dict),
    sa.Column("kept", sa.JSON, nullable=False, default=list),  # artifacts of its finished steps
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("idempotency_key", sa.String(255), unique=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Index("meshpress_jobs_queue", "state", "priority", "created_at", "id"),
    sa.Index("meshpress_jobs_newest", "created_at", "id"),
    sa.Index("meshpress_jobs_task", "task", "created_at", "id"),
    sa.Index("meshpress_jobs_expiry", "expires_at"),
)

attempts = sa.Table(
    "meshpress_attempts",
    metadata,
    sa.Column("job_id", sa.String(36), sa.ForeignKey("meshpress_jobs.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("worker", sa.String(255), nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Column("outcome", sa.String(16), nullable=False, default=""),
    sa.Column("reason", sa.Text, nullable=False, default=""),
)

workers = sa.Table(
    "meshpress_workers",
    metadata,
    sa.Column("id", sa.String(255), primary_key=True),
    sa.Column("device", sa.String(32), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
)

devices = sa.Table(  # what a worker tells once, at its start
    "meshpress_devices",
    metadata,
    sa.Column("worker", sa.String(255), primary_key=True),
    sa.Column("memory_bytes", sa.BigInteger, nullable=False),
)


def create_engine(url: str, lock_seconds: float = 30.0) -> sa.Engine:
    """An engine for `url`; on SQLite a connection waits for a lock this long before it fails."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = sa.create_engine(parsed, pool_size=5, max_overflow=0)
        event.listen(engine, "connect", partial(_prepare_sqlite, lock_seconds))
        return engine
    if parsed.get_backend_name() == "postgresql":
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=5,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 5, "application_name": "meshpress"},
        )
    raise NotReady(
        f"QUEUE_URL names the database {parsed.get_backend_name()!r}; allowed: sqlite, postgresql.",
        next_step="Set MESHPRESS_QUEUE_URL to sqlite:///path or postgresql://…",
    )


def _prepare_sqlite(lock_seconds: float, connection: Any, _record: Any) -> None:
    """IMMEDIATE avoids upgrade deadlocks of writers; FULL makes commits survive power loss."""
    connection.isolation_level = "IMMEDIATE"
    connection.execute(f"PRAGMA busy_timeout={int(lock_seconds * 1000)}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")


def prepare(url: str) -> None:
    """Create the database and its tables if absent; refuse one written by a newer version.

    Called once per start, before any API or worker process opens it.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url)
    try:
        if parsed.get_backend_name() == "sqlite":
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        with engine.begin() as connection:
            # An API and a worker may start at the same moment on an empty database.
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7305809)")
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            metadata.create_all(connection)
            found = connection.execute(sa.select(schema.c.version)).scalar()
            if found is None:
                connection.execute(schema.insert().values(version=SCHEMA_VERSION))
            elif found != SCHEMA_VERSION:
                raise NotReady(
                    f"The job database has schema version {found}; this release knows "
                    f"{SCHEMA_VERSION}.",
                    next_step="Start the release that wrote it, or name a new database.",
                )
    finally:
        engine.dispose()
