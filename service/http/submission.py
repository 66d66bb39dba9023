"""From a request to a queued job: headers, options, files, then the queue, in that order.

Shared by /v1/jobs/<task>, the one-request endpoints and SageMaker's; knows none of their answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastapi import Request

from service.choice import Device, weakest
from service.errors import InvalidRequest, InvalidUpload
from service.http.body import UploadRules, check_headers, is_form
from service.http.filetypes import TASK_ACCEPTS, TASK_KINDS, task_of
from service.http.options import Texts, Wanted, read_wanted
from service.http.parts import Parts, in_thread
from service.http.problems import shown
from service.http.uploads import Upload, receive_upload
from service.jobs.records import Job, NewJob
from service.jobs.steps import plan
from service.pipelines import AUTO, find_pipeline

LONGEST_KEY = 255


@dataclass(frozen=True)
class Submitted:
    """created: False when an Idempotency-Key brought back an earlier job."""

    job: Job
    created: bool


async def submit(
    request: Request,
    parts: Parts,
    *tasks: str,
    attributes: Texts = (),
    adjust: Callable[[Wanted], Wanted] = lambda wanted: wanted,
) -> Submitted:
    """Read the request whole and queue its job.

    tasks:      what the endpoint does; with several, the files' bytes decide
    attributes: options from a header, beside the query and the form
    adjust:     a last word on what is wanted, called as soon as that is known

    Raises InvalidRequest and its kin, NotFound, PipelineUnavailable, QueueFull, NotReady,
    InsufficientStorage.
    """
    # 1. What the headers and the query say, before a byte of the body is read.
    key = idempotency_key(request)
    sources: dict[str, Texts] = {
        "query": request.query_params.multi_items(),
        "header": attributes,
    }
    rules = rules_for(parts, *tasks)
    check_headers(request, parts.store, rules)
    wanted = None
    if len(tasks) == 1 and not is_form(request):
        wanted = adjust(await _wanted(parts, tasks[0], sources, 1))
        await in_thread(_check_available, wanted, parts)

    # 2. The body: files into the store, a form's fields beside the query.
    upload = await receive_upload(request, parts.store, rules)
    if wanted is None:
        sources["form"] = upload.fields
        wanted = adjust(await _wanted(parts, _task(upload), sources, len(upload.files)))

    # 3. The job.
    return await enqueue(parts, wanted, upload, key)


async def enqueue(parts: Parts, wanted: Wanted, upload: Upload, key: str | None) -> Submitted:
    """Queue a job for files that are in the store."""
    check_file_count(wanted, len(upload.files))
    await in_thread(_check_available, wanted, parts)
    steps = plan(wanted.entry, wanted.options, parts.pipelines, wanted.choice)
    request = None if wanted.choice is None else {"pipeline": AUTO, "options": wanted.given}
    new = NewJob(wanted.entry.task, steps, upload.files, wanted.priority, key, request)
    return Submitted(*await in_thread(parts.queue.submit, new))


async def _wanted(parts: Parts, task: str, sources: Mapping[str, Texts], files: int) -> Wanted:
    return await in_thread(
        read_wanted, task, sources, parts.pipelines, files, lambda: device_of(parts)
    )


def device_of(parts: Parts) -> Device:
    """What jobs run on: the weakest of the workers' devices. Asks the database."""
    workers = parts.queue.workers()
    return weakest([Device(worker.device, worker.memory_bytes) for worker in workers])


def _check_available(wanted: Wanted, parts: Parts) -> None:
    """Raises PipelineUnavailable where one of the steps' pipelines cannot run here, or not with
    these options."""
    for step in plan(wanted.entry, wanted.options, parts.pipelines):
        find_pipeline(step.task, step.pipeline, parts.pipelines).check_available(step.options)


def _task(upload: Upload) -> str:
    """The one task that takes all these files."""
    tasks = {task_of(file.media_type) for file in upload.files}
    if len(tasks) > 1:
        raise InvalidUpload("The form mixes images and splats; send one or the other.")
    return tasks.pop()


def rules_for(parts: Parts, *tasks: str) -> UploadRules:
    """What a request for these tasks may carry."""
    entries = [entry for entry in parts.pipelines if entry.task in tasks]
    settings = parts.settings
    return UploadRules(
        kinds=tuple(kind for task in tasks for kind in TASK_KINDS[task]),
        accepts=" or ".join(TASK_ACCEPTS[task] for task in tasks),
        media_types=frozenset(name for entry in entries for name in entry.media_types),
        max_files=max(entry.inputs[1] for entry in entries),
        max_body_bytes=settings.max_upload_bytes,
        min_free_bytes=settings.min_free_bytes,
    )


def check_file_count(wanted: Wanted, count: int) -> None:
    fewest, most = wanted.entry.inputs
    if not fewest <= count <= most:
        limit = f"exactly {most}" if fewest == most else f"{fewest} to {most}"
        raise InvalidUpload(
            f"{count} files were sent; pipeline {wanted.entry.name!r} takes {limit}.",
            code="wrong_file_count",
        )


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key header. Raises InvalidRequest when it is not 1-255 visible ASCII."""
    keys: list[str] = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    key = keys[0]
    if len(set(keys)) > 1:
        raise InvalidRequest(
            f"{len(keys)} different Idempotency-Key headers were sent; send one.",
            code="invalid_idempotency_key",
        )
    if not 1 <= len(key) <= LONGEST_KEY or not all("!" <= char <= "~" for char in key):
        raise InvalidRequest(
            f"Idempotency-Key has the value {shown(key)} ({len(key)} characters); allowed: 1 to "
            f"{LONGEST_KEY} visible ASCII characters, no spaces.",
            code="invalid_idempotency_key",
            next_step="A UUID is a good key.",
        )
    return key


def job_headers(submitted: Submitted, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every answer about a submitted job carries."""
    headers = {"X-Job-Id": submitted.job.id, **(extra or {})}
    if not submitted.created:
        headers["Idempotency-Replayed"] = "true"
    return headers
