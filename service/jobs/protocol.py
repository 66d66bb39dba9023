"""What a worker and its runner say to each other: JSON lines over two pipes.

    worker -> runner   {"type": "run", "step", ...RunRequest}   {"type": "cancel", "step"}
    runner -> worker   {"type": "ready"}   {"type": "broken", "reason"}
                       {"type": "started", "step"}
                       {"type": "progress", "step", "stage", "fraction", "message"}
                       {"type": "done", "step", "report",
                        "artifacts": [{"name", "path", "media_type"}]}
                       {"type": "failed", "step", "message", "code", "next_step", "fault"}
                       {"type": "cancelled", "step"}

`step` numbers the requests of one runner: an answer to an earlier one is never taken for this
one's. A runner ends when its command pipe does: a worker that dies takes it along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunRequest:
    """One step to run.

    inputs:  [{"path", "name", "media_type"}], local files
    workdir: an empty folder of this step's own
    """

    task: str
    pipeline: str
    options: Mapping[str, Any]
    inputs: list[dict[str, str]]
    workdir: str


def encode(message: Mapping[str, Any]) -> bytes:
    """One line that every JSON reader and database takes. Raises TypeError for what is not JSON."""
    return json.dumps(_plain(message), allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    message = json.loads(line)
    if not isinstance(message, dict) or "type" not in message:
        raise ValueError(f"not a message: {line[:200]!r}")
    return message


def _plain(value: Any) -> Any:
    """NaN and infinities become null, and text loses lone surrogates and NUL: JSON has no word
    for the first, PostgreSQL none for the others."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "")
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
