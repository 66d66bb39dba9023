"""Fetch one entry of the catalogue: asked, checked, and put in its place whole or not at all.

Knows nothing of the networks. All work happens in `.pull/<entry>` beside the places; what arrived
stays there when it is interrupted, even by `kill -9`, and the next pull goes on from it. The last
step renames the folder, so a place never holds half an entry.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from models.context import Unavailable
from models.weights.catalogue import WeightEntry, WeightFile
from models.weights.faults import disk_full
from models.weights.hub import Hub, RemoteFile
from models.weights.pickles import check_converter, convert, published
from models.weights.refuse import refuse_licence
from models.weights.store import LOCK_NAME, Lock, LockedFile, find, places
from models.weights.transfer import FILES_AT_ONCE, OnProgress, fetch_all, size_arrived
from models.weights.units import in_units
from models.weights.verify import SHA256_DIGITS, etag_of, sha256_of

WORK_FOLDER = ".pull"
NEWEST = "main"
SPARE_BYTES = 64 << 20  # must stay free beyond the download itself


@dataclass(frozen=True)
class Pulled:
    """place: the entry's folder. fetched_bytes: what came over the network; 0 when all was here."""

    place: Path
    fetched_bytes: int


def pull(
    entry: WeightEntry,
    folder: Path,
    hub: Hub,
    *,
    accepted_licences: Collection[str] = (),
    again: bool = False,
    on_progress: OnProgress = lambda stage, fraction, message: None,
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> Pulled:
    """Bring the entry into `folder/<name>`, unless one of its places holds it whole.

    accepted_licences: short names; one is needed where the licence is not permissive, or is not the
        one the catalogue names: then the hub's word for it
    again: compare what is here with the hub, byte by byte, and fetch what differs

    Raises Unavailable, with a code and a next step for each thing that can go wrong.
    """
    # 1. What must not be fetched, before anything is asked.
    check_converter(entry)
    refuse_licence(entry, accepted_licences)
    place = folder / entry.name

    with _alone(folder, entry, on_progress) as work:
        # 2. Already here?
        if not again and (found := find(entry, folder)) is not None:
            return Pulled(found, 0)

        # 3. What the hub has, and whether it is what the catalogue means.
        on_progress("asking the hub", 0.0, hub.endpoint)
        offered = published(entry)
        remotes = _ask(offered, hub, accepted_licences)

        # 4. What of it is here already, and whether there is room for the rest.
        on_progress("checking what is here", 0.0, "")
        sources = (work, *places(entry, folder))
        wanted = [remote for remote in remotes if not _reuse(remote, sources, work)]
        _check_space(entry, remotes, wanted, work, free_bytes)

        # 5. The rest: several files at once, each checked when it is whole.
        fetched = fetch_all(offered, wanted, work, hub, on_progress)

        # 6. What was published as a pickle becomes safetensors.
        for file in entry.files:
            if file.pickled_as:
                on_progress("converting", 1.0, file.pickled_as)
                convert(work / file.pickled_as, work / file.name)

        # 7. The record, then the place.
        on_progress("publishing", 1.0, "")
        _write_lock(entry, remotes, work)
        _publish(entry, work, place)
    return Pulled(place, fetched)


# -- 3. what the hub has --------------------------------------------------------------------------


def _ask(entry: WeightEntry, hub: Hub, accepted: Collection[str]) -> list[RemoteFile]:
    """Size and hash of each file, in the entry's order; all of one commit, the catalogue's where it
    names one."""
    revision = hub.revision(entry.repo, entry.revision or NEWEST)
    commit = entry.revision or revision.commit
    known = {"", entry.licence.name.lower(), *accepted}
    if entry.licence.permissive and revision.licence.lower() not in known:
        raise Unavailable(
            f"{entry.repo} says its licence is {revision.licence!r}, not {entry.licence.name}.",
            code="weights_licence",
            next_step=f"Read {entry.licence.link}; --accept-licence {revision.licence.lower()} "
            "says that you accept it.",
        )
    if lacking := [file.name for file in entry.files if file.name not in revision.names]:
        raise Unavailable(
            f"{entry.repo} has no {', '.join(lacking)} at {commit}.",
            code="weights_not_found",
            next_step="HF_ENDPOINT may name a mirror that is not complete.",
        )
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        names = [file.name for file in entry.files]
        remotes = list(threads.map(partial(hub.describe, entry.repo, commit), names))
    for file, remote in zip(entry.files, remotes, strict=True):
        _check_promise(entry, revision.commit, file, remote)
    return remotes


def _check_promise(entry: WeightEntry, commit: str, file: WeightFile, remote: RemoteFile) -> None:
    """Raises Unavailable when the hub announces something else than the catalogue names."""
    hashed = file.sha256 if len(remote.etag) == SHA256_DIGITS else ""
    pairs = {
        "the commit": (entry.revision or commit, commit),
        "the file's commit": (entry.revision or commit, remote.commit),
        "the size": (file.size_bytes or remote.size_bytes, remote.size_bytes),
        "the SHA-256": (hashed or remote.etag, remote.etag),
    }
    for what, (expected, found) in pairs.items():
        if expected != found:
            raise Unavailable(
                f"{file.name} of {entry.repo} is not the one this version was made for: {what} is "
                f"{found}, not {expected}.",
                code="weights_changed",
                next_step="HF_ENDPOINT may name a mirror that is not true to the hub.",
            )


# -- 4. what is here ------------------------------------------------------------------------------


def _reuse(remote: RemoteFile, sources: Sequence[Path], work: Path) -> bool:
    """Put a file into the work folder that is here already; False when it must be fetched."""
    target = work / remote.name
    for source in sources:
        path = source / remote.name
        if not path.is_file() or path.stat().st_size != remote.size_bytes:
            continue
        if etag_of(path, len(remote.etag)) != remote.etag:
            continue
        if path != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            _link(path.resolve(), target)
        return True
    target.unlink(missing_ok=True)
    return False


def _link(path: Path, target: Path) -> None:
    """The same bytes under another name; a copy where the file system allows no link."""
    try:
        os.link(path, target)
    except OSError:
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            raise disk_full(target.parent, error) from error


def _check_space(
    entry: WeightEntry,
    remotes: Sequence[RemoteFile],
    wanted: Sequence[RemoteFile],
    work: Path,
    free_bytes: Callable[[Path], int],
) -> None:
    """For what is to come, and once more for each pickle: what is made of it is as large."""
    pickles = {file.pickled_as for file in entry.files}
    arrived = sum(size_arrived(work, remote) for remote in wanted)
    needed = sum(remote.size_bytes for remote in wanted) - arrived
    needed += sum(remote.size_bytes for remote in remotes if remote.name in pickles)
    free = free_bytes(work)
    if needed and free < needed + SPARE_BYTES:
        raise Unavailable(
            f"{entry.name} needs {in_units(needed + SPARE_BYTES)} in {work}; {in_units(free)} are "
            "free.",
            code="weights_disk_full",
            next_step="Make room, or choose another folder with MESHPRESS_MODELS_DIR.",
        )


# -- 7. the record and the place ------------------------------------------------------------------


def _write_lock(entry: WeightEntry, remotes: Sequence[RemoteFile], work: Path) -> None:
    files = {}
    for file, remote in zip(entry.files, remotes, strict=True):
        path, known = work / file.name, len(remote.etag) == SHA256_DIGITS and not file.pickled_as
        sha256 = remote.etag if known else sha256_of(path)
        files[file.name] = LockedFile(path.stat().st_size, sha256)
    lock = Lock(entry.repo, remotes[0].commit, entry.licence.name, files)
    with (work / LOCK_NAME).open("w", encoding="utf-8") as record:
        record.write(lock.to_json())
        record.flush()
        os.fsync(record.fileno())


def _publish(entry: WeightEntry, work: Path, place: Path) -> None:
    """Rename the work folder to the place; what was there before is gone after that."""
    belongs = {work / file.name for file in entry.files} | {work / LOCK_NAME}
    for path in [path for path in work.rglob("*") if path.is_file() and path not in belongs]:
        path.unlink()
    before = work.with_name(f"{work.name}.before")
    _remove(before)
    if place.exists() or place.is_symlink():
        os.rename(place, before)
    os.rename(work, place)
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    _remove(before)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


@contextmanager
def _alone(folder: Path, entry: WeightEntry, on_progress: OnProgress) -> Iterator[Path]:
    """The entry's work folder, for one pull at a time; a second one waits for the first."""
    work = folder / WORK_FOLDER / entry.name
    work.parent.mkdir(parents=True, exist_ok=True)
    with (work.with_name(f"{work.name}.lock")).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("waiting for another pull", 0.0, entry.name)
            fcntl.flock(lock, fcntl.LOCK_EX)
        work.mkdir(exist_ok=True)
        yield work
