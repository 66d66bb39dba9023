"""One artifact to one file: continued where it broke off, verified, then renamed into place.

Knows neither jobs nor their states.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from .connection import Connection
from .errors import CorruptDownload, problem


def download(connection: Connection, url: str, artifact: Mapping[str, Any], target: Path) -> None:
    """Write the artifact's bytes to `target`, which is never half a file.

    What has arrived stays beside the target, named by its hash, when this is interrupted; the next
    call asks only for the rest. Raises CorruptDownload when the SHA-256 differs.
    """
    part = target.with_name(f".{target.name}.{artifact['sha256'][:12]}.part")
    failures = 0
    while (size := _size(part)) < artifact["size_bytes"] or not part.exists():
        try:
            _append(connection.http, url, part, size)
        except httpx.TransportError as error:
            failures = 1 if _size(part) > size else failures + 1
            connection.pause_or_give_up(failures, error)
        else:
            break  # a whole answer: should it be too short, the hash tells
    _verify(part, artifact)
    os.replace(part, target)


def _append(http: httpx.Client, url: str, part: Path, start: int) -> None:
    """Fetch from byte `start` on; a service that ignores ranges sends all, which replaces all."""
    headers = {"Accept-Encoding": "identity"}  # ranges count the file's own bytes
    if start:
        headers["Range"] = f"bytes={start}-"
    with http.stream("GET", url, headers=headers) as response:
        if not response.is_success:
            response.read()
            raise problem(response)
        with part.open("ab" if response.status_code == 206 else "wb") as file:
            # As they arrive: chunks of a fixed size are collected first, and lost on a break.
            for chunk in response.iter_bytes():
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())


def _verify(part: Path, artifact: Mapping[str, Any]) -> None:
    with part.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == artifact["sha256"]:
        return
    part.unlink()
    raise CorruptDownload(
        f"{artifact['name']} arrived with SHA-256 {digest}; the service says {artifact['sha256']}.",
        code="corrupt_download",
        next_step="Download it again.",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
