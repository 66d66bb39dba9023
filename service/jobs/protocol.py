"""What a worker and its runner say to each other: JSON lines over two pipes.

    worker -> runner   {"type": "run", ...RunRequest}   {"type": "cancel"}
    runner -> worker   {"type": "ready"}
                       {"type": "progress", "stage", "fraction", "message"}
                       {"type": "done", "artifacts": [{"name", "path", "media_type"}], "report"}
                       {"type": "failed", "code", "message", "next_step", "user_fault"}
                       {"type": "cancelled"}

A runner ends when its command pipe does: a worker that dies takes it along.
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
    """One line. NaN and infinities in a report become null: JSON has no word for them."""
    try:
        text = json.dumps(message, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(message))
    return text.encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    message = json.loads(line)
    if not isinstance(message, dict) or "type" not in message:
        raise ValueError(f"not a message: {line[:200]!r}")
    return message


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
