"""HTTP with second tries: one request, sent until it is answered or the retries are used up.

Knows nothing of jobs. Every request here may be repeated safely: reading and cancelling by nature,
a submission through its Idempotency-Key.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from .errors import ServiceBusy, problem, unreachable

OCTETS = "application/octet-stream"
LONGEST_PAUSE_SECONDS = 10.0


class Connection:
    """One service over httpx; `http` is open for streams, `request` for everything else."""

    def __init__(self, http: httpx.Client, retries: int, backoff_seconds: float) -> None:
        self.http = http
        self._retries = retries
        self._backoff_seconds = backoff_seconds

    def request(
        self, method: str, url: str, *, paths: Sequence[Path] = (), **options: Any
    ) -> httpx.Response:
        """Send and return a success. Raises the tree of `errors`.

        paths: files to send, streamed from disk: one as the raw body, several as a form's `image`
               fields; read anew for each try
        """
        failures = 0
        while True:
            try:
                with ExitStack() as stack:
                    body = _body(paths, stack)
                    response = self.http.request(method, url, **options, **body)
            except httpx.TransportError as error:
                failures += 1
                self.pause_or_give_up(failures, error)
                continue
            if response.is_success:
                return response
            refusal = problem(response)
            failures += 1
            if not isinstance(refusal, ServiceBusy) or failures > self._retries:
                raise refusal
            self._pause(failures, response.headers.get("retry-after", ""))

    def pause_or_give_up(self, failures: int, error: httpx.TransportError) -> None:
        """Wait before the next try. Raises ServiceUnreachable when there is none left."""
        hopeless = isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError)
        if hopeless or failures > self._retries:
            raise unreachable(self.http.base_url, error) from error
        self._pause(failures)

    def _pause(self, failures: int, retry_after: str = "") -> None:
        seconds = self._backoff_seconds * 2 ** (failures - 1)
        if retry_after.isdigit():
            seconds = max(seconds, float(retry_after))
        time.sleep(min(seconds, LONGEST_PAUSE_SECONDS))


def query(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as query parameters: a list repeats its name, None is left out."""
    texts: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, list | tuple):
            texts[name] = [str(item) for item in value]
        elif value is not None:
            texts[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return texts


def _body(paths: Sequence[Path], stack: ExitStack) -> dict[str, Any]:
    files = [stack.enter_context(path.open("rb")) for path in paths]
    if not files:
        return {}
    if len(files) == 1:
        return {"content": files[0]}
    # The service looks at the bytes, so no file is refused for a type guessed from its name.
    return {
        "files": [
            ("image", (path.name, file, OCTETS)) for path, file in zip(paths, files, strict=True)
        ]
    }
