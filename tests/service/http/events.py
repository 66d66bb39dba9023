"""A job's events as a client sees them: the JSON of each, as it arrives."""

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
