"""Are the bytes the ones that were downloaded, and the ones the catalogue names?

Reads every byte and changes nothing. Knows no network: what it compares with is the lock beside
the weights, the catalogue, and the names that the hub's own cache gives its files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from models.weights.catalogue import WeightEntry, WeightFile
from models.weights.safetensors import NotSafetensors, check
from models.weights.store import Lock, read_lock

CHUNK_BYTES = 1 << 20
SHA256_DIGITS, GIT_DIGITS = 64, 40

OnBytes = Callable[[int], None]
"""Called with the number of bytes that were read since the last call."""


class FileState(StrEnum):
    OK = "ok"  # the hash is the recorded one
    UNRECORDED = "unrecorded"  # whole, but nobody has recorded what it should be
    CHANGED = "changed"  # other bytes than recorded, or not the format its name says
    MISSING = "missing"


@dataclass(frozen=True)
class Verdict:
    """One file: what was found. sha256: of the bytes that lie here; "" for none."""

    name: str
    state: FileState
    detail: str = ""
    sha256: str = ""

    @property
    def good(self) -> bool:
        return self.state in (FileState.OK, FileState.UNRECORDED)


def verify(
    entry: WeightEntry, place: Path, on_bytes: OnBytes = lambda count: None
) -> Iterator[Verdict]:
    """A verdict for each of the entry's files in this folder, as they are read."""
    lock = read_lock(place)
    for file in entry.files:
        yield _judge(file, place / file.name, lock, on_bytes)


def _judge(file: WeightFile, path: Path, lock: Lock | None, on_bytes: OnBytes) -> Verdict:
    if not path.is_file():
        return Verdict(file.name, FileState.MISSING, "it is not there")
    found = sha256_of(path, on_bytes)
    if path.suffix == ".safetensors":
        try:
            check(path)
        except NotSafetensors as error:
            return Verdict(file.name, FileState.CHANGED, str(error), found)
    locked = lock.files.get(file.name) if lock is not None else None
    records = {
        "the lock": locked.sha256 if locked is not None else "",
        "the catalogue": file.sha256,
        "the hub's cache": _cached_name(path),
    }
    for source, expected in records.items():
        if expected and expected != found:
            return Verdict(file.name, FileState.CHANGED, f"{source} says {expected}", found)
    if not any(records.values()):
        return Verdict(file.name, FileState.UNRECORDED, "nothing to compare it with", found)
    return Verdict(file.name, FileState.OK, "", found)


def _cached_name(path: Path) -> str:
    """The SHA-256 by which the hub's cache names a large file, its snapshots being links."""
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if len(name) == SHA256_DIGITS and set(name) <= set("0123456789abcdef") else ""


# -- hashes -------------------------------------------------------------------------------------


def sha256_of(path: Path, on_bytes: OnBytes = lambda count: None) -> str:
    return _digest(path, hashlib.sha256(), on_bytes)


def etag_of(path: Path, digits: int, on_bytes: OnBytes = lambda count: None) -> str:
    """The content's hash as the hub writes it: 64 digits SHA-256, 40 git's SHA-1 of a blob."""
    if digits == SHA256_DIGITS:
        return sha256_of(path, on_bytes)
    blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    return _digest(path, blob, on_bytes)


def _digest(path: Path, digest: hashlib._Hash, on_bytes: OnBytes) -> str:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()
