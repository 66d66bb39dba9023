"""Jobs over HTTP: submit, look, list, cancel.

Knows the queue, not who runs the jobs; each handler is one page of the API.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.http.openapi import ACCEPTED, submission_docs
from service.http.parts import Parts, PartsOf, in_thread
from service.http.schemas import (
    JobDetail,
    JobPage,
    JobView,
    job_path,
    view_job,
    view_job_detail,
)
from service.http.submission import job_headers, submit
from service.http.waiting import preferred_wait_seconds, wait_for_job
from service.jobs.records import Job
from service.jobs.states import JobState

router = APIRouter(tags=["jobs"])

RETRY_AFTER_SECONDS = 1


class JobsQuery(BaseModel):
    """Query of GET /v1/jobs; a parameter it does not know is refused."""

    model_config = ConfigDict(extra="forbid")

    task: Annotated[Literal["mesh", "splat"] | None, Field(description="Only this task.")] = None
    state: Annotated[JobState | None, Field(description="Only jobs in this state.")] = None
    limit: Annotated[int, Field(ge=1, le=200, description="Jobs on a page.")] = 50
    cursor: Annotated[
        str | None, Field(max_length=200, description="next_cursor of an earlier page.")
    ] = None


@router.post(
    "/v1/jobs/mesh",
    status_code=202,
    summary="Queue image(s) -> mesh",
    response_model=JobView,
    responses=ACCEPTED,
    openapi_extra=submission_docs("mesh"),
)
async def submit_mesh(request: Request, parts: PartsOf) -> Response:
    """One image as the raw body, or several of one object in a form, in order."""
    return await _submit_job(request, parts, "mesh")


@router.post(
    "/v1/jobs/splat",
    status_code=202,
    summary="Queue splat -> SOG",
    response_model=JobView,
    responses=ACCEPTED,
    openapi_extra=submission_docs("splat"),
)
async def submit_splat(request: Request, parts: PartsOf) -> Response:
    """One Gaussian splat as the raw body or in a form."""
    return await _submit_job(request, parts, "splat")


async def _submit_job(request: Request, parts: Parts, task: str) -> Response:
    wait_seconds = preferred_wait_seconds(request)
    submitted = await submit(request, parts, task)
    job, applied = await _wait_if_preferred(request, parts, submitted.job, wait_seconds)
    headers = job_headers(submitted, {"Location": job_path(job.id), **applied})
    if not job.finished:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return _json(view_job(job), 200 if job.finished else 202, headers)


@router.get("/v1/jobs", summary="List jobs, newest first")
async def list_jobs(query: Annotated[JobsQuery, Query()], parts: PartsOf) -> JobPage:
    jobs, cursor = await in_thread(
        parts.queue.page,
        task=query.task,
        state=query.state,
        limit=query.limit,
        after=query.cursor,
    )
    return JobPage(jobs=[view_job(job) for job in jobs], next_cursor=cursor)


@router.get("/v1/jobs/{job_id}", summary="Look at a job", response_model=JobDetail)
async def get_job(job_id: str, request: Request, parts: PartsOf) -> Response:
    """The job with its attempts. `Prefer: wait=60` answers when it ends, or after that time."""
    wait_seconds = preferred_wait_seconds(request)
    job = await in_thread(parts.queue.get, job_id)
    job, headers = await _wait_if_preferred(request, parts, job, wait_seconds)
    attempts = await in_thread(parts.queue.attempts, job_id)
    return _json(view_job_detail(job, attempts), 200, headers)


@router.delete(
    "/v1/jobs/{job_id}",
    summary="Cancel a job",
    response_model=JobView,
    responses={202: {"model": JobView, "description": "It was running and is being stopped."}},
)
async def cancel_job(job_id: str, parts: PartsOf) -> Response:
    """200 when it is cancelled, 202 while a running job is being stopped, 409 when it has ended."""
    job = await in_thread(parts.queue.cancel, job_id)
    return _json(view_job(job), 200 if job.finished else 202, {})


async def _wait_if_preferred(
    request: Request, parts: Parts, job: Job, wait_seconds: int | None
) -> tuple[Job, dict[str, str]]:
    """The job after `Prefer: wait`, and the header that says so. A client that has gone, or a
    service that is stopping, ends the wait; the job goes on."""
    if wait_seconds is None:
        return job, {}
    seconds = min(wait_seconds, int(parts.settings.sync_timeout_seconds))
    if not job.finished and seconds:
        waited, _ = await wait_for_job(parts, request, job.id, seconds)
        job = waited or job
    return job, {"Preference-Applied": f"wait={seconds}"}


def _json(view: BaseModel, status: int, headers: dict[str, Any]) -> Response:
    headers.setdefault("Cache-Control", "no-store")
    return Response(
        view.model_dump_json(), status_code=status, headers=headers, media_type="application/json"
    )
