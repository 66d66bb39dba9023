"""What a worker does with one job: begin an attempt, run its steps, publish or fail.

Knows the ledger, the store and the runner, not the queue library. Every way out of here leaves the
job in a state from which it will end: succeeded, failed, cancelled, or queued for another attempt.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
import structlog

from service.jobs.engine import Interrupted
from service.jobs.ledger import Ledger
from service.jobs.protocol import RunRequest
from service.jobs.records import Fault, Job, JobError, Progress, StoredFile
from service.jobs.runner_host import (
    FOR_WANT_OF_MEMORY,
    Killed,
    RunnerDied,
    RunnerHost,
    StepTimeout,
)
from service.jobs.states import JobState
from service.jobs.steps import combined, handed_on, published
from service.settings import Settings
from service.storage.artifacts import ArtifactStore

log = structlog.get_logger("worker")

PROGRESS_SECONDS = 0.2
DATABASE_RETRY_SECONDS = 0.5
FREE_TRIES = 3  # deaths of a runner before it began the step, which cost no attempt
UNTRUSTED_AFTER = ("pipeline_bug", "out_of_memory", "device_lost")
"""Codes after which a runner is replaced: what it holds may be damaged, or take the memory."""
Value = TypeVar("Value")


class Execution:
    """The JobBody of one worker; runs one job at a time.

    workdir: a folder of this worker's own
    """

    def __init__(
        self,
        settings: Settings,
        worker: str,
        ledger: Ledger,
        store: ArtifactStore,
        host: RunnerHost,
        workdir: Path,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._ledger = ledger
        self._store = store
        self._host = host
        self._workdir = workdir
        self._draining = threading.Event()
        self._stopping = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._attempt = 0

    @property
    def busy(self) -> bool:
        return not self._idle.is_set()

    def stop(self, drain_seconds: float) -> None:
        """Take no new job, give the current one time to end, then interrupt it."""
        self._draining.set()
        self._idle.wait(drain_seconds)
        self._stopping.set()
        self._host.kill()
        self._idle.wait(5.0)

    # -- JobBody ---------------------------------------------------------------------------

    def begin(self, job_id: str) -> int:
        self._idle.clear()
        if self._draining.is_set():
            self._leave()
            raise Interrupted
        structlog.contextvars.bind_contextvars(job_id=job_id)
        return self._safely(job_id, lambda: self._begin(job_id), 0)

    def run_step(self, job_id: str, index: int, previous: Any) -> Any:
        return self._safely(job_id, lambda: self._run_step(job_id, index, previous), None)

    def finish(self, job_id: str, outcomes: Sequence[Any]) -> None:
        self._safely(job_id, lambda: self._finish(job_id, outcomes), None)

    def _safely(self, job_id: str, call: Callable[[], Value], stop: Value) -> Value:
        """The call's value; a bug of ours ends the job with its name and `stop`s it there."""
        try:
            return call()
        except (Interrupted, Killed) as reason:
            self._leave()
            raise Interrupted from reason
        except Exception as problem:
            if self._stopping.is_set():
                self._leave()
                raise Interrupted from problem
            log.exception("worker_bug")
            error = JobError(
                f"The worker failed unexpectedly ({type(problem).__name__}).",
                code="worker_bug",
                next_step="Please report this with the worker's log.",
            )
            self._fail(job_id, error)
            return stop

    # -- begin, step, finish ---------------------------------------------------------------

    def _begin(self, job_id: str) -> int:
        self._host.ensure_ready()  # a runner that cannot start is not this job's fault
        job = self._patiently(lambda: self._ledger.get(job_id))
        if not self._begin_attempt(job_id):
            return self._leave()
        return len(job.steps)

    def _run_step(self, job_id: str, index: int, previous: Any) -> Any:
        job = self._patiently(lambda: self._ledger.get(job_id))
        free_tries = FREE_TRIES
        while True:
            try:
                event = self._run(job, index, previous)
            except RunnerDied as death:
                log.warning("runner_died", reason=str(death), attempt=self._attempt)
                if not death.started and free_tries:
                    free_tries -= 1
                    continue
                self._crash(job_id, str(death))
                self._host.ensure_ready()
                if not self._begin_attempt(job_id):
                    return self._stop_here()
                continue
            except StepTimeout as timeout:
                error = JobError(
                    f"The job was stopped: {timeout}.",
                    code="timeout",
                    next_step="Send a smaller input, or raise MESHPRESS_JOB_TIMEOUT_SECONDS.",
                    fault=Fault.SETUP,
                )
                return self._fail(job_id, error)
            except Killed:
                self._interrupt(job_id)
            except OSError as problem:
                error = JobError(
                    "The worker could not read or write the job's files: "
                    f"{problem.strerror or problem}.",
                    code="worker_storage",
                    next_step="Check the free space of DATA_DIR and the artifact store, then "
                    "submit again.",
                    fault=Fault.OUTAGE,
                )
                return self._fail(job_id, error)
            return self._settle(job_id, event)

    def _finish(self, job_id: str, outcomes: Sequence[Any]) -> None:
        job = self._patiently(lambda: self._ledger.get(job_id))
        artifacts = published(job.steps, [_files(outcome) for outcome in outcomes])
        report = combined(job.steps, [outcome["report"] for outcome in outcomes])
        if lost := [item.name for item in artifacts if not self._store.exists(item.sha256)]:
            error = JobError(
                f"The artifact store no longer holds {', '.join(lost)}.",
                code="result_lost",
                next_step="Check the store for deletions by others, then submit again.",
                fault=Fault.OUTAGE,
            )
            return self._fail(job_id, error)
        ttl, attempt = self._settings.result_ttl_seconds, self._attempt
        visible = self._patiently(
            lambda: self._ledger.publish(job_id, attempt, artifacts, report, ttl)
        )
        if visible:
            log.info("job_succeeded", attempt=attempt)
        else:
            self._patiently(lambda: self._ledger.cancelled(job_id, ttl, attempt))
        self._stop_here()

    # -- one step --------------------------------------------------------------------------

    def _run(self, job: Job, index: int, previous: Any) -> dict[str, Any]:
        """Give the step to the runner and follow it to its last event."""
        step = job.steps[index]
        folder = self._workdir / f"{job.id}.{self._attempt}.{index}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "inputs").mkdir(parents=True)
        (folder / "work").mkdir()
        try:
            files = list(job.inputs) if index == 0 else handed_on(step, _files(previous))
            inputs = []
            for number, file in enumerate(files):
                path = folder / "inputs" / str(number)
                self._store.fetch(file.sha256, path, file.size_bytes)
                inputs.append({"path": str(path), "name": file.name, "media_type": file.media_type})
            request = RunRequest(
                step.task, step.pipeline, step.options, inputs, str(folder / "work")
            )
            event = self._host.run(
                request,
                self._ticker(job, index),
                self._settings.job_timeout_seconds,
                self._settings.cancel_grace_seconds,
            )
            if event["type"] == "done":
                kept = [self._store_artifact(item) for item in event["artifacts"]]
                attempt = self._attempt
                self._patiently(lambda: self._ledger.keep(job.id, attempt, kept))
                event["artifacts"] = [asdict(file) for file in kept]
            return event
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _store_artifact(self, item: Mapping[str, str]) -> StoredFile:
        sha256, size_bytes = self._store.add_file(Path(item["path"]))
        return StoredFile(item["name"], item["media_type"], size_bytes, sha256)

    def _ticker(self, job: Job, index: int) -> Callable[[Progress | None], bool]:
        """Stores progress and asks for cancellation, a few times a second at most."""
        pending: Progress | None = None
        last = 0.0
        attempt = self._attempt

        def on_tick(progress: Progress | None) -> bool:
            nonlocal pending, last
            pending = progress or pending
            now = time.monotonic()
            if now - last < PROGRESS_SECONDS:
                return False
            last = now
            try:
                if pending is not None:
                    fraction = (index + pending.fraction) / len(job.steps)
                    whole = Progress(pending.stage, fraction, pending.message)
                    state = self._ledger.progress(job.id, attempt, whole)
                    pending = None
                else:
                    state = self._ledger.state(job.id, attempt)
            except sa.exc.SQLAlchemyError as problem:  # the step goes on while it is away
                log.warning("progress_not_stored", error=in_short(problem))
                return False
            return state is not JobState.RUNNING

        return on_tick

    def _settle(self, job_id: str, event: Mapping[str, Any]) -> Any:
        """Turn the runner's last event into the step's outcome, or end the job."""
        if event["type"] == "done":
            return {"artifacts": event["artifacts"], "report": event["report"]}
        if event["type"] == "cancelled":
            ttl, attempt = self._settings.result_ttl_seconds, self._attempt
            self._patiently(lambda: self._ledger.cancelled(job_id, ttl, attempt))
            return self._stop_here()
        if event["code"] in UNTRUSTED_AFTER:
            self._host.restart()
        error = JobError(event["message"], event["code"], event["next_step"], Fault(event["fault"]))
        return self._fail(job_id, error)

    # -- attempts and endings --------------------------------------------------------------

    def _begin_attempt(self, job_id: str) -> bool:
        """Start the next attempt unless the job was cancelled, has ended or is poison."""
        ttl = self._settings.result_ttl_seconds
        attempt = self._patiently(lambda: self._ledger.begin_attempt(job_id, self._worker))
        if attempt is None:
            self._patiently(lambda: self._ledger.cancelled(job_id, ttl))
            return False
        self._attempt = attempt
        crashes = self._patiently(lambda: self._ledger.crashes(job_id))
        if len(crashes) < self._settings.attempt_limit:
            return True
        reasons = "; ".join(f"attempt {item.number}: {item.reason}" for item in crashes)
        next_step = "Check the file with another tool; if it is sound, report it with the log."
        fault = Fault.DEFECT
        if all(FOR_WANT_OF_MEMORY in item.reason for item in crashes):
            next_step = "Send a smaller file, or give the worker more memory."
            fault = Fault.SETUP
        error = JobError(
            f"The job was given up after {len(crashes)} crashed attempts: {reasons}.",
            code="poison_job",
            next_step=next_step,
            fault=fault,
        )
        self._fail(job_id, error)
        return False

    def _fail(self, job_id: str, error: JobError) -> None:
        log.info("job_failed", code=error.code, message=error.message, attempt=self._attempt)
        ttl, attempt = self._settings.result_ttl_seconds, self._attempt
        failed = self._patiently(lambda: self._ledger.fail(job_id, error, ttl, attempt))
        if not failed:
            self._patiently(lambda: self._ledger.cancelled(job_id, ttl, attempt))
        return self._stop_here()

    def _crash(self, job_id: str, reason: str) -> None:
        number = self._attempt
        self._patiently(lambda: self._ledger.crash(job_id, number, reason))

    def _interrupt(self, job_id: str) -> None:
        """The worker is going: show the job as waiting, for free: this was not its fault."""
        try:
            self._ledger.requeue(job_id, self._attempt)
        except sa.exc.SQLAlchemyError as problem:  # whoever recovers it will find it running
            log.warning("not_given_back", error=in_short(problem))
        raise Interrupted

    def _stop_here(self) -> None:
        """No outcome: the engine runs no further step."""
        self._leave()

    def _leave(self) -> int:
        structlog.contextvars.unbind_contextvars("job_id")
        self._idle.set()
        return 0

    def _patiently(self, call: Callable[[], Value]) -> Value:
        """Repeat a ledger call while the database is away: the job waits, it is not failed.

        Raises Interrupted when the worker is told to stop meanwhile.
        """
        while True:
            try:
                return call()
            except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as problem:
                log.warning("database_unreachable", error=in_short(problem))
                if self._stopping.wait(DATABASE_RETRY_SECONDS):
                    raise Interrupted from problem


def _files(outcome: Mapping[str, Any]) -> list[StoredFile]:
    """A step's artifacts, of its outcome as the queue keeps it."""
    return [StoredFile(**item) for item in outcome["artifacts"]]


def in_short(problem: sa.exc.SQLAlchemyError) -> str:
    """A database error in one line, without the statement and its parameters."""
    return str(getattr(problem, "orig", None) or problem).strip().splitlines()[0]
