"""A worker process: owns one device, takes one job at a time, looks after workers that died.

Knows neither HTTP nor what pipelines do. Started by the supervisor as
`python -m service.jobs.worker DEVICE [RUNNER_MODULE]`. SIGTERM drains; SIGKILL at any moment loses
nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import threading
import time

import sqlalchemy as sa
import structlog

from service.jobs import database
from service.jobs.engine import QueueClient, QueueWorker
from service.jobs.execution import Execution
from service.jobs.ledger import Ledger
from service.jobs.lifeline import follow_parent
from service.jobs.liveness import Liveness, claim, open_liveness
from service.jobs.records import JobError
from service.jobs.runner_host import RunnerHost
from service.logs import configure_logs
from service.settings import Settings, read_settings
from service.storage.artifacts import ArtifactStore

log = structlog.get_logger("worker")

TICK_SECONDS = 1.0
HEARTBEAT_SECONDS = 5.0
SWEEP_SECONDS = 60.0
IDLE_AFTER_SECONDS = 5.0
IDLE_PACE = 2.0  # an idle queue is looked at half as often
PAYLOAD_GRACE_SECONDS = 3600.0


class Worker:
    """run() until SIGTERM; everything else happens in its ticks and the engine's threads."""

    def __init__(
        self, settings: Settings, device: str, runner_module: str = "service.jobs.runner"
    ) -> None:
        self._settings = settings
        self._device = device
        url = settings.effective_queue_url
        self._engine = database.create_engine(url)
        self._ledger = Ledger(self._engine)
        self._client = QueueClient(self._engine)
        self._store = ArtifactStore(settings.effective_storage_url, settings.data_dir)
        self._liveness: Liveness = open_liveness(self._engine, settings.data_dir)
        self._id = claim(self._liveness, f"{socket.gethostname()}:{device}")
        workdir = settings.data_dir.absolute() / "work" / re.sub(r"[^\w.#-]", "_", self._id)
        shutil.rmtree(workdir, ignore_errors=True)  # ours alone: the claim proves it
        workdir.mkdir(parents=True)
        self._host = RunnerHost(device, runner_module)
        self._execution = Execution(
            settings, self._id, self._ledger, self._store, self._host, workdir
        )
        self._queue = QueueWorker(url, self._id, self._execution, settings.poll_seconds)
        self._stop = threading.Event()
        self._last_work = time.monotonic()
        self._last_heartbeat = self._last_sweep = 0.0
        self._last_state = ""

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        follow_parent(self._stop.set)
        self._host.start()
        self._queue.launch()
        log.info("worker_started", worker=self._id, device=self._device)
        while not self._stop.wait(TICK_SECONDS):
            try:
                self._tick()
            except sa.exc.DBAPIError as problem:
                log.warning("database_unreachable", error=str(problem.orig))
        self._execution.stop(self._settings.drain_seconds)
        self._ledger.forget_worker(self._id)
        log.info("worker_stopped", worker=self._id)

    def _tick(self) -> None:
        if not self._liveness.alive():
            # Others may recover our job now; the attempt number keeps us from publishing twice.
            log.error("liveness_lost", worker=self._id)
            self._stop.set()
            return
        now = time.monotonic()
        self._heartbeat(now)
        self._set_pace(now)
        self._recover_orphans()
        if now - self._last_sweep > SWEEP_SECONDS:
            self._last_sweep = now
            self._sweep()

    def _heartbeat(self, now: float) -> None:
        state = "busy" if self._execution.busy else "idle"
        if state != self._last_state or now - self._last_heartbeat > HEARTBEAT_SECONDS:
            self._ledger.heartbeat(self._id, self._device, os.getpid(), state)
            self._last_state, self._last_heartbeat = state, now

    def _set_pace(self, now: float) -> None:
        """Look at the queue less often once no job has been open anywhere for a while."""
        if self._ledger.has_open_jobs():
            self._last_work = now
        idle = now - self._last_work > IDLE_AFTER_SECONDS
        self._queue.set_pace(self._settings.poll_seconds * (IDLE_PACE if idle else 1.0))

    def _recover_orphans(self) -> None:
        """Give jobs of dead workers back to the queue; a lock we can take proves the death."""
        for executor in self._client.executors() - {self._id}:
            if self._liveness.try_lock(executor):
                try:
                    count = self._queue.recover([executor])
                    self._ledger.forget_worker(executor)
                    log.warning("orphans_recovered", worker=executor, jobs=count)
                finally:
                    self._liveness.unlock(executor)

    def _sweep(self) -> None:
        """Expire results, drop their payloads, end jobs whose queue entry is gone."""
        expired = self._ledger.expire()
        removed = self._store.collect(self._ledger.referenced_payloads(), PAYLOAD_GRACE_SECONDS)
        if expired or removed:
            log.info("expired", jobs=expired, payloads=removed)
        suspects = self._client.ended(list(self._ledger.unfinished()))
        for job_id in suspects & set(self._ledger.unfinished()):
            error = JobError(
                "abandoned",
                "The queue no longer holds this job; it was not run to its end.",
                "Submit it again and report this with the worker's log.",
            )
            log.error("job_abandoned", job_id=job_id)
            ttl = self._settings.result_ttl_seconds
            if not self._ledger.fail(job_id, error, ttl):
                self._ledger.cancelled(job_id, ttl)


def main() -> None:
    settings, device = read_settings(), sys.argv[1]
    configure_logs(settings, process="worker", device=device)
    Worker(settings, *sys.argv[1:]).run()
    # Threads of the queue library may be parked on interrupted jobs: leave without joining them.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
