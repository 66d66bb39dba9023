"""The client's exceptions, and how an HTTP answer becomes one.

Knows nothing of requests or retries.

    MeshpressClientError        code, status, message, next_step, errors as the service gave them
    ├── ServiceUnreachable      no answer, after the retries
    ├── ServiceBusy             429, 503: later may work; the retries are used up
    ├── ServiceFailed           any other 5xx
    ├── RequestRefused          4xx: the request must change
    │   └── NotFound            404, 410: no such job or artifact, or it has expired
    ├── JobFailed               the job ended `failed`; .job carries its error
    ├── JobCancelled            the job ended `cancelled`
    ├── WaitTimeout             the job was still going on after `timeout_seconds`
    └── CorruptDownload         the bytes received do not have the artifact's SHA-256
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from .job import Job


class MeshpressClientError(Exception):
    """status is 0 when no HTTP answer is behind it; errors lists faulty options."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.code = str(facts.get("code") or "client_error")
        self.status = int(facts.get("status") or 0)
        self.next_step = str(facts.get("next_step") or "")
        self.errors: list[dict[str, Any]] = list(facts.get("errors") or ())
        self.job: Job | None = facts.get("job")


class ServiceUnreachable(MeshpressClientError): ...


class ServiceBusy(MeshpressClientError): ...


class ServiceFailed(MeshpressClientError): ...


class RequestRefused(MeshpressClientError): ...


class NotFound(RequestRefused): ...


class JobFailed(MeshpressClientError): ...


class JobCancelled(MeshpressClientError): ...


class WaitTimeout(MeshpressClientError): ...


class CorruptDownload(MeshpressClientError): ...


def unreachable(url: httpx.URL, error: httpx.TransportError) -> ServiceUnreachable:
    return ServiceUnreachable(
        f"No answer from {url}: {error or type(error).__name__}.",
        code="serviceunreachable",
        next_step="Start a service with `meshpress serve`, or check the address.",
    )


def problem(response: httpx.Response) -> MeshpressClientError:
    """An answer that is no success, as an error; tolerant of proxies that answer in HTML."""
    kind: type[MeshpressClientError] = RequestRefused
    if response.status_code in (404, 410):
        kind = NotFound
    elif response.status_code in (429, 503):
        kind = ServiceBusy
    elif response.status_code >= 500:
        kind = ServiceFailed
    try:
        facts = response.json()
    except ValueError:
        facts = {}
    facts = facts if isinstance(facts, dict) else {}
    message = facts.get("detail") or facts.get("title") or response.reason_phrase
    return kind(
        str(message or f"HTTP status {response.status_code}"),
        code=facts.get("code") or f"http_{response.status_code}",
        status=response.status_code,
        next_step=facts.get("next_step"),
        errors=facts.get("errors"),
    )
