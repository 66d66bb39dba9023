"""Every error as `application/problem+json` (RFC 9457): code, what is wrong, what to do next.

Knows no endpoint: it turns exceptions into answers. A traceback never leaves the process; the
`request_id` in the answer is the one in the log.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.errors import (
    InvalidRequest,
    MeshpressError,
    MethodNotAllowed,
    NotFound,
    RangeNotSatisfiable,
)

PROBLEM_JSON = "application/problem+json"
LONGEST_VALUE = 200  # characters of a user's value that are repeated to them
RETRY_AFTER_SECONDS = {429: "5", 503: "5"}


def problem_body(error: MeshpressError, *, instance: str, request_id: str) -> dict[str, Any]:
    """The members of the problem document; `error.details` become extension members."""
    body: dict[str, Any] = {
        "type": f"urn:meshpress:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "instance": instance,
        "code": error.code,
        "request_id": request_id,
    }
    if error.next_step:
        body["next_step"] = error.next_step
    return {**error.details, **body}


def problem_response(error: MeshpressError, *, instance: str, request_id: str) -> Response:
    body = problem_body(error, instance=instance, request_id=request_id)
    text = json.dumps(body, default=str, ensure_ascii=False, indent=2) + "\n"
    return Response(
        text.encode("utf-8", errors="replace"),
        status_code=error.status,
        media_type=PROBLEM_JSON,
        headers=_headers(error),
    )


def _headers(error: MeshpressError) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if error.status in RETRY_AFTER_SECONDS:
        headers["Retry-After"] = RETRY_AFTER_SECONDS[error.status]
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.details['size_bytes']}"
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.details["allowed"])
    if "job" in error.details:
        headers["Location"] = error.details["job"]
    if "job_id" in error.details:
        headers["X-Job-Id"] = error.details["job_id"]
    return headers


def shown(value: object) -> str:
    """A user's value for a message: quoted, and cut when it is long."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…")


def install(app: FastAPI, routes: Iterable[APIRoute]) -> None:
    """Answer every exception of `app` with a problem. `routes` tell which methods a path has."""
    known = tuple(routes)

    async def on_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, MeshpressError)
        return answer(request, error)

    async def on_invalid_parameter(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(request, _invalid_parameter(error))

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(request, _from_framework(request, error, known))

    app.add_exception_handler(MeshpressError, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid_parameter)
    app.add_exception_handler(HTTPException, on_http_exception)


def answer(request: Request, error: MeshpressError) -> Response:
    """The problem for this request, with its path and its id."""
    request_id = request.scope.get("state", {}).get("request_id", "")
    return problem_response(error, instance=request.url.path, request_id=request_id)


def _invalid_parameter(error: RequestValidationError) -> InvalidRequest:
    """A path, query or header parameter the framework refused, in the user's words."""
    faults = [
        {
            "field": ".".join(str(part) for part in fault["loc"][1:]) or str(fault["loc"][0]),
            "value": str(fault.get("input"))[:LONGEST_VALUE],
            "message": fault["msg"][:1].lower() + fault["msg"][1:],
        }
        for fault in error.errors()
    ]
    lines = "; ".join(
        f"{fault['field']}={fault['value']!r}: {fault['message']}" for fault in faults
    )
    return InvalidRequest(
        f"Parameters are not valid: {lines}.",
        code="invalid_parameter",
        next_step="GET /openapi.json describes every parameter.",
        details={"errors": faults},
    )


def _from_framework(
    request: Request, error: HTTPException, routes: tuple[APIRoute, ...]
) -> MeshpressError:
    """404 and 405 of the router; anything else the framework raises keeps its status."""
    path = request.url.path
    if error.status_code == 404:
        return NotFound(
            f"There is nothing at {shown(path)}.",
            code="path_not_found",
            next_step="GET / lists the endpoints.",
        )
    if error.status_code == 405:
        allowed = allowed_methods(request, routes)
        return MethodNotAllowed(
            f"{path} does not take {request.method}; it takes {', '.join(allowed)}.",
            next_step="GET /openapi.json describes every endpoint.",
            details={"allowed": allowed},
        )
    refusal = InvalidRequest(str(error.detail), code="http_error")
    refusal.status = error.status_code
    return refusal


def allowed_methods(request: Request, routes: Iterable[APIRoute]) -> list[str]:
    """All methods of the request's path, over all its routes."""
    scope = {"type": "http", "path": request.url.path, "method": request.method}
    methods: set[str] = set()
    for route in routes:
        if route.matches(scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods)
