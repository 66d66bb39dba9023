"""Result files over HTTP: list, GET and HEAD, single ranges, ETags, a safe name to save under.

Knows jobs as records and bytes by hash. An artifact never changes, so its SHA-256 is its ETag and
caches may keep it until it expires.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from service.errors import Conflict, Gone, NotFound, RangeNotSatisfiable
from service.http.filenames import attachment
from service.http.openapi import ARTIFACT_BYTES
from service.http.parts import Parts, PartsOf, in_thread
from service.http.problems import shown
from service.http.schemas import ArtifactList, job_path, view_artifact
from service.jobs.records import Job, StoredFile
from service.jobs.states import JobState

router = APIRouter(tags=["artifacts"])

_RANGE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)
_LONGEST_NUMBER = 18  # digits of a position; more is past every file's end


@router.get("/v1/jobs/{job_id}/artifacts", summary="List a job's artifacts")
async def list_artifacts(job_id: str, parts: PartsOf) -> ArtifactList:
    job = await in_thread(parts.queue.get, job_id)
    check_published(job)
    return ArtifactList(artifacts=[view_artifact(job, file) for file in job.artifacts])


@router.get(
    "/v1/jobs/{job_id}/artifacts/{name}",
    summary="Download an artifact",
    response_class=Response,
    responses=ARTIFACT_BYTES,
)
async def get_artifact(job_id: str, name: str, request: Request, parts: PartsOf) -> Response:
    """The file's bytes. Takes `Range` (one range), `If-Range` and `If-None-Match`."""
    job = await in_thread(parts.queue.get, job_id)
    check_published(job)
    return await serve_artifact(request, parts, job, find_artifact(job, name))


@router.head("/v1/jobs/{job_id}/artifacts/{name}", include_in_schema=False)
async def head_artifact(job_id: str, name: str, request: Request, parts: PartsOf) -> Response:
    return await get_artifact(job_id, name, request, parts)


def find_artifact(job: Job, name: str) -> StoredFile:
    """Raises NotFound listing the names there are."""
    for file in job.artifacts:
        if file.name == name:
            return file
    names = ", ".join(file.name for file in job.artifacts) or "none"
    raise NotFound(
        f"Job {job.id} has no artifact named {shown(name)}.",
        code="artifact_not_found",
        next_step=f"Its artifacts: {names}.",
    )


async def serve_artifact(
    request: Request,
    parts: Parts,
    job: Job,
    file: StoredFile,
    extra: dict[str, str] | None = None,
) -> Response:
    """A response with the file, the part of it that Range asks for, or 304.

    Raises Gone when the bytes are no longer there, RangeNotSatisfiable.
    """
    if not await in_thread(parts.store.exists, file.sha256):
        raise _gone(job)
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Cache-Control": f"private, max-age={_seconds_left(job)}, immutable",
        "Accept-Ranges": "bytes",
        "Content-Disposition": attachment(file.name),
        "X-Content-Type-Options": "nosniff",
        **(extra or {}),
    }
    reading = request.method in ("GET", "HEAD")
    if reading and _none_match(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)

    start, end, status = 0, file.size_bytes, 200
    wanted = request.headers.get("range")
    if reading and wanted is not None:
        if request.headers.get("if-range", etag).strip() == etag:
            if (found := read_range(wanted, file.size_bytes)) is not None:
                (start, end), status = found, 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size_bytes}"
    headers["Content-Length"] = str(end - start)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=file.media_type)
    return StreamingResponse(
        parts.store.read(file.sha256, start, end),
        status_code=status,
        headers=headers,
        media_type=file.media_type,
    )


def read_range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """[start, end) of a Range header; None for what RFC 9110 lets a server ignore: another unit
    than bytes, or several ranges.

    Raises RangeNotSatisfiable for a malformed range and one outside the file.
    """
    if not header.strip().lower().startswith("bytes") or "," in header:
        return None
    found = _RANGE.fullmatch(header.strip())
    first, last = found.groups() if found else ("", "")
    if not first and not last:
        raise _bad_range(header, size_bytes, "it is not of the form bytes=first-last")
    if not first:  # the last N bytes
        count = min(int(last[:_LONGEST_NUMBER]), size_bytes)
        if count == 0:
            raise _bad_range(header, size_bytes, "it asks for no byte")
        return size_bytes - count, size_bytes
    start = int(first) if len(first) <= _LONGEST_NUMBER else size_bytes
    end = int(last) + 1 if last and len(last) <= _LONGEST_NUMBER else size_bytes
    if start >= size_bytes:
        raise _bad_range(header, size_bytes, "it begins after the end")
    if end <= start:
        raise _bad_range(header, size_bytes, "it ends before it begins")
    return start, min(end, size_bytes)


def _bad_range(header: str, size_bytes: int, why: str) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(
        f"Range: {shown(header)} cannot be served: {why}; the file has {size_bytes} bytes.",
        next_step="Send Range: bytes=first-last, or leave it out.",
        details={"size_bytes": size_bytes},
    )


def check_published(job: Job) -> None:
    """Raises Gone for an expired job, Conflict for one that has no artifacts (yet)."""
    if job.state is JobState.SUCCEEDED:
        return
    if job.state is JobState.EXPIRED:
        raise _gone(job)
    if job.finished:
        why = f": {job.error.message}" if job.error else "."
        raise Conflict(
            f"Job {job.id} has no artifacts, it ended {job.state}{why}",
            code="job_without_artifacts",
            details={"state": job.state, "job": job_path(job.id)},
        )
    raise Conflict(
        f"Job {job.id} has no artifacts yet, it is {job.state}.",
        code="job_not_finished",
        next_step=f"Wait for it: GET {job_path(job.id)}/events, or Prefer: wait=60 on "
        f"{job_path(job.id)}.",
        details={"state": job.state, "job": job_path(job.id)},
    )


def _gone(job: Job) -> Gone:
    when = f" on {job.expires_at:%Y-%m-%d %H:%M} UTC" if job.expires_at else ""
    return Gone(
        f"The artifacts of job {job.id} have expired{when} and are deleted.",
        next_step="Submit the job again.",
    )


def _seconds_left(job: Job) -> int:
    if job.expires_at is None:
        return 0
    return max(0, int((job.expires_at - datetime.now(UTC)).total_seconds()))


def _none_match(header: str | None, etag: str) -> bool:
    """If-None-Match says the client has it already; weak comparison, as RFC 9110 asks."""
    if header is None:
        return False
    tags = (tag.strip().removeprefix("W/") for tag in header.split(","))
    return any(tag in ("*", etag) for tag in tags)
