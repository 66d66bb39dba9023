"""The states of a job and which may follow which. Knows neither database nor queue library.

             ┌──── retry: runner or worker died, attempts left ────┐
             ▼                                                     │
    submit ─> queued ────────────────────────> running ────────────┤
             │                                   │                 │
             │ cancel                            ├─ published ─> succeeded ─> expired
             │                                   ├─ error ─────> failed
             ▼                                   ▼ cancel
          cancelled <── runner stopped ─── cancelling

    queued, running or cancelling ─> failed also when the queue has lost the job: housekeeping

A job always ends: `succeeded`, `failed` and `cancelled` are final, and `expired` follows
`succeeded` once the result's time is up.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"  # stored durably, waiting for a worker
    RUNNING = "running"  # a worker has begun an attempt
    CANCELLING = "cancelling"  # the user cancelled a running job; its runner is being stopped
    SUCCEEDED = "succeeded"  # artifacts published
    FAILED = "failed"  # ended with an error the job carries
    CANCELLED = "cancelled"  # ended because the user asked
    EXPIRED = "expired"  # succeeded once; artifacts deleted after their time to live


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING}
    ),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.FAILED}),
    JobState.SUCCEEDED: frozenset({JobState.EXPIRED}),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.EXPIRED: frozenset(),
}

FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


def sources(target: JobState) -> tuple[JobState, ...]:
    """The states from which `target` may be entered; the WHERE clause of every state change."""
    return tuple(state for state, targets in TRANSITIONS.items() if target in targets)
