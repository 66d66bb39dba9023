"""The client: one connection to one service, a method per thing one can ask of it.

Knows only the HTTP API; retries are `connection`'s, files `download`'s.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from .connection import OCTETS, Connection, query
from .download import download
from .errors import JobCancelled, JobFailed, WaitTimeout
from .job import Job

FilePath = str | os.PathLike[str]

SPLAT_FORMATS = {
    ".sog": "sog",
    ".loose.zip": "loose",
    ".lod.zip": "lod",
    ".compressed.ply": "compressed",
    ".ply": "ply",
    ".spz": "spz",
}
"""Ending of a file -> the service's name of its format; longer endings first."""
MESH_FORMATS = {
    ".glb": "glb",
    ".obj.zip": "obj",
    ".splat.ply": "splat",
    ".stl": "stl",
    **{ending: form for ending, form in SPLAT_FORMATS.items() if form != "ply"},
    ".ply": "ply",
}
"""The same of what comes from images, where a .ply is a mesh."""


class Client:
    """A connection to one service. Use as a context manager, or `close` it.

    transport:       an httpx transport in place of the network, for tests
    timeout_seconds: for connecting and for each pause between bytes, not for a whole job
    retries:         further tries after a lost connection or a busy service. Nothing runs twice
                     by that: a submission carries an Idempotency-Key
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8080",
        *,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout_seconds: float = 60.0,
        retries: int = 4,
        backoff_seconds: float = 0.5,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url is {base_url!r}; it must begin with http:// or https://.")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        http = httpx.Client(
            base_url=base_url, headers=headers, transport=transport, timeout=timeout_seconds
        )
        self._connection = Connection(http, retries, backoff_seconds)

    def close(self) -> None:
        self._connection.http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- one call from file to file --------------------------------------------------------

    def mesh(self, images: FilePath | Sequence[FilePath], out: FilePath, **options: Any) -> Job:
        """Image(s) of one object to `out`: a mesh (.glb, .obj.zip, .ply, .stl), or what networks
        that make Gaussians give (.splat.ply, .sog, .loose.zip, .lod.zip, .compressed.ply, .spz);
        returns the ended job.

        `out` is replaced if it exists, in one step and only by a whole, verified file.
        """
        form = _format(out, MESH_FORMATS)
        job = self.submit_mesh(images, **{"formats": [form]} | options).wait()
        job.download(out)
        return job

    def splat(self, files: FilePath | Sequence[FilePath], out: FilePath, **options: Any) -> Job:
        """A Gaussian splat, or several as one scene, to `out` (.sog, .loose.zip, .lod.zip, .ply,
        .compressed.ply, .spz); returns the ended job."""
        form = _format(out, SPLAT_FORMATS)
        job = self.submit_splat(files, **{"formats": [form]} | options).wait()
        job.download(out)
        return job

    # -- jobs ------------------------------------------------------------------------------

    def submit_mesh(
        self,
        images: FilePath | Sequence[FilePath],
        *,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """Queue a mesh job. `options` are those of the pipeline, plus `pipeline`, `priority`."""
        return self._submit("mesh", _paths(images), idempotency_key, options)

    def submit_splat(
        self,
        files: FilePath | Sequence[FilePath],
        *,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """Queue a splat job; several files are merged into one scene. `options` are those of the
        pipeline, plus `pipeline`, `priority`."""
        return self._submit("splat", _paths(files), idempotency_key, options)

    def get(self, job_id: str) -> Job:
        return self._job(self._connection.request("GET", _url(job_id)))

    def cancel(self, job_id: str) -> Job:
        """Ask for a stop; a running job becomes `cancelling`, then `cancelled`."""
        return self._job(self._connection.request("DELETE", _url(job_id)))

    def list(self, *, limit: int | None = None, **filters: Any) -> Iterator[Job]:
        """Jobs, newest first, page by page. filters: task, state."""
        parameters = query(filters)
        while limit is None or limit > 0:
            parameters["limit"] = str(min(limit or 100, 100))
            page = self._connection.request("GET", "/v1/jobs", params=parameters).json()
            for row in page["jobs"][:limit]:
                yield Job.from_json(row, self)
            if not page.get("next_cursor"):
                return
            parameters["cursor"] = page["next_cursor"]
            limit = None if limit is None else limit - len(page["jobs"])

    def pipelines(self) -> Any:
        """What the service can run: names, options with ranges, whether each can run there."""
        return self._connection.request("GET", "/v1/pipelines").json()

    # -- waiting ---------------------------------------------------------------------------

    def wait(
        self,
        job: Job | str,
        *,
        on_progress: Callable[[Job], None] | None = None,
        timeout_seconds: float | None = None,
        check: bool = True,
    ) -> Job:
        """Return the job once it has ended. Raises JobFailed, JobCancelled (unless `check` is
        false) and WaitTimeout; a job that outlives the wait goes on."""
        job_id = job if isinstance(job, str) else job.id
        for current in self.watch(job_id, timeout_seconds=timeout_seconds):
            if on_progress is not None:
                on_progress(current)
        if check and current.state in ("failed", "cancelled"):
            kind = JobFailed if current.state == "failed" else JobCancelled
            facts = current.data.get("error") or {}
            message = facts.get("message") or f"Job {current.id} was {current.state}."
            code = facts.get("code") or f"job_{current.state}"
            raise kind(message, code=code, next_step=facts.get("next_step"), job=current)
        return current

    def watch(self, job_id: str, *, timeout_seconds: float | None = None) -> Iterator[Job]:
        """The job each time it changes, until it has ended: by server-sent events, and by asking
        where a proxy swallows those."""
        deadline = time.monotonic() + timeout_seconds if timeout_seconds is not None else None
        pause = 0.1
        while True:
            try:
                for current in self._events(job_id, deadline):
                    yield current
                    if current.finished:
                        return
            except httpx.TransportError:
                pass  # the stream broke: what follows asks, then opens another
            current = self.get(job_id)
            yield current
            if current.finished:
                return
            _check_deadline(job_id, deadline)
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _events(self, job_id: str, deadline: float | None) -> Iterator[Job]:
        """One connection's worth of events; ends early, silently, where there is no stream."""
        http = self._connection.http
        patience = http.timeout.read
        if deadline is not None:
            patience = max(0.01, min(patience or deadline, deadline - time.monotonic()))
        with http.stream(
            "GET",
            _url(job_id, "events"),
            headers={"Accept": "text/event-stream"},
            timeout=httpx.Timeout(http.timeout.connect, read=patience),
        ) as response:
            if response.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
                return
            data: list[str] = []
            for line in response.iter_lines():
                if line.startswith("data:"):
                    data.append(line[5:].removeprefix(" "))
                elif not line and data:
                    yield Job.from_json(json.loads("\n".join(data)), self)
                    data.clear()
                _check_deadline(job_id, deadline)

    # -- results ---------------------------------------------------------------------------

    def download(self, job: Job | str, out: FilePath, name: str | None = None) -> Path:
        """One artifact (default: the main one) to `out`, a file or an existing folder.

        Continues where a broken download stopped, verifies the SHA-256, then renames.
        """
        job = self.get(job) if isinstance(job, str) else job
        artifact = job.artifact(name)
        target = Path(out)
        if target.is_dir():
            target = target / Path(artifact["name"]).name
        url = _url(job.id, "artifacts", artifact["name"])
        download(self._connection, url, artifact, target)
        return target

    def _submit(
        self, task: str, paths: Sequence[Path], key: str | None, options: Mapping[str, Any]
    ) -> Job:
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        if len(paths) == 1:
            headers["X-Filename"] = quote(paths[0].name)
            headers["Content-Type"] = OCTETS
        response = self._connection.request(
            "POST", f"/v1/jobs/{task}", params=query(options), headers=headers, paths=paths
        )
        return self._job(response)

    def _job(self, response: httpx.Response) -> Job:
        return Job.from_json(response.json(), self)


def _paths(files: FilePath | Sequence[FilePath]) -> list[Path]:
    several = [files] if isinstance(files, (str, os.PathLike)) else files
    return [Path(file) for file in several]


def _format(out: FilePath, endings: Mapping[str, str]) -> str:
    """Raises ValueError naming what there is."""
    name = Path(out).name.lower()
    for ending, form in endings.items():
        if name.endswith(ending):
            return form
    raise ValueError(f"out is {str(out)!r}; it must end in {', '.join(endings)}.")


def _url(job_id: str, *rest: str) -> str:
    return "/v1/jobs/" + "/".join(quote(part, safe="") for part in (job_id, *rest))


def _check_deadline(job_id: str, deadline: float | None) -> None:
    if deadline is not None and time.monotonic() > deadline:
        raise WaitTimeout(
            f"Job {job_id} has not ended in time; it goes on.",
            code="wait_timeout",
            next_step="Wait again with a longer timeout, or cancel the job.",
        )
