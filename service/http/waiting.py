"""Waiting for a job within a request: `Prefer: wait=N` (RFC 7240), client gone, service stopping.

Knows no endpoint; says how a wait ended and leaves the answer to the caller.
"""

from __future__ import annotations

import asyncio
import re
from enum import StrEnum

from fastapi import Request

from service.errors import InvalidRequest
from service.http.parts import Parts
from service.http.problems import shown
from service.jobs.records import Job

_WAIT = re.compile(r"""wait\s*=\s*"?([^";\s]*)"?""", re.IGNORECASE)


class WaitEnd(StrEnum):
    FINISHED = "finished"  # the job has ended, one way or another
    TIMED_OUT = "timed out"  # it has not
    CLIENT_GONE = "client gone"  # nobody is listening any more
    STOPPING = "stopping"  # this process is shutting down; the job goes on elsewhere


def preferred_wait_seconds(request: Request) -> int | None:
    """N of `Prefer: wait=N`, None without it; other preferences are not ours.

    Raises InvalidRequest when N is not a number of seconds.
    """
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        if found := _WAIT.match(preference.strip()):
            text = found.group(1)
            if not (text.isascii() and text.isdigit() and len(text) <= 9):
                raise InvalidRequest(
                    f"Prefer: wait={text[:40]} is not valid: {shown(text)} is not a whole number "
                    "of seconds.",
                    code="invalid_prefer",
                    next_step="Send Prefer: wait=60, for example.",
                )
            return int(text)
    return None


async def wait_for_job(
    parts: Parts, request: Request, job_id: str, seconds: float
) -> tuple[Job | None, WaitEnd]:
    """Wait until the job ends, `seconds` pass, the client goes or the service stops.

    The job comes back when the wait ended FINISHED or TIMED_OUT. The request's body must have
    been read: what arrives next is its disconnect.
    """
    finished = asyncio.ensure_future(parts.watcher.finished(job_id, seconds))
    gone = asyncio.ensure_future(_until_gone(request))
    stopping = asyncio.ensure_future(parts.stopping.wait())
    waits = (finished, gone, stopping)
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    if not finished.cancelled():
        job = finished.result()
        return job, WaitEnd.FINISHED if job.finished else WaitEnd.TIMED_OUT
    return None, WaitEnd.STOPPING if not stopping.cancelled() else WaitEnd.CLIENT_GONE


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
