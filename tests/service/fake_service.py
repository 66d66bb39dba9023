"""A service of a few jobs behind an httpx transport: it speaks the real bytes of HTTP's bodies.

Faults are planted by name, each used up once: see `Fault`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

RESULT = bytes(range(256)) * 2000  # 512,000 bytes: several chunks
RESULT_SHA256 = hashlib.sha256(RESULT).hexdigest()


class BrokenStream(httpx.SyncByteStream):
    """Gives `data`, then loses the connection."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self.data
        raise httpx.ReadError("connection lost")


@dataclass
class FakeService(httpx.BaseTransport):
    """One job, "j1", that has the state and result it is given.

    seen:   every request: method, path, query, headers, body chunks
    faults: what to do, in order, instead of answering: an exception to raise or a response
    """

    job: dict[str, Any] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Exception | httpx.Response] = field(default_factory=list)
    events: list[str | None] = field(default_factory=list)  # one stream each; None breaks it
    result: bytes = RESULT
    ranges: bool = True
    break_after: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.job = {
            "id": "j1",
            "task": "mesh",
            "state": "succeeded",
            "progress": {"stage": "done", "fraction": 1.0, "message": ""},
            "artifacts": [
                {
                    "name": "mesh.glb",
                    "media_type": "model/gltf-binary",
                    "size_bytes": len(RESULT),
                    "sha256": RESULT_SHA256,
                    "url": "/v1/jobs/j1/artifacts/mesh.glb",
                }
            ],
            "error": None,
            "report": {"faces": 12},
        } | self.job

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        chunks = list(request.stream)
        self.seen.append(
            {
                "method": request.method,
                "path": request.url.path,
                "raw_path": request.url.raw_path.decode(),
                "query": request.url.params.multi_items(),
                "headers": request.headers,
                "chunks": chunks,
            }
        )
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return fault
        path = request.url.path
        if path.endswith("/events"):
            return self._stream()
        if "/artifacts/" in path:
            return self._artifact(request.headers.get("range"))
        if path == "/v1/jobs" and request.method == "GET":
            return self._page(dict(request.url.params))
        return httpx.Response(202 if request.method == "POST" else 200, json=self.job)

    def _stream(self) -> httpx.Response:
        if not self.events:
            return httpx.Response(404, json={"detail": "no stream here"})
        text = self.events.pop(0) or ""
        stream = BrokenStream(text.encode())
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)

    def _artifact(self, wanted: str | None) -> httpx.Response:
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        data, status = self.result[start:], 206 if wanted and self.ranges else 200
        if self.break_after:
            return httpx.Response(status, stream=BrokenStream(data[: self.break_after.pop(0)]))
        return httpx.Response(status, content=data)

    def _page(self, query: dict[str, str]) -> httpx.Response:
        """Jobs j0 to j249, by number as cursor."""
        start, limit = int(query.get("cursor", 0)), int(query["limit"])
        end = min(start + limit, 250)
        jobs = [self.job | {"id": f"j{number}"} for number in range(start, end)]
        cursor = str(end) if end < 250 else None
        return httpx.Response(200, json={"jobs": jobs, "next_cursor": cursor})


def event(state: str, fraction: float, stage: str = "", **job: Any) -> str:
    """One server-sent event, its data split over two lines as the format allows."""
    facts = {"id": "j1", "task": "mesh", "state": state} | job
    facts["progress"] = {"stage": stage, "fraction": fraction, "message": ""}
    text = json.dumps(facts, indent=0).split("\n", 1)
    name = "done" if state in ("succeeded", "failed", "cancelled") else "progress"
    return f"id: 1\nevent: {name}\ndata: {text[0]}\ndata:{text[1].replace(chr(10), '')}\n\n"
