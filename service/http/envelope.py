"""Around every request: an id, a clock, counters, one log line, and the last resort.

Knows no endpoint. An exception nobody foresaw is logged with its traceback and answered as a
problem that carries only the id.
"""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import MeshpressError
from service.http.metrics import RequestMetrics
from service.http.problems import problem_response

log = structlog.get_logger("api")

CLIENT_GONE = 499  # nginx's number for a client that closed the connection
QUIET_ROUTES = frozenset({"/ping", "/healthz", "/readyz", "/metrics"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Envelope:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status, bytes_in, bytes_out = 0, 0, 0
        began = time.perf_counter()
        ended = 0.0  # when the answer was whole; what follows is waiting for the client

        async def counted_receive() -> Message:
            nonlocal bytes_in
            message = await receive()
            bytes_in += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, bytes_out, ended
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-request-id", request_id.encode()),
                ]
            elif not message.get("more_body", False):
                ended = time.perf_counter()
            bytes_out += len(message.get("body", b""))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, counted_receive, counted_send)
            except ClientDisconnect:
                status = status or CLIENT_GONE
            except Exception as error:
                log.error("unhandled", path=scope["path"], exc_info=error)
                if status:  # half an answer is out: cutting the connection tells the client
                    raise
                await _internal_error(scope, request_id)(scope, counted_receive, counted_send)
            finally:
                seconds = (ended or time.perf_counter()) - began
                route = getattr(scope.get("route"), "path", "unmatched")
                self._metrics.observe(
                    _method(scope),
                    route,
                    status,
                    seconds=seconds,
                    bytes_in=bytes_in,
                    bytes_out=bytes_out,
                )
                level = "warning" if status >= 500 and route not in QUIET_ROUTES else "debug"
                getattr(log, level)(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    milliseconds=round(seconds * 1000, 1),
                    bytes_in=bytes_in,
                )


def _request_id(scope: Scope) -> str:
    """The client's X-Request-ID when it is a plain word, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return uuid.uuid4().hex


def _method(scope: Scope) -> str:
    """A label must not grow with what clients invent."""
    method = str(scope["method"])
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "?"


def _internal_error(scope: Scope, request_id: str) -> ASGIApp:
    error = MeshpressError(
        "Something went wrong inside the service.",
        next_step=f"Tell the operator the request_id {request_id}; the log has the cause.",
    )
    return problem_response(error, instance=scope["path"], request_id=request_id)
