"""Every error a user can meet, as one tree: stable code, HTTP status, message, next step.

Knows nothing of HTTP frameworks; `service/http/problems.py` turns these into
`application/problem+json`, the CLI into one line on stderr.

    MeshpressError
    ├── InvalidRequest 400            malformed: unreadable body, bad header, no file
    │   ├── InvalidOptions 422        an option's name or value; lists field, value, allowed
    │   ├── InvalidUpload 422         the file is not what the pipeline takes
    │   ├── MethodNotAllowed 405      the path exists, the method does not
    │   ├── NotAcceptable 406         nothing here has a media type the client accepts
    │   ├── UploadStalled 408         the body stopped arriving
    │   ├── PayloadTooLarge 413
    │   ├── UnsupportedMediaType 415  this Content-Type is not accepted here
    │   └── RangeNotSatisfiable 416
    ├── NotFound 404                  job, artifact, pipeline or path
    ├── Gone 410                      the result has expired
    ├── Conflict 409                  the job's state does not allow this
    │   ├── IdempotencyConflict 422   the key was used with another request
    │   └── PipelineUnavailable 409   weights or a device are missing here
    ├── JobFailed 500                 the job of a synchronous request failed: a defect of ours
    │   ├── JobRefused 422            its file or its options are at fault
    │   ├── JobUnable 409             what it needs is not where it ran: weights, memory, a library
    │   └── JobInterrupted 503        the disk, the store or the GPU failed; a later try may succeed
    ├── QueueFull 429
    ├── NotReady 503                  guard verdict, queue or storage out of reach
    ├── WaitTimeout 504               a synchronous request outlived its time limit
    └── InsufficientStorage 507
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class MeshpressError(Exception):
    """code: stable name; status: HTTP status; message: what is wrong; next_step: what to do."""

    code = "internal_error"
    status = 500
    title = "Internal error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        next_step: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.next_step = next_step
        self.details = dict(details or {})


class InvalidRequest(MeshpressError):
    code, status, title = "invalid_request", 400, "Invalid request"


class InvalidOptions(InvalidRequest):
    """details["errors"]: a list of {field, value, message, allowed}."""

    code, status, title = "invalid_options", 422, "Invalid options"


class InvalidUpload(InvalidRequest):
    code, status, title = "invalid_upload", 422, "Invalid file"


class MethodNotAllowed(InvalidRequest):
    """details["allowed"]: the methods the path has."""

    code, status, title = "method_not_allowed", 405, "Method not allowed"


class NotAcceptable(InvalidRequest):
    code, status, title = "not_acceptable", 406, "Not acceptable"


class UploadStalled(InvalidRequest):
    code, status, title = "upload_stalled", 408, "Upload stalled"


class PayloadTooLarge(InvalidRequest):
    code, status, title = "payload_too_large", 413, "Payload too large"


class UnsupportedMediaType(InvalidRequest):
    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class RangeNotSatisfiable(InvalidRequest):
    """details["size_bytes"]: the artifact's size."""

    code, status, title = "range_not_satisfiable", 416, "Range not satisfiable"


class NotFound(MeshpressError):
    code, status, title = "not_found", 404, "Not found"


class Gone(MeshpressError):
    code, status, title = "result_expired", 410, "Result expired"


class Conflict(MeshpressError):
    code, status, title = "conflict", 409, "Conflict"


class IdempotencyConflict(Conflict):
    code, status, title = "idempotency_conflict", 422, "Idempotency-Key reused"


class PipelineUnavailable(Conflict):
    code, status, title = "pipeline_unavailable", 409, "Pipeline unavailable"


class JobFailed(MeshpressError):
    """The code is the job's own; `service.jobs.records.Fault` says which of these it is."""

    code, status, title = "job_failed", 500, "Job failed"


class JobRefused(JobFailed):
    code, status, title = "job_refused", 422, "Job refused"


class JobUnable(JobFailed):
    code, status, title = "job_unable", 409, "Job cannot run here"


class JobInterrupted(JobFailed):
    code, status, title = "job_interrupted", 503, "Job interrupted"


class QueueFull(MeshpressError):
    code, status, title = "queue_full", 429, "Queue full"


class NotReady(MeshpressError):
    code, status, title = "not_ready", 503, "Not ready"


class WaitTimeout(MeshpressError):
    code, status, title = "wait_timeout", 504, "Not finished in time"


class InsufficientStorage(MeshpressError):
    code, status, title = "insufficient_storage", 507, "Insufficient storage"
