"""Housekeeping: forget what is over, find what fell between two chairs, clear up after the dead.

Knows what to look at and how often; one worker at a time does it, proved by a lock. Each part fails
alone: an artifact store that is away must not keep abandoned jobs from being found.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from service.jobs.engine import QueueClient
from service.jobs.ledger import Ledger
from service.jobs.liveness import Liveness
from service.jobs.records import JobError
from service.jobs.retention import Retention
from service.jobs.roster import Roster
from service.settings import Settings
from service.storage.artifacts import ArtifactStore

log = structlog.get_logger("worker")

LOCK = "housekeeping"
ENTRY_SECONDS = 60.0  # queue entries are kept this long after they ended
PAYLOAD_GRACE_SECONDS = 3600.0  # longer than any upload takes to become a job
EVER_SECONDS = 10 * 365 * 86_400.0


class Housekeeper:
    """Call `tick` every second or so; it knows what is due."""

    def __init__(
        self,
        settings: Settings,
        worker: str,
        ledger: Ledger,
        retention: Retention,
        roster: Roster,
        client: QueueClient,
        store: ArtifactStore,
        liveness: Liveness,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._ledger = ledger
        self._retention = retention
        self._roster = roster
        self._client = client
        self._store = store
        self._liveness = liveness
        # (part, seconds between two runs); the first run waits, so that a restart loop does no harm
        self._parts: dict[Callable[[], None], float] = {
            self._end_abandoned: 30.0,
            self._forget_entries: 30.0,
            self._clear_after_the_dead: 30.0,
            self._expire: 60.0,
            self._collect_payloads: 600.0,
            self._forget_history: 3600.0,
        }
        now = time.monotonic()
        self._due = {part: now + min(seconds, 30.0) for part, seconds in self._parts.items()}

    def tick(self) -> None:
        now = time.monotonic()
        due = [part for part in self._parts if now >= self._due[part]]
        if not due or not self._liveness.try_lock(LOCK):
            return
        try:
            for part in due:
                self._due[part] = now + self._parts[part]
                try:
                    part()
                except Exception:  # reported; the other parts still run
                    log.exception("housekeeping_failed", part=part.__name__.strip("_"))
        finally:
            self._liveness.unlock(LOCK)

    def _end_abandoned(self) -> None:
        """End jobs whose queue entry will never run: a fault of ours, but no job hangs for ever."""
        suspects = self._client.ended(list(self._ledger.unfinished()))
        for job_id in suspects & set(self._ledger.unfinished()):
            error = JobError(
                "The queue no longer holds this job; it was not run to its end.",
                code="abandoned",
                next_step="Submit it again and report this with the worker's log.",
            )
            log.error("job_abandoned", job_id=job_id)
            ttl = self._settings.result_ttl_seconds
            if not self._ledger.fail(job_id, error, ttl):
                self._ledger.cancelled(job_id, ttl)

    def _forget_entries(self) -> None:
        """Queue entries that ended are history the ledger tells better; they slow every look."""
        self._client.forget_ended(ENTRY_SECONDS)

    def _clear_after_the_dead(self) -> None:
        """Work folders and roster rows of workers whose lock nobody holds."""
        folders = {path.name: path for path in work_folder(self._settings).iterdir()}
        rows = {worker.id for worker in self._roster.workers(EVER_SECONDS)}
        for worker in (rows | set(folders)) - {self._worker}:
            if self._liveness.try_lock(worker):
                try:
                    if worker in folders:
                        shutil.rmtree(folders[worker])
                    self._roster.forget(worker)
                finally:
                    self._liveness.unlock(worker)

    def _expire(self) -> None:
        if expired := self._retention.expire():
            log.info("results_expired", jobs=expired)

    def _collect_payloads(self) -> None:
        removed = self._store.collect(self._retention.referenced_payloads(), PAYLOAD_GRACE_SECONDS)
        if removed:
            log.info("payloads_removed", payloads=removed)

    def _forget_history(self) -> None:
        if removed := self._retention.forget_jobs(self._settings.history_seconds):
            log.info("history_forgotten", jobs=removed)


def work_folder(settings: Settings) -> Path:
    """Where workers keep their scratch folders, one each, named like their locks."""
    return settings.data_dir.absolute() / "work"
