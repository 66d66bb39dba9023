"""A job's events as a client sees them, and what a test does at one of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx


def events_of(client: httpx.Client, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The job at each change, to its end."""
    with client.stream("GET", job["links"]["events"]) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


def cancelled_at(client: httpx.Client, job: dict[str, Any], stage: str) -> dict[str, Any]:
    """The job's end, once it was cancelled at the first sign of this stage.

    Fails where the job went on to another stage, or had to be killed.
    """
    for seen in events_of(client, job):
        if seen["progress"]["stage"] == stage:
            break
    client.delete(job["links"]["self"])
    ended: dict[str, Any] = client.get(job["links"]["self"], headers={"Prefer": "wait=60"}).json()
    assert (ended["state"], ended["progress"]["stage"]) == ("cancelled", stage)
    assert [attempt["outcome"] for attempt in ended["attempts"]] == ["finished"]
    return ended
