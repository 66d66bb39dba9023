"""Waiting for jobs in asyncio: one poller serves every waiting request of this process.

Knows the queue's `versions`, nothing of HTTP. While nobody waits, nothing is polled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import structlog

from service.errors import NotReady
from service.jobs.queue import JobQueue
from service.jobs.records import Job

log = structlog.get_logger("api")


class JobWatcher:
    """Create and close inside a running event loop."""

    def __init__(self, queue: JobQueue, poll_seconds: float = 0.05) -> None:
        self._queue = queue
        self._poll_seconds = poll_seconds
        self._watched: dict[str, list[asyncio.Event]] = {}
        self._versions: dict[str, int] = {}
        self._poller: asyncio.Task[None] | None = None

    async def finished(self, job_id: str, timeout_seconds: float) -> Job:
        """The job once it has ended, or as it is when the time is up. Raises NotFound."""
        deadline = time.monotonic() + timeout_seconds
        changed = self._watch(job_id)
        try:
            while True:
                job = await asyncio.to_thread(self._queue.get, job_id)
                left = deadline - time.monotonic()
                if job.finished or left <= 0:
                    return job
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), left)
                changed.clear()
        finally:
            self._unwatch(job_id, changed)

    async def follow(self, job_id: str) -> AsyncIterator[Job]:
        """The job now and after each change, until it has ended. Raises NotFound."""
        changed = self._watch(job_id)
        try:
            seen = -1
            while True:
                job = await asyncio.to_thread(self._queue.get, job_id)
                if job.version != seen:
                    seen = job.version
                    yield job
                if job.finished:
                    return
                await changed.wait()
                changed.clear()
        finally:
            self._unwatch(job_id, changed)

    async def close(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            with suppress(asyncio.CancelledError):
                await self._poller

    def _watch(self, job_id: str) -> asyncio.Event:
        changed = asyncio.Event()
        self._watched.setdefault(job_id, []).append(changed)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        return changed

    def _unwatch(self, job_id: str, changed: asyncio.Event) -> None:
        self._watched[job_id].remove(changed)
        if not self._watched[job_id]:
            del self._watched[job_id]
            self._versions.pop(job_id, None)

    async def _poll(self) -> None:
        """Wake the watchers of every job whose version moved, until nobody watches."""
        while self._watched:
            try:
                found = await asyncio.to_thread(self._queue.versions, list(self._watched))
            except NotReady as problem:  # the database is away: look again, keep the watchers
                log.warning("watch_paused", reason=problem.message)
                found = {}
            for job_id, version in found.items():
                if self._versions.get(job_id) != version and job_id in self._watched:
                    self._versions[job_id] = version
                    for changed in self._watched[job_id]:
                        changed.set()
            await asyncio.sleep(self._poll_seconds)
