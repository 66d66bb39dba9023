"""Rows of the job tables as records. Knows both shapes and runs no query."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from service.jobs.records import Attempt, Fault, Job, JobError, Priority, Progress, Step, StoredFile
from service.jobs.states import JobState

RANK = {Priority.HIGH: 10, Priority.NORMAL: 20, Priority.LOW: 30}
PRIORITY_OF_RANK = {rank: priority for priority, rank in RANK.items()}


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _utc_or_none(seconds: float | None) -> datetime | None:
    return None if seconds is None else _utc(seconds)


def _to_step(fields: Mapping[str, Any]) -> Step:
    """JSON has lists; rows of earlier releases lack what came later."""
    names = {name: tuple(fields.get(name, ())) for name in ("reads", "hidden")}
    return Step(**{**fields, **names})


def _to_error(fields: Mapping[str, Any]) -> JobError:
    """Rows of earlier releases say only whether it was the user's fault."""
    known = dict(fields)
    by_user = known.pop("user_fault", False)
    fault = known.pop("fault", Fault.INPUT if by_user else Fault.DEFECT)
    return JobError(**known, fault=Fault(fault))


def to_job(row: Mapping[Any, Any], queue_position: int | None = None) -> Job:
    return Job(
        id=row["id"],
        task=row["task"],
        steps=tuple(map(_to_step, row["steps"])),
        inputs=tuple(StoredFile(**file) for file in row["inputs"]),
        priority=PRIORITY_OF_RANK[row["priority"]],
        state=JobState(row["state"]),
        created_at=_utc(row["created_at"]),
        started_at=_utc_or_none(row["started_at"]),
        finished_at=_utc_or_none(row["finished_at"]),
        expires_at=_utc_or_none(row["expires_at"]),
        attempt=row["attempt"],
        version=row["version"],
        progress=Progress(row["stage"], row["fraction"], row["message"]),
        artifacts=tuple(StoredFile(**file) for file in row["artifacts"]),
        report=row["report"],
        error=_to_error(row["error"]) if row["error"] else None,
        idempotency_key=row["idempotency_key"],
        queue_position=queue_position,
    )


def to_attempt(row: Mapping[Any, Any]) -> Attempt:
    return Attempt(
        number=row["number"],
        worker=row["worker"],
        started_at=_utc(row["started_at"]),
        ended_at=_utc_or_none(row["ended_at"]),
        outcome=row["outcome"],
        reason=row["reason"],
    )
