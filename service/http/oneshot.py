"""One request, one file back: POST /v1/mesh and POST /v1/splat.

The same job as /v1/jobs/<task>, waited for; knows the queue only through submission and waiting.
"""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from service.errors import (
    Conflict,
    JobFailed,
    JobInterrupted,
    JobRefused,
    JobUnable,
    NotReady,
    WaitTimeout,
)
from service.http.artifacts import check_published, serve_artifact
from service.http.negotiation import (
    accepts_json_only,
    choose_format,
    pick_artifact,
)
from service.http.openapi import FILE_RESULT, submission_docs
from service.http.options import Wanted
from service.http.parts import Parts, PartsOf, in_thread
from service.http.schemas import artifact_path, job_path, view_job
from service.http.submission import Submitted, job_headers, submit
from service.http.waiting import WaitEnd, preferred_wait_seconds, wait_for_job
from service.jobs.records import Fault, Job
from service.jobs.states import JobState

router = APIRouter(tags=["one request"])

FAILURES: dict[Fault, type[JobFailed]] = {
    Fault.INPUT: JobRefused,
    Fault.SETUP: JobUnable,
    Fault.OUTAGE: JobInterrupted,
    Fault.DEFECT: JobFailed,
}


@router.post(
    "/v1/mesh",
    summary="Image(s) in, mesh out",
    response_class=Response,
    responses=FILE_RESULT["mesh"],
    openapi_extra=submission_docs("mesh"),
)
async def make_mesh(request: Request, parts: PartsOf) -> Response:
    """The mesh itself, in the first of `formats` or the one that Accept prefers."""
    return await _make(request, parts, "mesh")


@router.post(
    "/v1/splat",
    summary="Splat(s) in, SOG or another format out",
    response_class=Response,
    responses=FILE_RESULT["splat"],
    openapi_extra=submission_docs("splat"),
)
async def make_splat(request: Request, parts: PartsOf) -> Response:
    """The scene itself, in the first of `formats` or the one that Accept prefers."""
    return await _make(request, parts, "splat")


async def _make(request: Request, parts: Parts, task: str) -> Response:
    accept = request.headers.get("accept", "*/*")
    longest = parts.settings.sync_timeout_seconds
    preferred = preferred_wait_seconds(request)
    seconds = longest if preferred is None else min(preferred, longest)

    chosen: list[str] = []

    def choose(wanted: Wanted) -> Wanted:
        wanted, name = apply_accept(wanted, accept)
        chosen.append(name)
        return wanted

    submitted = await submit(request, parts, task, adjust=choose)
    job = await finish(request, parts, submitted, seconds)
    return await answer_with_file(request, parts, submitted, job, chosen[0])


def apply_accept(wanted: Wanted, accept: str) -> tuple[Wanted, str]:
    """The job with the format that Accept prefers, unless `formats` was given; and the format of
    the file to answer with ("" for the job itself as JSON).

    Raises NotAcceptable.
    """
    has_formats = "formats" in wanted.options
    given = has_formats and "formats" in wanted.given
    formats = tuple(wanted.options["formats"]) if given else wanted.formats
    if accepts_json_only(accept):
        return wanted, ""
    chosen = choose_format(accept, formats)
    if has_formats and not given:
        wanted = replace(wanted, options={**wanted.options, "formats": [chosen]})
    return wanted, chosen


async def finish(
    request: Request,
    parts: Parts,
    submitted: Submitted,
    seconds: float,
    cancel_on_timeout: bool = False,
) -> Job:
    """Wait for success.

    A client that goes away cancels its job, unless it sent an Idempotency-Key: then it means to
    come back. Raises JobFailed, Conflict when the job was cancelled, WaitTimeout, NotReady when
    the service stops, ClientDisconnect.
    """
    job_id = submitted.job.id
    job, end = await wait_for_job(parts, request, job_id, seconds)
    path = job_path(job_id)
    where = {"job": path, "job_id": job_id}
    if end is WaitEnd.CLIENT_GONE:
        if submitted.created and submitted.job.idempotency_key is None:
            await cancel_quietly(parts, job_id)
        raise ClientDisconnect()
    if end is WaitEnd.STOPPING:
        raise NotReady(
            f"The service is restarting; job {job_id} goes on.",
            code="restarting",
            next_step=f"GET {path} in a few seconds.",
            details=where,
        )
    if job is None or not job.finished:
        if cancel_on_timeout:
            await cancel_quietly(parts, job_id)
        raise WaitTimeout(
            f"Job {job_id} did not end within {seconds:g} seconds"
            + (" and was cancelled." if cancel_on_timeout else "; it goes on."),
            next_step="" if cancel_on_timeout else f"GET {path}, or follow {path}/events.",
            details=where,
        )
    if job.state is JobState.FAILED:
        raise _failure(job, where)
    if job.state is JobState.CANCELLED:
        raise Conflict(f"Job {job_id} was cancelled.", code="job_cancelled", details=where)
    return job


async def answer_with_file(
    request: Request, parts: Parts, submitted: Submitted, job: Job, wanted_format: str
) -> Response:
    """The artifact of the wanted format, with headers that lead to the job and the other files."""
    path = job_path(job.id)
    if not wanted_format:
        headers = job_headers(submitted, {"Content-Location": path, "Cache-Control": "no-store"})
        body = view_job(job).model_dump_json()
        return Response(body, headers=headers, media_type="application/json")
    check_published(job)
    file = pick_artifact(job.artifacts, wanted_format)
    links = [f'<{path}>; rel="describedby"; type="application/json"']
    links += [
        f'<{artifact_path(job.id, other.name)}>; rel="alternate"; type="{other.media_type}"'
        for other in job.artifacts
        if other.name != file.name
    ]
    extra = {"Content-Location": artifact_path(job.id, file.name), "Link": ", ".join(links)}
    return await serve_artifact(request, parts, job, file, job_headers(submitted, extra))


async def cancel_quietly(parts: Parts, job_id: str) -> None:
    """Cancel a job nobody waits for; that it has just ended is fine."""
    try:
        await in_thread(parts.queue.cancel, job_id)
    except Conflict:
        return


def _failure(job: Job, where: dict[str, str]) -> JobFailed:
    error = job.error
    if error is None:
        return JobFailed(f"Job {job.id} failed.", details=where)
    next_step = error.next_step
    if job.idempotency_key is not None and error.fault in (Fault.SETUP, Fault.OUTAGE):
        next_step += " Send another Idempotency-Key then: this one stands for the failed job."
    return FAILURES[error.fault](
        error.message, code=error.code, next_step=next_step.strip(), details=where
    )
