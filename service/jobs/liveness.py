"""Who is alive: a lock per worker that its process holds and the kernel or the database frees.

Knows nothing of jobs. On SQLite, one machine by nature, the lock is a `flock` on a file in
DATA_DIR; on PostgreSQL a session advisory lock, so any machine can tell whether any worker lives.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa

MOST_WORKERS_PER_DEVICE = 64


class Liveness(Protocol):
    def try_lock(self, name: str) -> bool:
        """Take the lock of this name and keep it; False while another process has it."""

    def unlock(self, name: str) -> None: ...

    def alive(self) -> bool:
        """Whether the locks taken are still ours."""


def claim(liveness: Liveness, base: str) -> str:
    """The first free name of base, base#2, base#3 …: stable over restarts, unique while alive."""
    for number in range(1, MOST_WORKERS_PER_DEVICE + 1):
        name = base if number == 1 else f"{base}#{number}"
        if liveness.try_lock(name):
            return name
    raise RuntimeError(f"{MOST_WORKERS_PER_DEVICE} workers named {base} are alive already")


class FileLiveness:
    """Locks as files; the kernel frees them however the process ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._held: dict[str, int] = {}

    def try_lock(self, name: str) -> bool:
        if name in self._held:
            return False
        path = self._folder / f"{name.replace('/', '_')}.lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._held[name] = handle
        return True

    def unlock(self, name: str) -> None:
        os.close(self._held.pop(name))

    def alive(self) -> bool:
        return True


class PostgresLiveness:
    """Session advisory locks on one connection kept open for the purpose."""

    def __init__(self, engine: sa.Engine) -> None:
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._held: set[str] = set()

    def try_lock(self, name: str) -> bool:
        if name in self._held:  # a session may take its own lock twice
            return False
        query = sa.text("SELECT pg_try_advisory_lock(:key)")
        if self._connection.execute(query, {"key": _key(name)}).scalar_one():
            self._held.add(name)
            return True
        return False

    def unlock(self, name: str) -> None:
        self._held.discard(name)
        query = sa.text("SELECT pg_advisory_unlock(:key)")
        self._connection.execute(query, {"key": _key(name)})

    def alive(self) -> bool:
        with suppress(sa.exc.DBAPIError):
            self._connection.execute(sa.text("SELECT 1"))
            return True
        return False


def _key(name: str) -> int:
    """A lock's number: PostgreSQL wants a signed 64-bit one."""
    return int.from_bytes(hashlib.sha256(f"meshpress:{name}".encode()).digest()[:8], signed=True)


def open_liveness(engine: sa.Engine, data_dir: Path) -> Liveness:
    if engine.dialect.name == "postgresql":
        return PostgresLiveness(engine)
    return FileLiveness(data_dir / "locks")
