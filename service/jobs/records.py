"""What a job is, as plain data: the job, its steps, stored files, progress and error.

Knows neither SQL nor HTTP; the ledger fills these and `service/http/schemas.py` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from service.jobs.states import FINAL, JobState


class Priority(StrEnum):
    """Jobs of a higher priority start first; within one, the oldest."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True)
class StoredFile:
    """A file in the artifact store. `name` is what users call it, never a path."""

    name: str
    media_type: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Step:
    """One pipeline run. Step 0 reads the job's inputs, each later one its predecessor's artifacts.

    options: validated, plain JSON
    reads:   of its predecessor's artifacts only these; empty: all
    hidden:  its artifacts that the next step alone needs: no part of the result
    leads:   its artifacts stand first in the result
    choice:  why this pipeline, where the request left it to us; see `service.choice`
    """

    pipeline: str
    task: str
    options: Mapping[str, Any]
    reads: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    leads: bool = False
    choice: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Progress:
    """fraction: of the whole job, 0..1."""

    stage: str = ""
    fraction: float = 0.0
    message: str = ""


class Fault(StrEnum):
    """Where a failed job's cause lies, which is who can mend it."""

    INPUT = "input"  # the file or the options: another request would succeed
    SETUP = "setup"  # what the worker lacks: weights, a library, memory, time, a number format
    OUTAGE = "outage"  # the worker's disk, store or GPU failed: a later try may succeed
    DEFECT = "defect"  # our code: please report it


@dataclass(frozen=True)
class JobError:
    """Why a job failed: in words, as a stable code, and what the user can do."""

    message: str
    code: str
    next_step: str = ""
    fault: Fault = Fault.DEFECT


@dataclass(frozen=True)
class Attempt:
    """One try of a job on one worker. `outcome` is empty while it runs."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None = None
    outcome: str = ""  # "", "finished", "crashed", "interrupted"
    reason: str = ""


@dataclass(frozen=True)
class WorkerStatus:
    """A worker as its heartbeat shows it. state: "starting", "idle" or "busy"; memory_bytes: of its
    GPU, 0 for the CPU and where it is not known."""

    id: str
    device: str
    pid: int
    state: str
    seen_at: datetime
    memory_bytes: int = 0


@dataclass(frozen=True)
class NewJob:
    """What a client asks for; inputs are in the artifact store already.

    request: what was said, where the steps are our choice and another day's may differ: by it, not
             by them, a repeated Idempotency-Key is compared
    """

    task: str
    steps: tuple[Step, ...]
    inputs: tuple[StoredFile, ...]
    priority: Priority = Priority.NORMAL
    idempotency_key: str | None = None
    request: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Job:
    """A job as users see it. Times are UTC."""

    id: str
    task: str
    steps: tuple[Step, ...]
    inputs: tuple[StoredFile, ...]
    priority: Priority
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    attempt: int = 0
    version: int = 0  # grows with every change of the row; SSE's event id
    progress: Progress = field(default_factory=Progress)
    artifacts: tuple[StoredFile, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    error: JobError | None = None
    idempotency_key: str | None = None
    queue_position: int | None = None  # 1 = next; None once it has started

    @property
    def finished(self) -> bool:
        return self.state in FINAL
