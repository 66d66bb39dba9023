"""A job's changes as server-sent events, for browsers' EventSource and for `curl -N`.

Event names: `state` when the state changed, `progress` when something else did, `done` with the
final state, after which the stream ends. The data is the job, the id its version.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from service.http.openapi import EVENT_STREAM
from service.http.parts import Parts, PartsOf, in_thread
from service.http.schemas import view_job
from service.jobs.records import Job
from service.jobs.states import JobState

router = APIRouter(tags=["jobs"])

KEEP_ALIVE_SECONDS = 15.0  # proxies cut silent connections after 30 to 60 s
RETRY_MILLISECONDS = 2000


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=Response,
    responses=EVENT_STREAM,
)
async def follow_job(job_id: str, request: Request, parts: PartsOf) -> Response:
    """Server-sent events until the job ends. `Last-Event-ID` skips what the client has seen; for a
    job that had ended by then the answer is 204, which tells EventSource to stop."""
    job = await in_thread(parts.queue.get, job_id)
    seen = _last_event_id(request)
    if job.finished and seen is not None and seen >= job.version:
        return Response(status_code=204)
    return StreamingResponse(
        stream_events(parts, job_id, seen),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def stream_events(
    parts: Parts,
    job_id: str,
    seen: int | None = None,
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
) -> AsyncIterator[str]:
    """The stream's text: one event per change newer than `seen`, comments while nothing happens."""
    changes = cast(AsyncGenerator[Job, None], parts.watcher.follow(job_id))
    stopping = asyncio.ensure_future(parts.stopping.wait())
    change = asyncio.ensure_future(_next(changes))
    state: JobState | None = None
    try:
        yield f"retry: {RETRY_MILLISECONDS}\n\n"
        while True:
            await asyncio.wait(
                (change, stopping), timeout=keep_alive_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if stopping.done():
                return  # the client reconnects, to our successor
            if not change.done():
                yield ": keep-alive\n\n"
                continue
            job = change.result()
            if job is None:
                return
            if seen is None or job.version > seen:
                yield format_event(job, state)
            state = job.state
            change = asyncio.ensure_future(_next(changes))
    finally:
        stopping.cancel()
        change.cancel()
        await asyncio.gather(change, stopping, return_exceptions=True)
        await changes.aclose()


def format_event(job: Job, earlier: JobState | None) -> str:
    """One event; `earlier` is the state of the event before it."""
    name = "done" if job.finished else "state" if job.state is not earlier else "progress"
    data = view_job(job).model_dump_json()  # no raw newline can be in it
    return f"event: {name}\nid: {job.version}\ndata: {data}\n\n"


async def _next(changes: AsyncIterator[Job]) -> Job | None:
    return await anext(changes, None)


def _last_event_id(request: Request) -> int | None:
    """None when absent or not one of ours; the stream then begins with the job as it is."""
    text = request.headers.get("last-event-id", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
