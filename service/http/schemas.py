"""What the API answers, as models: jobs, artifacts, pipelines, health, problems, with examples.

Knows the records it shows, not where they come from. OpenAPI is derived from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from service.jobs.records import Attempt, Fault, Job, JobError, Priority, StoredFile
from service.jobs.states import JobState

EXAMPLE_ID = "0199f3a2-6c1d-7e4b-9a53-2f1c0d8e7b64"
EXAMPLE_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class FileView(BaseModel):
    """A file of a job, by name, type, size and content hash."""

    name: str
    media_type: str
    size_bytes: int
    sha256: str


class ArtifactView(FileView):
    """A result file and where to get it."""

    url: str


class StepView(BaseModel):
    """One pipeline run of the job, with every option filled in."""

    task: str
    pipeline: str
    options: Mapping[str, Any]
    choice: Mapping[str, Any] | None = Field(
        default=None,
        description="Why this pipeline, and what spoke against better ones; null where the request "
        "named it.",
    )


class ProgressView(BaseModel):
    stage: str = Field(description="What is being done; empty before the first report.")
    fraction: float = Field(description="Of the whole job, 0 to 1.")
    message: str


class ErrorView(BaseModel):
    """Why a job failed."""

    code: str
    message: str
    next_step: str
    fault: Fault = Field(
        description="Where the cause lies: input, the file or the options; setup, what the worker "
        "lacks; outage, its disk, store or GPU failed and a later try may succeed; defect, ours. "
        "One request for a file answers 422, 409, 503 or 500."
    )
    user_fault: bool = Field(description="True when another file or option would help.")


class AttemptView(BaseModel):
    """One try of the job on one worker."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str = Field(description="Empty while it runs; finished, crashed or interrupted.")
    reason: str


class LinksView(BaseModel):
    """Paths on this server. `cancel` is DELETE on that path, null when nothing is left to do."""

    self: str
    events: str
    artifacts: str
    cancel: str | None


class JobView(BaseModel):
    """A job as users see it. Times are UTC."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": EXAMPLE_ID,
                "task": "mesh",
                "state": "succeeded",
                "steps": [{"task": "mesh", "pipeline": "embedded", "options": {"faces": 20000}}],
                "priority": "normal",
                "queue_position": None,
                "progress": {"stage": "done", "fraction": 1.0, "message": ""},
                "attempt": 1,
                "version": 9,
                "created_at": "2026-03-01T12:00:00Z",
                "started_at": "2026-03-01T12:00:00.050Z",
                "finished_at": "2026-03-01T12:00:01.200Z",
                "expires_at": "2026-03-08T12:00:01.200Z",
                "inputs": [
                    {
                        "name": "chair.png",
                        "media_type": "image/png",
                        "size_bytes": 184320,
                        "sha256": EXAMPLE_SHA256,
                    }
                ],
                "artifacts": [
                    {
                        "name": "mesh.glb",
                        "media_type": "model/gltf-binary",
                        "size_bytes": 902144,
                        "sha256": EXAMPLE_SHA256,
                        "url": f"/v1/jobs/{EXAMPLE_ID}/artifacts/mesh.glb",
                    }
                ],
                "report": {"faces": 20000, "watertight": True},
                "error": None,
                "idempotency_key": None,
                "links": {
                    "self": f"/v1/jobs/{EXAMPLE_ID}",
                    "events": f"/v1/jobs/{EXAMPLE_ID}/events",
                    "artifacts": f"/v1/jobs/{EXAMPLE_ID}/artifacts",
                    "cancel": None,
                },
            }
        }
    )

    id: str
    task: str
    state: JobState
    steps: list[StepView]
    priority: Priority
    queue_position: int | None = Field(description="1 = next; null once the job has started.")
    progress: ProgressView
    attempt: int = Field(description="Number of the current or last attempt; 0 before the first.")
    version: int = Field(description="Grows with every change; the id of the job's events.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="When inputs and artifacts are deleted.")
    inputs: list[FileView]
    artifacts: list[ArtifactView] = Field(description="The main one first.")
    report: Mapping[str, Any] = Field(description="Facts from the pipeline: counts, warnings.")
    error: ErrorView | None
    idempotency_key: str | None
    links: LinksView


class JobDetail(JobView):
    """A job with its attempts."""

    attempts: list[AttemptView]


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobView]
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last.")


class ArtifactList(BaseModel):
    artifacts: list[ArtifactView]


class OptionView(BaseModel):
    """One option of a pipeline."""

    name: str
    description: str
    default: Any
    allowed: str = Field(description="In words, e.g. 'a whole number from 500 to 500000'.")
    json_schema: Mapping[str, Any]


class WeightsView(BaseModel):
    """Weights of a pipeline: from where, how large, under which licence, whether they are here."""

    name: str
    repo: str
    size_bytes: int | None = Field(description="Null where the hub alone knows it.")
    licence: str
    licence_link: str
    permissive: bool = Field(description="False: its licence must be accepted before it is used.")
    present: bool
    optional: bool = Field(description="The pipeline runs without it, and does better with it.")


class PipelineView(BaseModel):
    """One pipeline: what it takes, gives, needs and weighs, and whether it can run here."""

    name: str
    task: str
    summary: str
    default: bool = Field(
        description="True for the one that a request with one file gets now when it names none."
    )
    available: bool
    reason: str = Field(description="Why it cannot run here; empty when it can.")
    commands: list[str] = Field(description="What to run so that it can; empty when it can.")
    needs: list[str]
    packages: list[str] = Field(description="Python packages beyond the base install.")
    gpu_memory_bytes: int = Field(description="The least a GPU must have; 0: it needs no GPU.")
    weights: list[WeightsView]
    fewest_inputs: int
    most_inputs: int
    media_types: list[str]
    artifacts: list[str]
    formats: list[str] = Field(
        description="What `formats` may ask for, the default first; what `artifacts` lacks is made "
        "by a second step of the job."
    )
    options: list[OptionView]


class ChoiceView(BaseModel):
    """What `pipeline=auto` takes for one file now, and why."""

    asked: str
    pipeline: str
    reason: str
    passed_over: Mapping[str, str] = Field(description="Better ones, and what spoke against each.")


class PipelineList(BaseModel):
    pipelines: list[PipelineView]
    auto: Mapping[str, ChoiceView] = Field(description="By task.")


class CheckView(BaseModel):
    """One condition of readiness; `reason` is empty when it holds."""

    name: str
    ok: bool
    reason: str


class Readiness(BaseModel):
    ready: Literal[True]
    checks: list[CheckView]


class Liveness(BaseModel):
    status: Literal["ok"]
    version: str


class Index(BaseModel):
    """Where things are."""

    name: str
    version: str
    links: Mapping[str, str]


class Problem(BaseModel):
    """An error as RFC 9457 describes it; further members depend on `code`."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "type": "urn:meshpress:error:invalid_options",
                "title": "Invalid options",
                "status": 422,
                "detail": "Pipeline 'embedded' does not accept faces='5' "
                "(allowed: a whole number from 500 to 500000).",
                "instance": "/v1/jobs/mesh",
                "code": "invalid_options",
                "request_id": "4f9f0f1c2b6d4d6f8f6f3c1f6b1f4c57",
                "next_step": "GET /v1/pipelines lists every option with its range and default.",
                "errors": [
                    {
                        "field": "faces",
                        "value": "5",
                        "message": "input should be greater than or equal to 500",
                        "allowed": "a whole number from 500 to 500000",
                    }
                ],
            }
        },
    )

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    next_step: str = ""


# -- records to views ----------------------------------------------------------------------


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}"


def artifact_path(job_id: str, name: str) -> str:
    return f"{job_path(job_id)}/artifacts/{quote(name, safe='')}"


def view_artifact(job: Job, file: StoredFile) -> ArtifactView:
    return ArtifactView(**vars(file), url=artifact_path(job.id, file.name))


def view_job(job: Job) -> JobView:
    return JobView(**_job_fields(job))


def view_job_detail(job: Job, attempts: Sequence[Attempt]) -> JobDetail:
    return JobDetail(
        **_job_fields(job), attempts=[AttemptView(**vars(attempt)) for attempt in attempts]
    )


def _view_error(error: JobError) -> ErrorView:
    return ErrorView(**vars(error), user_fault=error.fault is Fault.INPUT)


def _job_fields(job: Job) -> dict[str, Any]:
    path = job_path(job.id)
    return {
        "id": job.id,
        "task": job.task,
        "state": job.state,
        "steps": [
            StepView(
                task=step.task, pipeline=step.pipeline, options=step.options, choice=step.choice
            )
            for step in job.steps
        ],
        "priority": job.priority,
        "queue_position": job.queue_position,
        "progress": ProgressView(**vars(job.progress)),
        "attempt": job.attempt,
        "version": job.version,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "expires_at": job.expires_at,
        "inputs": [FileView(**vars(file)) for file in job.inputs],
        "artifacts": [view_artifact(job, file) for file in job.artifacts],
        "report": job.report,
        "error": _view_error(job.error) if job.error else None,
        "idempotency_key": job.idempotency_key,
        "links": LinksView(
            self=path,
            events=f"{path}/events",
            artifacts=f"{path}/artifacts",
            cancel=None if job.finished else path,
        ),
    }
