"""Payloads by their SHA-256, on a local folder or an object store, through one interface.

Knows nothing of jobs: the ledger holds names and hashes, this holds bytes. Whatever the back end,
a payload is first written whole to a local file under `incoming/`, hashed on the way and fsynced;
only then does it get its final name, so a reader never sees half a payload.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

CHUNK_BYTES = 1 << 20
STALE_INCOMING_SECONDS = 86_400.0


class Incoming:
    """A payload being written: bytes go to a private temporary file and into the hash.

    Use as a context manager; leaving it without `ArtifactStore.add` deletes the file.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / uuid.uuid4().hex
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = self.path.open("xb", buffering=0)

    def write(self, chunk: bytes | memoryview) -> None:
        """Append `chunk`. Raises OSError when the disk is full."""
        if self._file is None:
            raise ValueError("This payload is closed.")
        self._hash.update(chunk)
        view = memoryview(chunk)
        while view:  # an unbuffered write may take a part only
            written = self._file.write(view)
            view = view[written:]
        self.size_bytes += len(chunk)

    def seal(self) -> str:
        """Flush to disk and close; returns the SHA-256 in hex."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        return self._hash.hexdigest()

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self.path.unlink(missing_ok=True)


class ArtifactStore:
    """Add, read and delete payloads by hash.

    url:      file:///folder, s3://bucket/prefix, gs://…, az://…; credentials from the environment
    data_dir: local folder for payloads on their way in; created if absent
    """

    def __init__(self, url: str, data_dir: Path) -> None:
        self._incoming = data_dir.absolute() / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._folder: Path | None = None
        parts = urlsplit(url)
        if parts.scheme == "file":
            self._folder = Path(unquote(parts.path))
            self._folder.mkdir(parents=True, exist_ok=True)
            self._store: ObjectStore = LocalStore(self._folder)
        else:
            self._store = from_url(url)

    # -- writing ---------------------------------------------------------------------------

    def incoming(self) -> Incoming:
        """A new payload to write into, then `add`."""
        return Incoming(self._incoming)

    def add(self, payload: Incoming) -> str:
        """Make a written payload durable under its hash; returns the hash.

        Adding the same bytes again refreshes their age, so `collect` leaves them alone.
        """
        digest = payload.seal()
        if self._folder is None:
            with _os_errors():
                obstore.put(self._store, _key(digest), payload.path)
            return digest
        target = self._folder / _key(digest)
        _make_folders(target.parent)
        with self._locked(fcntl.LOCK_SH):
            if self._incoming.stat().st_dev == target.parent.stat().st_dev:
                os.replace(payload.path, target)
            else:
                _copy_then_rename(payload.path, target)
        _fsync_folder(target.parent)
        return digest

    def add_file(self, path: Path) -> tuple[str, int]:
        """Copy a file into the store; returns its hash and size in bytes."""
        with self.incoming() as payload, path.open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                payload.write(chunk)
            return self.add(payload), payload.size_bytes

    # -- reading ---------------------------------------------------------------------------

    def exists(self, digest: str) -> bool:
        if self._folder is not None:
            return (self._folder / _key(digest)).is_file()
        return self._modified_at(digest) is not None

    def read(self, digest: str, start: int, end: int) -> Iterator[bytes]:
        """Bytes [start, end) of a payload in chunks. Raises FileNotFoundError."""
        if self._folder is not None:
            yield from _read_local(self._folder / _key(digest), start, end)
            return
        while start < end:
            stop = min(end, start + 8 * CHUNK_BYTES)
            with _os_errors():
                chunk = bytes(obstore.get_range(self._store, _key(digest), start=start, end=stop))
            yield chunk
            start = stop

    def fetch(self, digest: str, target: Path, size_bytes: int) -> None:
        """Place a payload at `target` for a runner to read: a link where possible, else a copy.

        Raises FileNotFoundError when it is not there.
        """
        if self._folder is not None:
            source = self._folder / _key(digest)
            try:
                os.symlink(source, target)
            except OSError:
                shutil.copyfile(source, target)
            if not target.exists():
                raise FileNotFoundError(f"payload {digest} is not in the store")
            return
        with target.open("wb") as file:
            for chunk in self.read(digest, 0, size_bytes):
                file.write(chunk)

    # -- housekeeping ----------------------------------------------------------------------

    def free_bytes(self) -> int:
        """Free space where payloads arrive."""
        return shutil.disk_usage(self._incoming).free

    def check_writable(self) -> None:
        """Raise OSError when no payload could be written now."""
        with self.incoming() as payload:
            payload.write(b"\0")
            payload.seal()

    def delete(self, digest: str) -> None:
        """Remove a payload; absent is fine."""
        with _os_errors(), suppress(FileNotFoundError):
            obstore.delete(self._store, _key(digest))

    def collect(self, referenced: Collection[str], min_age_seconds: float) -> int:
        """Delete payloads no job refers to and that are older than `min_age_seconds`.

        The age protects an upload whose job is not in the ledger yet. Returns how many went.
        """
        oldest = time.time() - min_age_seconds
        removed = 0
        with _os_errors():
            for batch in obstore.list(self._store, prefix="sha256"):
                for entry in batch:
                    digest = str(entry["path"]).rsplit("/", 1)[-1]
                    if digest not in referenced and entry["last_modified"].timestamp() < oldest:
                        removed += self._delete_if_older(digest, oldest)
        self._drop_stale_incoming()
        return removed

    def _delete_if_older(self, digest: str, oldest: float) -> bool:
        """Look again just before deleting: the same bytes may have been added meanwhile."""
        with self._locked(fcntl.LOCK_EX):
            modified_at = self._modified_at(digest)
            if modified_at is None or modified_at >= oldest:
                return False
            self.delete(digest)
            return True

    def _modified_at(self, digest: str) -> float | None:
        """Seconds since the epoch; None for a payload that is not there."""
        with _os_errors():
            try:
                found = obstore.head(self._store, _key(digest))
            except FileNotFoundError:
                return None
        return found["last_modified"].timestamp()

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Keeps `collect` and `add` of the processes of this machine apart, for microseconds."""
        handle = os.open(self._incoming, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)

    def _drop_stale_incoming(self) -> None:
        """Remove what killed processes left half written."""
        oldest = time.time() - STALE_INCOMING_SECONDS
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):  # an upload that ends meanwhile
                status = path.stat()
                if stat.S_ISREG(status.st_mode) and status.st_mtime < oldest:
                    path.unlink()


def _key(digest: str) -> str:
    """Two levels, so that no folder holds more than a few thousand entries."""
    return f"sha256/{digest[:2]}/{digest}"


@contextmanager
def _os_errors() -> Iterator[None]:
    """The library's errors as OSError, which callers expect of storage."""
    try:
        yield
    except BaseError as error:
        raise OSError(errno.EIO, f"the artifact store failed: {error}".splitlines()[0]) from error


def _read_local(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < end:
            chunk = file.read(min(CHUNK_BYTES, end - start))
            if not chunk:
                raise OSError(f"{path.name} is shorter than recorded")
            start += len(chunk)
            yield chunk


def _copy_then_rename(source: Path, target: Path) -> None:
    """Across file systems a rename is a copy: copy beside the target, fsync, then rename."""
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with source.open("rb") as reader, beside.open("xb") as writer:
        shutil.copyfileobj(reader, writer, CHUNK_BYTES)
        writer.flush()
        os.fsync(writer.fileno())
    os.replace(beside, target)


def _make_folders(folder: Path) -> None:
    """Make `folder` and its parents; a new folder's name is durable only once its parent is."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    """A rename is durable only once its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
