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
from collections.abc import Callable

import sqlalchemy as sa
import structlog

from service.guard.machine import memory_of
from service.jobs import database
from service.jobs.engine import QueueClient, QueueWorker
from service.jobs.execution import Execution, in_short
from service.jobs.housekeeping import Housekeeper, work_folder
from service.jobs.ledger import Ledger
from service.jobs.lifeline import follow_parent
from service.jobs.liveness import claim, open_liveness
from service.jobs.retention import Retention
from service.jobs.roster import Roster
from service.jobs.runner_host import Killed, RunnerHost, RunnerState
from service.logs import configure_logs
from service.settings import Settings, read_settings
from service.storage.artifacts import ArtifactStore

log = structlog.get_logger("worker")

TICK_SECONDS = 1.0
HEARTBEAT_SECONDS = 5.0
IDLE_AFTER_SECONDS = 5.0
IDLE_PACE = 3.0  # an idle queue is looked at a third as often


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
        self._roster = Roster(self._engine)
        self._client = QueueClient(self._engine)
        store = ArtifactStore(settings.effective_storage_url, settings.data_dir)
        self._liveness = open_liveness(self._engine, settings.data_dir)
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        self._id = claim(self._liveness, f"{host}:{device}")
        workdir = work_folder(settings) / self._id
        shutil.rmtree(workdir, ignore_errors=True)  # ours alone: the claim proves it
        workdir.mkdir(parents=True)
        self._host = RunnerHost(device, runner_module)
        self._execution = Execution(settings, self._id, self._ledger, store, self._host, workdir)
        self._queue = QueueWorker(url, self._id, self._execution, settings.poll_seconds)
        self._housekeeper = Housekeeper(
            settings,
            self._id,
            self._ledger,
            Retention(self._engine),
            self._roster,
            self._client,
            store,
            self._liveness,
        )
        self._stop = threading.Event()
        self._last_work = time.monotonic()
        self._last_heartbeat = 0.0
        self._last_state = ""
        self._idle_ticks = 0

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        follow_parent(self._stop.set)
        self._host.check()
        self._attempt(lambda: self._roster.register(self._id, memory_of(self._device)))
        self._queue.launch()
        log.info("worker_started", worker=self._id, device=self._device)
        while not self._stop.wait(TICK_SECONDS):
            if not self._liveness.alive():
                # Others may recover our job now; its attempt number keeps us from publishing over
                # theirs. A fresh worker starts with a fresh lock.
                log.error("liveness_lost", worker=self._id)
                break
            for part in (
                self._host.check,
                self._heartbeat,
                self._set_pace,
                self._recover_orphans,
                self._housekeeper.tick,
            ):
                self._attempt(part)
        self._execution.stop(self._settings.drain_seconds)
        self._attempt(lambda: self._roster.forget(self._id))
        log.info("worker_stopped", worker=self._id)

    def _attempt(self, part: Callable[[], None]) -> None:
        """Run one part of a tick; what fails is reported and tried again at the next."""
        try:
            part()
        except Killed:
            return
        except sa.exc.SQLAlchemyError as problem:
            log.warning("database_unreachable", error=in_short(problem))
        except Exception:
            log.exception("tick_failed")

    def _heartbeat(self) -> None:
        now = time.monotonic()
        state = "busy" if self._execution.busy else "idle"
        if self._host.state is not RunnerState.READY and state == "idle":
            state = self._host.state
        if state != self._last_state or now - self._last_heartbeat > HEARTBEAT_SECONDS:
            self._roster.heartbeat(self._id, self._device, os.getpid(), state)
            self._last_state, self._last_heartbeat = state, now

    def _set_pace(self) -> None:
        """Look at the queue less often once no job has been open anywhere for a while."""
        now = time.monotonic()
        if self._ledger.has_open_jobs():
            self._last_work = now
        idle = now - self._last_work > IDLE_AFTER_SECONDS
        self._queue.set_pace(self._settings.poll_seconds * (IDLE_PACE if idle else 1.0))

    def _recover_orphans(self) -> None:
        """Give jobs of dead workers back to the queue; a lock we can take proves the death."""
        executors = self._client.executors()
        for executor in executors - {self._id}:
            if self._liveness.try_lock(executor):
                try:
                    count = self._queue.recover([executor])
                    log.warning("orphans_recovered", worker=executor, jobs=count)
                finally:
                    self._liveness.unlock(executor)
        # An entry we claimed but never began (no thread was to be had): two idle looks tell it
        # from one that is just beginning or ending.
        stuck = self._id in executors and not self._execution.busy
        self._idle_ticks = self._idle_ticks + 1 if stuck else 0
        if self._idle_ticks >= 2:
            self._idle_ticks = 0
            log.warning("claims_recovered", jobs=self._queue.recover([self._id]))


def main() -> None:
    settings, device = read_settings(), sys.argv[1]
    configure_logs(settings, process="worker", device=device)
    status = 1
    try:
        Worker(settings, *sys.argv[1:]).run()
        status = 0
    except Exception:
        log.exception("worker_failed")
    finally:
        # Threads of the queue library may be parked on interrupted jobs: leave without joining.
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
