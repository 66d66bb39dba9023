"""Several files at once from the hub into a folder, each checked when it is whole.

Knows neither places nor locks: it fills the folder it is given. What arrived stays in it under a
name of its own until the file is whole, so that the next try goes on from there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from threading import Lock

from models.context import Unavailable
from models.weights import safetensors
from models.weights.catalogue import WeightEntry, WeightFile
from models.weights.hub import Hub, RemoteFile, Stopped
from models.weights.units import in_units
from models.weights.verify import SHA256_DIGITS, etag_of, sha256_of

FILES_AT_ONCE = 4
TELL_SECONDS = 0.1

OnProgress = Callable[[str, float, str], None]
"""stage, fraction of the bytes (0..1), message."""


class _Meter:
    """How much of all files has arrived, told at most ten times a second."""

    def __init__(self, remotes: Sequence[RemoteFile], tell: OnProgress) -> None:
        self._total = max(1, sum(remote.size_bytes for remote in remotes))
        self._left, self._tell = len(remotes), tell
        self._positions: dict[str, int] = {}
        self._mutex = Lock()
        self._begun = self._told = time.monotonic()
        self._first: int | None = None
        self._stage = "downloading"

    def move(self, name: str, position: int) -> None:
        with self._mutex:
            self._positions[name] = position
            now = time.monotonic()
            if now - self._told >= TELL_SECONDS:
                self._told = now
                self._say(now)

    def finish(self, name: str) -> None:
        """A file is whole: a stage of its own, so that a log without a bar shows it too."""
        with self._mutex:
            self._left -= 1
            count = self._left
            self._stage = f"{name} is here ({count} to go)" if count else f"{name} is here"
            self._say(time.monotonic())

    def _say(self, now: float) -> None:
        done = sum(self._positions.values())
        if self._first is None:
            self._first, self._begun = done, now
        speed = (done - self._first) / max(now - self._begun, 1e-3)
        pace = f", {in_units(speed)}/s" if speed > 0 else ""
        message = f"{in_units(done)} of {in_units(self._total)}{pace}"
        self._tell(self._stage, min(1.0, done / self._total), message)


def fetch_all(
    entry: WeightEntry,
    wanted: Sequence[RemoteFile],
    work: Path,
    hub: Hub,
    on_progress: OnProgress,
) -> int:
    """Several files at once; the first failure ends the others. Returns the bytes that came."""
    if not wanted:
        return 0
    known = {file.name: file for file in entry.files}
    meter = _Meter(wanted, on_progress)
    before = sum(size_arrived(work, remote) for remote in wanted)
    hub.stopped.clear()

    def fetch(remote: RemoteFile) -> None:
        _fetch_one(known[remote.name], remote, work, hub, meter)
        meter.finish(remote.name)

    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        tasks = [threads.submit(fetch, remote) for remote in wanted]
        try:
            done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
        finally:  # a failure or Ctrl-C: the other transfers end too, and keep what they have
            if not all(task.done() for task in tasks):
                hub.stopped.set()
                threads.shutdown(cancel_futures=True)
    failures = [error for task in done if (error := task.exception()) is not None]
    for error in sorted(failures, key=lambda error: isinstance(error, Stopped)):
        raise error
    return sum(remote.size_bytes for remote in wanted) - before


def _fetch_one(file: WeightFile, remote: RemoteFile, work: Path, hub: Hub, meter: _Meter) -> None:
    """One file into the work folder, checked. What arrived wrong is fetched once more, whole."""
    part = part_of(work, remote)
    part.parent.mkdir(parents=True, exist_ok=True)
    hub.fetch(remote, part, partial(meter.move, remote.name))
    if _hash_fault(file, remote, part):  # perhaps a part from an earlier time, damaged since
        part.unlink()
        hub.fetch(remote, part, partial(meter.move, remote.name))
    if fault := _hash_fault(file, remote, part) or _format_fault(part, remote.name):
        part.unlink()
        raise Unavailable(
            f"{remote.name} of {remote.repo} arrived damaged: {fault}.",
            code="weights_damaged",
            next_step="Run the command again; a proxy or mirror in between may be at fault.",
        )
    os.replace(part, work / remote.name)


def _hash_fault(file: WeightFile, remote: RemoteFile, path: Path) -> str:
    """Which hash is not the announced one; "" when all are."""
    if (found := etag_of(path, len(remote.etag))) != remote.etag:
        return f"its hash is {found}, the hub says {remote.etag}"
    if len(remote.etag) == SHA256_DIGITS or not file.sha256:
        return ""
    found = sha256_of(path)
    return "" if found == file.sha256 else f"its SHA-256 is {found}, not {file.sha256}"


def _format_fault(path: Path, name: str) -> str:
    """Why the content is not what its name says; "" when it is."""
    try:
        if name.endswith(".safetensors"):
            safetensors.check(path)
        elif name.endswith(".json"):
            json.loads(path.read_bytes())
    except safetensors.NotSafetensors as error:
        return f"it is not in safetensors' format, {error}"
    except ValueError:
        return "it is not JSON"
    return ""


def part_of(work: Path, remote: RemoteFile) -> Path:
    """Where a file arrives. Named by its hash too: two versions are never joined."""
    return work / f"{remote.name}.{remote.etag[:16]}.part"


def size_arrived(work: Path, remote: RemoteFile) -> int:
    part = part_of(work, remote)
    return part.stat().st_size if part.exists() else 0
