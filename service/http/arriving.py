"""One file on its way into the store; its first bytes decide whether the rest is worth reading.

Knows neither requests nor forms.
"""

from __future__ import annotations

from service.errors import InvalidUpload
from service.http.body import UploadRules
from service.http.filenames import clean_name
from service.http.filetypes import HEAD_BYTES, FileKind, describe, find_kind, find_named
from service.jobs.records import StoredFile
from service.storage.artifacts import ArtifactStore, Incoming


class ArrivingFile:
    """Bytes in, a stored file out. `where` names it in messages."""

    def __init__(
        self, payload: Incoming, raw_name: str | None, rules: UploadRules, where: str
    ) -> None:
        self._payload = payload
        self._raw_name = raw_name
        self._rules = rules
        self._where = where
        self._head = b""
        self._kind: FileKind | None = None

    @property
    def absent(self) -> bool:
        """A browser's file input with nothing chosen: no name, no bytes."""
        return not self._payload.size_bytes and not self._raw_name

    def write(self, chunk: bytes) -> None:
        self._payload.write(chunk)
        if self._kind is None:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                self.check()

    def check(self) -> None:
        """Raises InvalidUpload when the file is empty or not of an accepted kind."""
        if self._kind is not None:
            return
        if not self._payload.size_bytes:
            raise InvalidUpload(f"{self._where} is empty.", code="empty_file")
        kinds, name = self._rules.kinds, self._raw_name or ""
        self._kind = find_named(self._head, name, kinds) or find_kind(self._head, kinds)
        if self._kind is None:
            raise InvalidUpload(
                f"{self._where} is {describe(self._head)}; accepted: {self._rules.accepts}.",
                code="wrong_file_type",
                next_step="The first bytes decide, not the name or the Content-Type"
                + ("; only .splat goes by its name: send X-Filename." if _by_name(kinds) else "."),
            )

    def store_in(self, store: ArtifactStore) -> StoredFile:
        """Make the file durable. Blocks on the disk."""
        assert self._kind is not None
        fallback = f"upload{self._kind.extension}"
        return StoredFile(
            name=clean_name(self._raw_name, fallback),
            media_type=self._kind.media_type,
            size_bytes=self._payload.size_bytes,
            sha256=store.add(self._payload),
        )


def _by_name(kinds: tuple[FileKind, ...]) -> bool:
    return any(not kind.signatures for kind in kinds)
