"""Is it alive, is it ready, what has it done: /healthz, /readyz, /metrics.

Readiness asks what a job needs: queue, storage, free space, a live worker.
Knows none of their insides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from prometheus_client import generate_latest

from service import __version__
from service.errors import MeshpressError, NotReady
from service.http.parts import Parts, PartsOf
from service.http.schemas import CheckView, Liveness, Readiness

router = APIRouter(tags=["health"])

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FRESH_SECONDS = 1.0  # how long an answer is reused, so that probes cost nothing
ANSWER_SECONDS = 1.5  # SageMaker gives /ping 2 s
WORKER_SILENT_SECONDS = 20.0  # four missed heartbeats


@router.get("/healthz", summary="Is the process alive")
async def get_health() -> Liveness:
    return Liveness(status="ok", version=__version__)


@router.get("/readyz", summary="Can a job be done now", response_model=Readiness)
async def get_readiness(request: Request, parts: PartsOf) -> Readiness:
    """200 when a job can be taken and done; else a 503 problem with every check's reason."""
    checks = await readiness_of(request).checks(parts)
    failed = [check for check in checks if not check.ok]
    if failed:
        raise NotReady(
            "Not ready: " + "; ".join(f"{check.name}: {check.reason}" for check in failed) + ".",
            next_step="Retry in a few seconds; the service's log says more.",
            details={"ready": False, "checks": [check.model_dump() for check in checks]},
        )
    return Readiness(ready=True, checks=checks)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def get_metrics(request: Request) -> Response:
    # Not async: the queue's collector blocks, so this runs in a thread.
    return Response(generate_latest(request.app.state.registry), media_type=METRICS_TYPE)


def readiness_of(request: Request) -> ReadinessProbe:
    probe: ReadinessProbe = request.app.state.readiness
    return probe


class ReadinessProbe:
    """Runs the checks at most once a FRESH_SECONDS, however many ask, and never for long."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._running: dict[str, asyncio.Task[str]] = {}
        self._checks: list[CheckView] = []
        self._checked_at = -FRESH_SECONDS

    async def checks(self, parts: Parts) -> list[CheckView]:
        async with self._lock:
            if time.monotonic() - self._checked_at >= FRESH_SECONDS:
                found = await asyncio.gather(*(self._run(name, parts) for name in CHECKS))
                self._checks = [*found, _stopping(parts)]
                self._checked_at = time.monotonic()
            return self._checks

    async def _run(self, name: str, parts: Parts) -> CheckView:
        """One check in a thread. One that hangs has failed, and is not started again until it
        comes back: it must not take a thread at each probe."""
        task = self._running.get(name)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(CHECKS[name], parts))
            self._running[name] = task
        done, _ = await asyncio.wait({task}, timeout=ANSWER_SECONDS)
        if not done:
            reason = f"no answer in {ANSWER_SECONDS:g} seconds"
        else:
            del self._running[name]
            reason = task.result()
        return CheckView(name=name, ok=not reason, reason=reason)


def _stopping(parts: Parts) -> CheckView:
    reason = "the service is stopping" if parts.stopping.is_set() else ""
    return CheckView(name="running", ok=not reason, reason=reason)


# -- the checks: each returns why not, or nothing ------------------------------------------


def check_queue(parts: Parts) -> str:
    try:
        parts.queue.check()
    except MeshpressError as error:
        return error.message
    return ""


def check_storage(parts: Parts) -> str:
    try:
        parts.store.check_writable()
    except OSError as error:
        return f"a file cannot be written: {error.strerror or error}"
    return ""


def check_free_space(parts: Parts) -> str:
    free, least = parts.store.free_bytes(), parts.settings.min_free_bytes
    return "" if free >= least else f"{free} bytes are free, {least} must stay free"


def check_worker(parts: Parts) -> str:
    try:
        workers = parts.queue.workers()
    except MeshpressError as error:
        return error.message
    now = datetime.now(UTC)
    live = [
        worker
        for worker in workers
        if (now - worker.seen_at).total_seconds() < WORKER_SILENT_SECONDS
    ]
    if any(worker.state in ("idle", "busy") for worker in live):
        return ""
    if live:
        return f"worker {live[0].id} is {live[0].state}"
    return "no worker is running"


CHECKS: dict[str, Callable[[Parts], str]] = {
    "queue": check_queue,
    "storage": check_storage,
    "free_space": check_free_space,
    "worker": check_worker,
}
